"""Layouts of other projects: found, told apart from classes of the same names, and named when nothing is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from flowkit.errors import ManifestError
from flowkit.exchange.foreign_trees import find_videos
from flowkit.exchange.import_trees import ImportSettings, import_tree
from flowkit.shards.reader import ShardReader


def picture(seed: int, *, grey: bool, suffix: str = ".jpg", size: tuple[int, int] = (24, 32)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, size if grey else (*size, 3), dtype=np.uint8)
    return bytes(cv2.imencode(suffix, cv2.GaussianBlur(pixels, (5, 5), 2))[1])


def write(tree: Path, *, frames: str, u: str, v: str, first: int = 1, num_frames: int = 4, suffix: str = ".jpg") -> None:
    """Write a video; the names hold the number as ``{}``."""
    for names, count, offset in ((frames, num_frames, 0), (u, num_frames - 1, 1000), (v, num_frames - 1, 2000)):
        for k in range(count):
            path = tree / names.format(k + first)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(offset + k, grey=offset > 0, suffix=path.suffix))


LAYOUTS: dict[str, tuple[str, str, str, str, str]] = {  # tool, id, frames, u, v
    "EPIC-Kitchens, folders inside": (
        "gpu_flow", "P01/P01_01", "P01/rgb_frames/P01_01/frame_{:010d}.jpg", "P01/flow_frames/P01_01/u/frame_{:010d}.jpg",
        "P01/flow_frames/P01_01/v/frame_{:010d}.jpg",
    ),
    "EPIC-Kitchens, as it is unpacked": (
        "gpu_flow", "train/P01/P01_01", "rgb/train/P01/P01_01/frame_{:010d}.jpg", "flow/train/P01/P01_01/u/frame_{:010d}.jpg",
        "flow/train/P01/P01_01/v/frame_{:010d}.jpg",
    ),
    "EPIC-Kitchens, folders above": (
        "gpu_flow", "P01_01", "rgb/P01_01/frame_{:010d}.jpg", "u/P01_01/frame_{:010d}.jpg", "v/P01_01/frame_{:010d}.jpg",
    ),
    "gpu_flow below a class": ("gpu_flow", "run/a", "run/rgb/a/frame{:06d}.jpg", "run/u/a/frame{:06d}.jpg", "run/v/a/frame{:06d}.jpg"),
    "I3D": (
        "gpu_flow", "v_run_g01_c01", "rgb/v_run_g01_c01/frame{:06d}.jpg", "tvl1_flow/u/v_run_g01_c01/frame{:06d}.jpg",
        "tvl1_flow/v/v_run_g01_c01/frame{:06d}.jpg",
    ),
    "I3D with x and y": (
        "dense_flow", "run/a", "jpegs_256/run/a/frame{:06d}.jpg", "tvl1_flow/x/run/a/frame{:06d}.jpg", "tvl1_flow/y/run/a/frame{:06d}.jpg",
    ),
    "I3D-Tensorflow": ("dense_flow", "run/a", "run/a/i/{:05d}.jpg", "run/a/x/{:05d}.jpg", "run/a/y/{:05d}.jpg"),
    "I3D-Tensorflow without classes": ("denseflow", "a", "a/i/{:05d}.jpg", "a/x/{:05d}.jpg", "a/y/{:05d}.jpg"),
    "names of dense_flow in folders": (
        "dense_flow", "run/a", "run/a/i/img_{:05d}.jpg", "run/a/x/flow_x_{:05d}.jpg", "run/a/y/flow_y_{:05d}.jpg",
    ),
    "older mmaction2": ("denseflow", "run/a", "run/a/img_{:05d}.jpg", "run/a/x_{:05d}.jpg", "run/a/y_{:05d}.jpg"),
    "frames of ffmpeg": ("denseflow", "run/a", "run/a/{:05d}.jpg", "run/a/flow_x_{:05d}.jpg", "run/a/flow_y_{:05d}.jpg"),
    "frames as PNGs elsewhere": ("gpu_flow", "a", "frames/a/{:05d}.png", "u/a/frame{:06d}.jpg", "v/a/frame{:06d}.jpg"),
    "classes called x and y": ("denseflow", "x/a", "x/a/img_{:05d}.jpg", "x/a/flow_x_{:05d}.jpg", "x/a/flow_y_{:05d}.jpg"),
    "a class called u": ("gpu_flow", "u/a", "u/a/rgb/{:05d}.jpg", "u/a/u/{:05d}.jpg", "u/a/v/{:05d}.jpg"),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layouts_of_projects_are_read(tmp_path: Path, layout: str) -> None:
    tool, video_id, frames, u, v = LAYOUTS[layout]
    write(tmp_path / "tree", frames=frames, u=u, v=v)
    if layout == "classes called x and y":  # videos of the same name in both
        write(tmp_path / "tree", frames=frames.replace("x/a", "y/a"), u=u.replace("x/a", "y/a"), v=v.replace("x/a", "y/a"))
    if layout == "a class called u":
        write(tmp_path / "tree", frames=frames.replace("u/a", "v/a", 1), u=u.replace("u/a", "v/a", 1), v=v.replace("u/a", "v/a", 1))
    report = import_tree(tmp_path / "tree", tmp_path / "root", settings=ImportSettings(tool, 20.0), jobs=1)  # type: ignore[arg-type]
    assert report.failed == ()
    assert video_id in [result.video_id for result in report.done]
    assert len(report.done) == (2 if "class called" in layout or "classes called" in layout else 1)
    with ShardReader(tmp_path / "root" / "clips" / f"{video_id}.h5") as reader:
        clip = reader.clip(video_id)
        assert clip.num_frames == 4
        assert clip.encoded_flow(1, 2) == [(tmp_path / "tree" / names.format(2)).read_bytes() for names in (u, v)]
        if frames.endswith(".jpg"):
            assert clip.encoded_frames(2, 3) == [(tmp_path / "tree" / frames.format(3)).read_bytes()]


def test_a_tree_is_given_by_its_flow_folder_and_frames_beside_it_or_where_they_are_named(tmp_path: Path) -> None:
    write(tmp_path, frames="rgb/P01/a/frame_{:010d}.jpg", u="flow/P01/a/u/frame_{:010d}.jpg", v="flow/P01/a/v/frame_{:010d}.jpg")
    (video,) = find_videos(tmp_path / "flow", "gpu_flow")
    assert (video.video_id, video.frames) == ("P01/a", tmp_path / "rgb" / "P01" / "a")
    (tmp_path / "rgb").rename(tmp_path / "elsewhere")
    (video,) = find_videos(tmp_path / "flow", "gpu_flow", frames=tmp_path / "elsewhere")
    assert video.frames == tmp_path / "elsewhere" / "P01" / "a"


@pytest.mark.parametrize(
    ("tool", "names", "words"),
    [
        ("gpu_flow", "run/a/flow_{}_00001.jpg", "<video>/u/frame_0000000001.jpg with <video>/v/"),
        ("gpu_flow", "run/a/flow_{}_00001.jpg", "named as by denseflow or dense_flow"),
        ("denseflow", "run/a/{}/frame_0000000001.jpg", "<video>/flow_x_00001.jpg with flow_y_00001.jpg, or x_00001.jpg"),
        ("denseflow", "run/a/nothing_{}.txt", "name the folder above those of the videos"),
    ],
)
def test_what_was_looked_for_is_named(tmp_path: Path, tool: Any, names: str, words: str) -> None:
    for axis in "xy" if "flow_" in names else "uv":
        path = tmp_path / names.format(axis)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(1, grey=True))
    with pytest.raises(ManifestError) as caught:
        find_videos(tmp_path, tool)
    assert words in str(caught.value)


def why(tree: Path, root: Path, tool: Any = "denseflow", **settings: Any) -> str:
    report = import_tree(tree, root, settings=ImportSettings(tool, 20.0, **settings), jobs=1)
    assert report.done == ()
    return report.failed[0].error


def test_a_video_without_frames_says_which_names_were_looked_for(tmp_path: Path) -> None:
    write(tmp_path / "tree", frames="other/{}.jpg", u="a/flow_x_{:05d}.jpg", v="a/flow_y_{:05d}.jpg")
    error = why(tmp_path / "tree", tmp_path / "root")
    for words in ("img_00001.jpg", "frame000001.jpg", "00001.jpg", "--frames DIR"):
        assert words in error


def test_a_lost_folder_of_v_is_a_video_that_failed(tmp_path: Path) -> None:
    for video in ("a", "b"):
        write(tmp_path / "tree", frames=video + "/i/{:05d}.jpg", u=video + "/x/{:05d}.jpg", v=video + "/y/{:05d}.jpg")
    for path in (tmp_path / "tree" / "b" / "y").iterdir():
        path.unlink()
    report = import_tree(tmp_path / "tree", tmp_path / "root", settings=ImportSettings("dense_flow", 20.0), jobs=1)
    assert [result.video_id for result in report.done] == ["a"]
    assert [(result.video_id, "flow images v" in result.error) for result in report.failed] == [("b", True)]


@pytest.mark.parametrize(("mark", "words"), [("p2", "over 2 frames (denseflow -s=2)"), ("m1", "backwards over 1 frames (denseflow -s=-1)")])
def test_flow_that_denseflow_names_by_its_step_is_refused(tmp_path: Path, mark: str, words: str) -> None:
    write(tmp_path / "tree", frames="a/img_{:05d}.jpg", u=f"a/flow_x_{mark}_{{:05d}}.jpg", v=f"a/flow_y_{mark}_{{:05d}}.jpg", first=0)
    for trim in ("none", "first", "last"):
        assert words in why(tmp_path / "tree", tmp_path / "root", trim=trim)


@pytest.mark.parametrize("trim", ["none", "first", "last"])
@pytest.mark.parametrize("num_fields", [9, 10, 11])
def test_flow_of_every_second_frame_is_refused(tmp_path: Path, trim: Any, num_fields: int) -> None:
    write(tmp_path / "tree", frames="a/img_{:05d}.jpg", u="x/flow_x_{:05d}.jpg", v="x/flow_y_{:05d}.jpg", num_frames=21)
    for k in range(1, num_fields + 1):
        for axis in "xy":
            name = f"flow_{axis}_{k:05d}.jpg"
            (tmp_path / "tree" / "x" / name).rename(tmp_path / "tree" / "a" / name)
    for path in (tmp_path / "tree" / "x").iterdir():
        path.unlink()
    assert "one for about every second frame" in why(tmp_path / "tree", tmp_path / "root", trim=trim)


def test_numbers_in_steps_are_named_as_such(tmp_path: Path) -> None:
    write(tmp_path / "tree", frames="a/img_{:05d}.jpg", u="a/flow_x_{:05d}.jpg", v="a/flow_y_{:05d}.jpg", num_frames=9)
    for path in (tmp_path / "tree" / "a").glob("flow_*_0000[2468].jpg"):
        path.unlink()
    assert "numbered in steps of 2" in why(tmp_path / "tree", tmp_path / "root", trim="last")
