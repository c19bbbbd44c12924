"""Imported trees: bytes kept, counts and sizes checked, faults named by video and image, round trips to the bit."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from command_lines import run_flowkit
from shard_files import make_smooth_root
from worker_tasks import run_here

from flowkit.cli.main import main
from flowkit.dataset.packing import pack
from flowkit.dataset.root import Dataset, open_root
from flowkit.dataset.settings import ExtractSettings
from flowkit.errors import ManifestError, ParameterError
from flowkit.exchange import import_trees, import_video
from flowkit.exchange.export_trees import export
from flowkit.exchange.import_trees import ImportReport, ImportSettings, import_tree
from flowkit.quantise import Quantiser
from flowkit.shards.reader import Clip, ShardReader

GPU_FLOW = ImportSettings("gpu_flow", 20.0)
DENSEFLOW = ImportSettings("denseflow", 32.0)


run = partial(run_flowkit, "import")


def image(seed: int, *, grey: bool, size: tuple[int, int] = (24, 32), suffix: str = ".jpg") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, size if grey else (*size, 3), dtype=np.uint8)
    return bytes(cv2.imencode(suffix, cv2.GaussianBlur(pixels, (5, 5), 2))[1])


def write_gpu_flow(
    tree: Path, video: str, num_frames: int, *, num_fields: int | None = None, frames: str = "rgb", size: Any = (24, 32)
) -> None:
    """A video as gpu_flow writes it: frames and flow from number 1, in three folders."""
    for k in range(1, num_frames + 1):
        path = tree / frames / video / f"frame{k:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image(k, grey=False, size=size))
    for k in range(1, (num_frames if num_fields is None else num_fields + 1)):
        for axis in "uv":
            path = tree / axis / video / f"frame{k:06d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image(1000 * ord(axis) + k, grey=True, size=size))


def write_dense(tree: Path, video: str, frames: range, fields: range, *, suffix: str = ".jpg") -> None:
    """A video as denseflow and dense_flow write it: one folder, numbers as given."""
    (tree / video).mkdir(parents=True, exist_ok=True)
    for k in frames:
        (tree / video / f"img_{k:05d}.jpg").write_bytes(image(k, grey=False))
    for k in fields:
        for axis in "xy":
            (tree / video / f"flow_{axis}_{k:05d}{suffix}").write_bytes(image(1000 * ord(axis) + k, grey=True, suffix=suffix))


def clip_of(root: Path, video_id: str) -> Clip:
    return ShardReader(root / "clips" / f"{video_id}.h5").clip(video_id)


def why(report: ImportReport) -> dict[str, str]:
    return {result.video_id: result.error for result in report.failed}


def test_a_gpu_flow_tree_keeps_its_jpegs_to_the_byte(tmp_path: Path) -> None:
    tree, root = tmp_path / "tree", tmp_path / "root"
    write_gpu_flow(tree, "run/v_a", 5)
    report = import_tree(tree, root, settings=GPU_FLOW, jobs=1)
    assert [result.video_id for result in report.done] == ["run/v_a"]
    clip = clip_of(root, "run/v_a")
    assert (clip.num_frames, clip.codec, clip.class_name) == (5, "jpeg", "run")
    assert clip.encoded_frames(0, 5) == [(tree / "rgb" / "run" / "v_a" / f"frame{k:06d}.jpg").read_bytes() for k in range(1, 6)]
    assert clip.encoded_flow(0, 4) == [
        (tree / axis / "run" / "v_a" / f"frame{k:06d}.jpg").read_bytes() for k in range(1, 5) for axis in "uv"
    ]


def test_imported_flow_is_recorded_as_what_it_is(tmp_path: Path) -> None:
    write_gpu_flow(tmp_path / "tree", "a", 3)
    import_tree(tmp_path / "tree", tmp_path / "root", settings=ImportSettings("gpu_flow", 15.0, frame_rate=Fraction(25)), jobs=1)
    attributes = clip_of(tmp_path / "root", "a").attributes
    assert attributes.quantiser == {"bound": 15.0, "mapping": "paper"}
    assert (attributes.solver, attributes.tvl1, attributes.source_sha256, attributes.frame_rate) == ("gpu_flow", {}, "", "25/1")
    settings = Dataset.open(tmp_path / "root").settings
    assert settings is not None
    assert (settings.solver, settings.preset, settings.short_side, settings.codec) == ("gpu_flow", "imported", 0, "jpeg")


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("tool", ["denseflow", "dense_flow"])
def test_dense_trees_may_number_from_0_or_1(tmp_path: Path, first: int, tool: Any) -> None:
    write_dense(tmp_path / "tree", "run/a", range(first, first + 4), range(first, first + 3))
    report = import_tree(tmp_path / "tree", tmp_path / "root", settings=ImportSettings(tool, 15.0), jobs=1)
    assert [result.num_frames for result in report.done] == [4]
    assert clip_of(tmp_path / "root", "run/a").encoded_flow(0, 1) == [image(1000 * ord(axis) + first, grey=True) for axis in "xy"]


def test_dense_flow_leaves_out_the_first_frame_so_its_first_field_is_dropped_and_said(tmp_path: Path) -> None:
    write_dense(tmp_path / "tree", "run/a", range(1, 5), range(1, 5))
    report = import_tree(tmp_path / "tree", tmp_path / "root", settings=ImportSettings("dense_flow", 15.0), jobs=1)
    assert [result.error for result in report.done] == ["the first 1 flow fields dropped"]
    clip = clip_of(tmp_path / "root", "run/a")
    assert clip.num_frames == 4
    assert clip.encoded_flow(0, 1)[0] == image(1000 * ord("x") + 2, grey=True), "flow 2 leads from image 1 to image 2"


def test_one_field_too_many_is_explained_and_can_be_trimmed_at_either_end(tmp_path: Path) -> None:
    write_dense(tmp_path / "tree", "run/a", range(4), range(4))
    report = import_tree(tmp_path / "tree", tmp_path / "none", settings=DENSEFLOW, jobs=1)
    for words in ("4 frames and 4 flow fields", "4 frames need 3 fields", "--trim last", "--trim first"):
        assert words in why(report)["run/a"]
    for trim, first in (("first", 1), ("last", 0)):
        import_tree(tmp_path / "tree", tmp_path / trim, settings=ImportSettings("denseflow", 32.0, trim), jobs=1)  # type: ignore[arg-type]
        clip = clip_of(tmp_path / trim, "run/a")
        assert clip.num_frames == 4
        assert clip.encoded_flow(0, 1)[0] == image(1000 * ord("x") + first, grey=True)


def test_frames_too_many_are_trimmed_like_fields(tmp_path: Path) -> None:
    write_dense(tmp_path / "tree", "run/a", range(6), range(3))
    report = import_tree(tmp_path / "tree", tmp_path / "none", settings=DENSEFLOW, jobs=1)
    assert "2 fields are missing" in why(report)["run/a"]
    import_tree(tmp_path / "tree", tmp_path / "first", settings=ImportSettings("denseflow", 32.0, "first"), jobs=1)
    assert clip_of(tmp_path / "first", "run/a").encoded_frames(0, 1)[0] == image(2, grey=False)


def test_faults_are_named_by_video_and_image_and_never_stop_the_rest(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for video in ("gap", "ungleich", "size", "short", "nojpeg", "twice", "noframes", "begins", "link", "mixed", "good"):
        write_dense(tree, f"run/{video}", range(6), range(5))
    for name in ("flow_x_00002.jpg", "flow_y_00002.jpg"):
        (tree / "run" / "gap" / name).unlink()
    (tree / "run" / "ungleich" / "flow_y_00004.jpg").unlink()
    (tree / "run" / "size" / "img_00003.jpg").write_bytes(image(1, grey=False, size=(24, 30)))
    path = tree / "run" / "short" / "flow_x_00001.jpg"
    path.write_bytes(path.read_bytes()[:200])
    (tree / "run" / "nojpeg" / "img_00002.jpg").write_bytes(b"<html>404</html>")
    (tree / "run" / "twice" / "img_2.jpg").write_bytes(image(1, grey=False))
    for path in (tree / "run" / "noframes").glob("img_*"):
        path.unlink()
    for k in (0, 1):
        (tree / "run" / "begins" / f"img_0000{k}.jpg").unlink()
    (tree / "run" / "link" / "img_00001.jpg").unlink()
    (tree / "run" / "link" / "img_00001.jpg").symlink_to("/dev/zero")
    shutil.copy(tree / "run" / "good" / "flow_x_00001.jpg", tree / "run" / "mixed" / "flow_x_00005.png")
    report = import_tree(tree, tmp_path / "root", settings=DENSEFLOW, jobs=1)
    expected = {
        "gap": "lack number 2",
        "ungleich": "u has 0 to 4 and v has 0 to 3",
        "size": "img_00003.jpg has 30x24 px, but the first flow image has 32x24 px",
        "short": "flow_x_00001.jpg is a truncated JPEG",
        "nojpeg": "img_00002.jpg is not a JPEG",
        "twice": "number 2 twice: img_00002.jpg and img_2.jpg",
        "noframes": "no frames",
        "begins": "begin with number 2",
        "link": "img_00001.jpg cannot be read: not a regular file",
        "mixed": "partly JPEG, partly PNG",
    }
    assert {video.removeprefix("run/") for video in why(report)} == set(expected)
    for video, words in expected.items():
        assert words in why(report)[f"run/{video}"]
    assert [result.video_id for result in report.done] == ["run/good"]
    assert [path.name for path in (tmp_path / "root" / "clips" / "run").iterdir()] == ["good.h5"], "no clip, part or spool of the others"


def test_a_run_again_skips_what_is_there_and_tries_again_what_failed(tmp_path: Path) -> None:
    tree, root = tmp_path / "tree", tmp_path / "root"
    write_gpu_flow(tree, "a", 3)
    write_gpu_flow(tree, "b", 3, num_fields=1)
    code, out, err = run(tree, "--data", root, "--tool", "gpu_flow", "--bound", "default", "--jobs", 1)
    assert code == 3
    assert "imported 1 video " in out
    assert "| b " in err
    report = json.loads((root / "import-report.json").read_text())
    assert (report["counts"], report["failed"][0]["video_id"]) == ({"done": 1, "skipped": 0, "failed": 1, "pending": 0}, "b")
    before = (root / "clips" / "a.h5").stat().st_mtime_ns
    shutil.rmtree(tree / "u" / "b")
    write_gpu_flow(tree, "b", 3)
    code, out, _ = run(tree, "--data", root, "--tool", "gpu_flow", "--bound", 20, "--jobs", 1)
    assert code == 0
    assert "imported 1 video " in out
    assert "1 imported before" in out
    assert (root / "clips" / "a.h5").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 1, "--tool gpu_flow|denseflow|dense_flow"),
        (["--tool", "gpu_flow"], 1, "--bound, in px/frame or by the name of what ran it (gpu_flow 20"),
        (["--bound", "default"], 2, "needs --tool"),
        (["--bound", "mmaction2"], 2, "--bound mmaction2 needs --tool"),
        (["--tool", "denseflow", "--bound", "default"], 2, "depends on what ran it: mmaction2 20, denseflow 32 (run by hand)"),
        (["--tool", "dense_flow", "--bound", "default"], 2, "mmaction2 20, tsn 20, dense_flow 15 (run by hand)"),
        (["--tool", "denseflow", "--bound", "gpu_flow"], 2, "gpu_flow does not run denseflow"),
        (["--tool", "denseflow", "--bound", "tsn"], 2, "tsn does not run denseflow"),
        (["--tool", "gpu_flow", "--bound", "wide"], 2, "neither a number"),
        (["--tool", "gpu_flow", "--bound", "-3"], 2, "bound must be"),
        (["--tool", "denseflow", "--bound", "32"], 1, "no flow of denseflow found"),
        (["--tool", "gpu_flow", "--bound", "20", "--frame-rate", "fast"], 2, "is not a frame rate such as 25"),
    ],
)
def test_what_must_be_said_is_asked_for(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    write_gpu_flow(tmp_path / "tree", "a", 3)
    got, _, err = run(tmp_path / "tree", "--data", tmp_path / "root", *arguments)
    assert (got, words in " ".join(err.split())) == (code, True), err
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("tool", "name", "bound"),
    [
        ("gpu_flow", "default", 20),
        ("gpu_flow", "gpu_flow", 20),
        ("denseflow", "denseflow", 32),
        ("denseflow", "mmaction2", 20),
        ("dense_flow", "dense_flow", 15),
        ("dense_flow", "tsn", 20),
        ("dense_flow", "mmaction2", 20),
    ],
)
def test_the_bound_is_that_of_the_project_which_ran_the_tool(tmp_path: Path, tool: str, name: str, bound: int) -> None:
    if tool == "gpu_flow":
        write_gpu_flow(tmp_path / "tree", "a/b", 3)
    else:
        write_dense(tmp_path / "tree", "a/b", range(3), range(2))
    assert run(tmp_path / "tree", "--data", tmp_path / "root", "--tool", tool, "--bound", name, "--jobs", 1)[0] == 0
    assert clip_of(tmp_path / "root", "a/b").quantiser.bound == bound


def test_frames_are_found_beside_the_flow_as_published_or_where_they_are_named(tmp_path: Path) -> None:
    write_gpu_flow(tmp_path / "published" / "tvl1_flow", "a", 3)
    shutil.move(tmp_path / "published" / "tvl1_flow" / "rgb", tmp_path / "published" / "jpegs_256")
    for tree in (tmp_path / "published", tmp_path / "published" / "tvl1_flow"):
        root = tmp_path / f"root-{tree.name}"
        assert len(import_tree(tree, root, settings=GPU_FLOW, jobs=1).done) == 1
    shutil.move(tmp_path / "published" / "jpegs_256", tmp_path / "elsewhere")
    with pytest.raises(ManifestError, match="--frames DIR"):
        import_tree(tmp_path / "published", tmp_path / "root", settings=GPU_FLOW, jobs=1)
    assert len(import_tree(tmp_path / "published", tmp_path / "root", settings=GPU_FLOW, frames=tmp_path / "elsewhere", jobs=1).done) == 1


def write_ucf101_lists(folder: Path) -> None:
    folder.mkdir()
    (folder / "classInd.txt").write_text("1 ApplyEyeMakeup\n2 HandstandPushups\n")
    (folder / "trainlist01.txt").write_text(
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\nHandstandPushups/v_HandstandPushups_g01_c01.avi 2\n"
    )
    (folder / "testlist01.txt").write_text("ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi\n")


def test_lists_give_flat_trees_their_ids_and_classes(tmp_path: Path) -> None:
    write_ucf101_lists(tmp_path / "lists")
    for video in ("v_ApplyEyeMakeup_g08_c01", "v_HandStandPushups_g01_c01", "v_Unknown_g01_c01"):
        write_gpu_flow(tmp_path / "tree", video, 12)
    report = import_tree(tmp_path / "tree", tmp_path / "root", settings=GPU_FLOW, lists=tmp_path / "lists", jobs=1)
    assert [result.video_id for result in report.done] == [
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01",
        "HandstandPushups/v_HandstandPushups_g01_c01",
        "v_Unknown_g01_c01",
    ]
    assert report.num_without_class == 1
    assert clip_of(tmp_path / "root", "HandstandPushups/v_HandstandPushups_g01_c01").class_name == "HandstandPushups"


def test_an_imported_root_is_packed_with_its_lists_like_any_other(tmp_path: Path) -> None:
    write_ucf101_lists(tmp_path / "lists")
    for video, size in (
        ("v_ApplyEyeMakeup_g08_c01", (24, 32)),
        ("v_HandstandPushups_g01_c01", (24, 20)),
        ("v_ApplyEyeMakeup_g01_c01", (26, 24)),
    ):
        write_gpu_flow(tmp_path / "tree", video, 12, size=size)
    import_tree(tmp_path / "tree", tmp_path / "root", settings=GPU_FLOW, lists=tmp_path / "lists", jobs=1)
    packed = pack(tmp_path / "root", split=1, lists=tmp_path / "lists")
    assert [(r.video_id, r.label) for r in packed.split.train] == [
        ("ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01", 0),
        ("HandstandPushups/v_HandstandPushups_g01_c01", 1),
    ]
    assert packed.split.quantiser == Quantiser(20.0, "paper")


def test_a_flat_tree_that_was_imported_without_lists_is_packed_with_them(tmp_path: Path) -> None:
    write_ucf101_lists(tmp_path / "lists")
    for video in ("v_ApplyEyeMakeup_g08_c01", "v_HandStandPushups_g01_c01", "v_ApplyEyeMakeup_g01_c01"):
        write_gpu_flow(tmp_path / "tree", video, 12)
    import_tree(tmp_path / "tree", tmp_path / "root", settings=GPU_FLOW, jobs=1)
    packed = pack(tmp_path / "root", split=1, lists=tmp_path / "lists")
    assert [(r.video_id, r.class_name) for r in packed.split.train] == [
        ("v_ApplyEyeMakeup_g08_c01", "ApplyEyeMakeup"),
        ("v_HandStandPushups_g01_c01", "HandstandPushups"),
    ]
    assert [r.video_id for r in packed.split.test] == ["v_ApplyEyeMakeup_g01_c01"]


@pytest.mark.parametrize("listed_first", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_a_tree_that_is_imported_with_and_without_lists_has_each_video_once(tmp_path: Path, listed_first: bool, packed: bool) -> None:
    write_ucf101_lists(tmp_path / "lists")
    videos = ("v_ApplyEyeMakeup_g08_c01", "v_HandstandPushups_g01_c01", "v_ApplyEyeMakeup_g01_c01")
    for video in videos:
        write_gpu_flow(tmp_path / "tree", video, 12)
    lists = (tmp_path / "lists", None) if listed_first else (None, tmp_path / "lists")
    first = import_tree(tmp_path / "tree", tmp_path / "root", settings=GPU_FLOW, lists=lists[0], jobs=1)
    if packed:
        pack(tmp_path / "root", lists=tmp_path / "lists", move=True)
    write_gpu_flow(tmp_path / "tree", "v_New_g01_c01", 12)
    again = import_tree(tmp_path / "tree", tmp_path / "root", settings=GPU_FLOW, lists=lists[1], jobs=1)
    assert [result.video_id for result in again.done] == ["v_New_g01_c01"]
    assert sorted(result.video_id for result in again.skipped) == [result.video_id for result in first.done]
    assert pack(tmp_path / "root", lists=tmp_path / "lists").num_videos == 4


def test_another_video_of_the_same_name_is_not_one_that_was_imported(tmp_path: Path) -> None:
    write_gpu_flow(tmp_path / "tree", "run/1", 3)
    write_gpu_flow(tmp_path / "other", "1", 3)
    for number, name in ((2, "frame000001.jpg"), (1, "frame000002.jpg")):
        (tmp_path / "other" / "rgb" / "1" / name).write_bytes(image(number, grey=False))
    import_tree(tmp_path / "tree", tmp_path / "root", settings=GPU_FLOW, jobs=1)
    assert [r.video_id for r in import_tree(tmp_path / "other", tmp_path / "root", settings=GPU_FLOW, jobs=1).done] == ["1"]


def test_folders_of_subsets_in_a_tree_are_no_part_of_the_class(tmp_path: Path) -> None:
    for video in ("train/run/a", "train/jump/b", "test/run/c"):
        write_gpu_flow(tmp_path / "tree", video, 12)
    import_tree(tmp_path / "tree", tmp_path / "root", settings=GPU_FLOW, jobs=1)
    split = pack(tmp_path / "root").split
    assert split.classes == ("jump", "run")
    assert [record.video_id for record in split.test] == ["test/run/c"]


def test_hidden_folders_of_a_tree_are_not_imported(tmp_path: Path) -> None:
    for video in ("run/a", ".Trash-1000/files/b", "run/.ipynb_checkpoints/c"):
        write_gpu_flow(tmp_path / "tree", video, 3)
    assert [r.video_id for r in import_tree(tmp_path / "tree", tmp_path / "root", settings=GPU_FLOW, jobs=1).done] == ["run/a"]


def test_two_folders_that_would_be_one_video_are_an_error_that_names_both(tmp_path: Path) -> None:
    write_ucf101_lists(tmp_path / "lists")
    write_gpu_flow(tmp_path / "tree", "v_ApplyEyeMakeup_g08_c01", 3)
    write_gpu_flow(tmp_path / "tree", "V_applyeyemakeup_g08_c01", 3)
    with pytest.raises(ManifestError, match="'V_applyeyemakeup_g08_c01' and 'v_ApplyEyeMakeup_g08_c01'"):
        import_tree(tmp_path / "tree", tmp_path / "root", settings=GPU_FLOW, lists=tmp_path / "lists", jobs=1)


def test_folders_and_images_behind_links_are_imported_once_and_loops_are_not_followed(tmp_path: Path) -> None:
    write_dense(tmp_path / "disk", "c/far", range(3), range(2))
    write_dense(tmp_path / "tree", "c/near", range(3), range(2))
    (tmp_path / "tree" / "c" / "far").symlink_to(tmp_path / "disk" / "c" / "far")
    (tmp_path / "tree" / "c" / "up").symlink_to(tmp_path / "tree")
    image = tmp_path / "tree" / "c" / "near" / "img_00001.jpg"
    image.rename(tmp_path / "image.jpg")
    image.symlink_to(tmp_path / "image.jpg")
    report = import_tree(tmp_path / "tree", tmp_path / "root", settings=ImportSettings("denseflow", 20.0), jobs=1)
    assert [result.video_id for result in report.done] == ["c/far", "c/near"]
    assert report.failed == ()


def test_a_folder_that_cannot_be_read_is_a_video_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dense(tmp_path / "tree", "c/good", range(3), range(2))
    write_dense(tmp_path / "tree", "c/locked", range(3), range(2))
    scandir = os.scandir

    def refused(folder: str) -> Any:
        if str(folder).endswith("locked"):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refused)
    report = import_tree(tmp_path / "tree", tmp_path / "root", settings=ImportSettings("denseflow", 20.0), jobs=1)
    assert [result.video_id for result in report.done] == ["c/good"]
    assert [(result.video_id, "Permission denied" in result.error) for result in report.failed] == [("c/locked", True)]


def test_a_folder_whose_name_is_not_utf8_fails_by_name(tmp_path: Path) -> None:
    write_gpu_flow(tmp_path / "tree", "a", 3)
    for kind in ("u", "v", "rgb"):
        os.rename(tmp_path / "tree" / kind / "a", os.fsencode(tmp_path / "tree" / kind) + b"/bad\xff")
    write_gpu_flow(tmp_path / "tree", "good", 3)
    code, _, err = run(tmp_path / "tree", "--data", tmp_path / "root", "--tool", "gpu_flow", "--bound", 20, "--jobs", 1)
    assert code == 3
    assert "not UTF-8" in err
    assert (tmp_path / "root" / "clips" / "good.h5").is_file()


def test_one_root_never_mixes_tools_bounds_or_extraction(tmp_path: Path) -> None:
    write_gpu_flow(tmp_path / "tree", "a", 3)
    import_tree(tmp_path / "tree", tmp_path / "root", settings=GPU_FLOW, jobs=1)
    write_gpu_flow(tmp_path / "tree", "b", 3)
    with pytest.raises(ParameterError, match="bound"):
        import_tree(tmp_path / "tree", tmp_path / "root", settings=ImportSettings("gpu_flow", 15.0), jobs=1)
    open_root(tmp_path / "own", tmp_path, ExtractSettings())
    with pytest.raises(ParameterError, match="solver: strict, not gpu_flow"):
        import_tree(tmp_path / "tree", tmp_path / "own", settings=GPU_FLOW, jobs=1)
    (tmp_path / "videos").mkdir()
    with redirect_stderr(io.StringIO()) as err, pytest.raises(SystemExit) as ended:
        main(["extract", str(tmp_path / "videos"), "--data", str(tmp_path / "root")])
    assert ended.value.code == 2
    assert "imported from gpu_flow" in err.getvalue()


def test_several_processes_write_the_same_bytes(tmp_path: Path) -> None:
    for video in ("a/x", "a/y", "b/z"):
        write_gpu_flow(tmp_path / "tree", video, 4)
    for jobs in (1, 2):
        assert len(import_tree(tmp_path / "tree", tmp_path / f"root{jobs}", settings=GPU_FLOW, jobs=jobs).done) == 3
    assert clip_bytes(tmp_path / "root1") == clip_bytes(tmp_path / "root2")


def clip_bytes(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in (root / "clips").rglob("*.h5")}


IDS = ["run/a", "run/b c", "run/b", "walk/d\n\x1b[31m", "flat", "%41/é🎬", "x/" + "\t" * 90]


@pytest.mark.parametrize("layout", ["rawframes", "gpu_flow", "denseflow"])
@pytest.mark.parametrize("codec", ["zstd", "gzip", "none"])
def test_export_and_import_with_png_give_back_every_byte(tmp_path: Path, layout: str, codec: str) -> None:
    root = make_smooth_root(tmp_path / "root", IDS, codec=codec, deviation_px=8)
    export(root, tmp_path / "tree", layout=layout, flow="png")
    report = import_tree(tmp_path / "tree", tmp_path / "back", settings=ImportSettings(), jobs=1)
    assert report.failed == ()
    assert clip_bytes(tmp_path / "back") == clip_bytes(root)
    assert Dataset.open(tmp_path / "back").settings == Dataset.open(root).settings


@pytest.mark.parametrize("mapping", ["symmetric", "paper"])
def test_export_and_import_of_flow_stored_as_jpeg_give_back_every_byte(tmp_path: Path, mapping: str) -> None:
    root = make_smooth_root(tmp_path / "root", IDS[:3], codec="jpeg", mapping=mapping, deviation_px=8)
    export(root, tmp_path / "tree", layout="rawframes")
    import_tree(tmp_path / "tree", tmp_path / "back", settings=ImportSettings(), jobs=1)
    assert clip_bytes(tmp_path / "back") == clip_bytes(root)


def test_export_and_import_through_jpeg_stay_within_the_stated_error(tmp_path: Path) -> None:
    root = make_smooth_root(tmp_path / "root", ["run/a"], deviation_px=8)
    report = export(root, tmp_path / "tree", layout="rawframes", mapping="paper")
    import_tree(tmp_path / "tree", tmp_path / "back", settings=ImportSettings(), jobs=1)
    own, back = clip_of(root, "run/a"), clip_of(tmp_path / "back", "run/a")
    assert (back.codec, back.quantiser.mapping) == ("jpeg", "paper")
    error = np.abs(Quantiser(20, "paper").decode(back.flow(2, 3)) - Quantiser(20).decode(own.flow(2, 3)))
    assert error.max() <= report.max_error_px + 1e-6
    assert back.encoded_frames(0, 5) == own.encoded_frames(0, 5)


@pytest.mark.parametrize("times", [[0.0] * 4, [0.0, 1, 2, 3, "4"], [0.0, 1, 2, 3, float("nan")], 5])
def test_time_stamps_of_an_export_that_make_no_sense_are_refused(tmp_path: Path, times: object) -> None:
    root = make_smooth_root(tmp_path / "root", ["run/a", "run/b"])
    export(root, tmp_path / "tree", layout="rawframes", flow="png")
    path = tmp_path / "tree" / "flowkit-export.json"
    record = json.loads(path.read_text())
    (folder,) = record["times"]
    assert len(record["times"][folder]) == 5
    record["times"][folder] = times
    path.write_text(json.dumps(record))
    with pytest.raises(ManifestError, match="not as flowkit writes it"):
        import_tree(tmp_path / "tree", tmp_path / "back", settings=ImportSettings(), jobs=1)


def test_an_unfinished_export_and_contradicting_options_are_refused(tmp_path: Path) -> None:
    root = make_smooth_root(tmp_path / "root", ["run/a"], deviation_px=8)
    export(root, tmp_path / "tree", layout="gpu_flow")
    for settings, words in ((ImportSettings("denseflow"), "leave out --tool"), (ImportSettings(bound_px=15.0), "exported with bound 20")):
        with pytest.raises(ParameterError, match=words):
            import_tree(tmp_path / "tree", tmp_path / "back", settings=settings, jobs=1)
    path = tmp_path / "tree" / "flowkit-export.json"
    path.write_text(path.read_text().replace('"complete": true', '"complete": false'))
    with pytest.raises(ParameterError, match="unfinished export"):
        import_tree(tmp_path / "tree", tmp_path / "back", settings=ImportSettings(), jobs=1)


def test_what_an_export_lost_since_is_named(tmp_path: Path) -> None:
    root = make_smooth_root(tmp_path / "root", ["run/a", "run/b", "run/c"], deviation_px=8)
    export(root, tmp_path / "tree", layout="rawframes")
    shutil.rmtree(tmp_path / "tree" / "rawframes" / "run" / "a")
    (tmp_path / "tree" / "rawframes" / "run" / "b" / "img_00003.jpg").unlink()
    write_dense(tmp_path / "tree" / "rawframes", "run/stranger", range(3), range(2))
    report = import_tree(tmp_path / "tree", tmp_path / "back", settings=ImportSettings(), jobs=1)
    for video, words in (("run/a", "missing"), ("run/b", "lack number 3"), ("run/stranger", "record")):
        assert words in why(report)[video]
    assert set(why(report)) == {"run/a", "run/b", "run/stranger"}
    assert [result.video_id for result in report.done] == ["run/c"]


@pytest.mark.parametrize(
    "changed",
    [
        ('"video_id": "run/a"', '"video_id": "../../escaped"'),
        ('"num_frames": 5', '"num_frames": "5"'),
        ('"layout": "rawframes"', '"layout": ["rawframes"]'),
        ('"failed": {}', '"failed": []'),
        ('"videos": {', '"videos": [] , "other": {'),
        ('"run/a": {', '"run/a": "text", "run/b": {'),
        ('"format": "flowkit-export"', '"format": "other"'),
        ("{", "[" * 100_000),
    ],
)
def test_a_hostile_record_is_refused_and_nothing_is_written(tmp_path: Path, changed: tuple[str, str]) -> None:
    root = make_smooth_root(tmp_path / "root", ["run/a"], deviation_px=8)
    export(root, tmp_path / "tree", layout="rawframes")
    path = tmp_path / "tree" / "flowkit-export.json"
    text = path.read_text()
    assert changed[0] in text
    path.write_text(text.replace(*changed))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ManifestError, match=r"flowkit-export\.json"):
        import_tree(tmp_path / "tree", tmp_path / "back", settings=ImportSettings(), jobs=1)
    assert sorted(tmp_path.rglob("*")) == before


def test_png_flow_of_another_tool_is_kept_without_loss(tmp_path: Path) -> None:
    write_dense(tmp_path / "tree", "run/a", range(3), range(2), suffix=".png")
    import_tree(tmp_path / "tree", tmp_path / "root", settings=DENSEFLOW, jobs=1)
    clip = clip_of(tmp_path / "root", "run/a")
    assert clip.codec == "zstd"
    plane = cv2.imread(str(tmp_path / "tree" / "run" / "a" / "flow_y_00001.png"), cv2.IMREAD_GRAYSCALE)
    assert (clip.flow(1, 2)[0, 1] == plane).all()


def test_an_import_writes_no_clip_behind_a_linked_class_folder(tmp_path: Path) -> None:
    write_gpu_flow(tmp_path / "tree", "run/a", 3)
    write_gpu_flow(tmp_path / "tree", "walk/b", 3)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "disk").mkdir()
    root = tmp_path / "root"
    root.mkdir()
    (root / "clips").symlink_to(tmp_path / "disk")  # a data root may keep its clips on another disk
    (tmp_path / "disk" / "run").symlink_to(tmp_path / "elsewhere")
    report = import_tree(tmp_path / "tree", root, settings=GPU_FLOW, jobs=1)
    assert [result.video_id for result in report.done] == ["walk/b"]
    assert "is a link, and nothing is written behind it" in why(report)["run/a"]
    assert not list((tmp_path / "elsewhere").iterdir())


def test_an_import_keeps_no_index_behind_a_link(tmp_path: Path) -> None:
    write_gpu_flow(tmp_path / "tree", "run/a", 3)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root" / "clips").mkdir(parents=True)
    (tmp_path / "root" / "clips" / ".index").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ManifestError, match="is a link"):
        import_tree(tmp_path / "tree", tmp_path / "root", settings=GPU_FLOW, jobs=1)
    assert not list((tmp_path / "elsewhere").iterdir())


def replace_frame(tree: Path) -> None:
    (tree / "rgb" / "run" / "a" / "new").write_bytes(image(99, grey=False))
    (tree / "rgb" / "run" / "a" / "new").replace(tree / "rgb" / "run" / "a" / "frame000003.jpg")


def overwrite_flow(tree: Path) -> None:
    """With the same modification time, as ``cp -p`` leaves it."""
    path = tree / "u" / "run" / "a" / "frame000001.jpg"
    status = path.stat()
    path.write_bytes(image(98, grey=True))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def add_images(tree: Path) -> None:
    """As if the tool that writes the tree were still running."""
    write_gpu_flow(tree, "run/a", 6)


@pytest.mark.parametrize("change", [replace_frame, overwrite_flow, add_images])
def test_a_video_whose_images_change_while_they_are_imported_fails_and_the_next_run_imports_it(
    tmp_path: Path, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, root, calls = tmp_path / "tree", tmp_path / "data", []
    write_gpu_flow(tree, "run/a", 5)
    read = import_video.read_image

    def disturbed(path: Path) -> Any:
        calls.append(path)
        if len(calls) == 9:
            change(tree)
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(import_video, "read_image", disturbed)
        patch.setattr(import_trees, "run_tasks", run_here)
        report = import_tree(tree, root, settings=GPU_FLOW, jobs=1, progress=False)
        (result,) = report.failed
    assert "its images were replaced, added or removed while they were imported" in result.error
    assert not list(root.rglob("*.h5"))
    assert [result.video_id for result in import_tree(tree, root, settings=GPU_FLOW, jobs=1, progress=False).done] == ["run/a"]


def test_a_truncated_shard_is_found_before_anything_is_imported_twice(tmp_path: Path) -> None:
    tree, root = tmp_path / "tree", tmp_path / "root"
    for name in ("run/v_a", "run/v_b", "jump/v_c", "jump/v_d"):
        write_gpu_flow(tree, name, 12)
    assert run(tree, "--tool", "gpu_flow", "--bound", "20", "--data", root, "--jobs", 1).code == 0
    pack(root, move=True)
    (shard,) = (root / "shards").glob("shard-*.h5")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    ended = run(tree, "--tool", "gpu_flow", "--bound", "20", "--data", root, "--jobs", 1)
    assert ended.code == 1
    assert "shard-00000.h5 is truncated" in ended.err
    assert not list((root / "clips").rglob("v_*.h5"))
    (text,) = re.findall("`(.*)`", ended.err)
    for command in text.split(" && "):
        name, *arguments = shlex.split(command)
        if name == "rm":
            Path(*arguments).unlink()
        else:
            assert run_flowkit(*arguments).code == 0
    assert shard.read_bytes() == whole
