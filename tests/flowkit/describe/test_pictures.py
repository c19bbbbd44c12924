"""Pictures of a clip: what they show, files safe for any id, and help for a mistyped one."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from command_lines import run_flowkit
from PIL import Image, ImageDraw, ImageSequence

from flowkit.describe import pictures
from flowkit.describe.flow_colour import flow_to_colour
from flowkit.describe.pictures import contact_sheet, inspect_clip, picture_name
from flowkit.quantise import Quantiser
from flowkit.shards.reader import ShardReader
from flowkit.shards.schema import ClipAttributes
from flowkit.shards.writer import ClipWriter

run = partial(run_flowkit, "inspect")


def clip_of(
    folder: Path, flow: np.ndarray, *, video_id: str = "run/a", colour: tuple[int, int, int] = (30, 90, 200), **changes: Any
) -> Any:
    """A clip whose frames have one colour, with the given flow (n, 2, H, W), px/frame."""
    quantiser = Quantiser(20.0, changes.pop("mapping", "symmetric"))
    q = quantiser.encode(flow)
    path = folder / "clip.h5"
    with ClipWriter(path, height=q.shape[2], width=q.shape[3]) as writer:
        writer.append_frames(np.broadcast_to(np.array(colour, np.uint8), (len(q) + 1, *q.shape[2:], 3)))
        writer.append_flow(q)
        values: dict[str, Any] = {
            "video_id": video_id,
            "class_name": "run",
            "source_name": "a.avi",
            "source_sha256": "",
            "frame_rate": "25/1",
            "num_frames": len(q) + 1,
            "header_frames": 0,
            "decode_errors": 0,
            "codec": "zstd",
            "quantiser": quantiser.to_dict(),
            "tvl1": {},
            "solver": "strict",
        }
        writer.finish(ClipAttributes(**(values | changes)))
    return ShardReader(path).clip(video_id)


def moving(u: float, v: float, *, num_fields: int = 12, height: int = 40, width: int = 56) -> np.ndarray:
    return np.broadcast_to(np.array([u, v], np.float32)[:, None, None], (num_fields, 2, height, width))


def has_patch(sheet: np.ndarray, colour: tuple[int, int, int], num_pixels: int) -> bool:
    """Whether at least so many pixels have a colour, up to JPEG's error."""
    return int((np.abs(sheet.astype(int) - colour).max(axis=2) <= 4).sum()) >= num_pixels


def test_the_sheet_shows_ten_frames_and_the_flow_in_its_colour(tmp_path: Path) -> None:
    sheet = contact_sheet(clip_of(tmp_path, moving(5, 0)), scale_px=5.06)
    assert has_patch(sheet, (30, 90, 200), 10 * 40 * 56)
    assert has_patch(sheet, (255, 0, 0), 10 * 40 * 56), "to the right at full scale is red"


@pytest.mark.parametrize("mapping", ["symmetric", "paper"])
def test_no_motion_is_white_on_the_sheet(tmp_path: Path, mapping: str) -> None:
    clip = clip_of(tmp_path, moving(0, 0), colour=(0, 0, 0), mapping=mapping)
    sheet = contact_sheet(clip, scale_px=1)
    rows, columns = np.nonzero((sheet[140:] < 30).all(axis=2))  # below the header
    first = sheet[140 + rows.min() + 40 + 22 :, columns.min() : columns.min() + 56][:40]
    assert (first == 255).all()


def test_files_are_a_sheet_a_histogram_and_a_video_of_every_field(tmp_path: Path) -> None:
    drawn = inspect_clip(clip_of(tmp_path, moving(-3, 1, height=41)), tmp_path / "out")
    assert cv2.imread(str(drawn.sheet)).shape[1] > 5 * 56
    assert cv2.imread(str(drawn.histogram)).std() > 0
    assert drawn.scale_px == 5
    assert drawn.animation is not None
    with av.open(str(drawn.animation)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 25
    assert len(frames) == 12
    assert frames[0].shape == (42, 112, 3)
    assert np.abs(frames[0][5:35, 5:50].mean(axis=(0, 1)) - (30, 90, 200)).max() < 12
    assert frames[0][5:35, 60:105, 2].mean() > 200 > frames[0][5:35, 60:105, 0].mean(), "to the left is cyan"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        p.name for p in (drawn.sheet, drawn.histogram, drawn.animation)
    )


def test_a_gif_has_every_field_and_repeats(tmp_path: Path) -> None:
    drawn = inspect_clip(clip_of(tmp_path, np.cumsum(moving(0.7, 0.2, num_fields=7), axis=0)), tmp_path / "out", animation="gif")
    with Image.open(drawn.animation) as gif:  # type: ignore[arg-type]
        assert gif.n_frames == 7
        assert (gif.size, gif.info["duration"], gif.info["loop"]) == ((112, 40), 40, 0)


def frames_of(path: Path) -> list[np.ndarray]:
    """The pictures of an animation, RGB."""
    if path.suffix == ".mp4":
        with av.open(str(path)) as container:
            return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with Image.open(path) as gif:
        return [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(gif)]


@pytest.mark.parametrize("animation", ["mp4", "gif"])
@pytest.mark.parametrize(("num_fields", "step"), [(6, 1), (7, 2), (18, 3), (20, 4)])
def test_an_animation_of_a_long_clip_is_whole_at_its_speed_and_its_name_says_what_it_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, animation: Any, num_fields: int, step: int
) -> None:
    monkeypatch.setitem(pictures.MOST_PICTURES, animation, 6)
    speeds = np.linspace(0, 10, num_fields)
    flow = np.stack([moving(speed, 0, num_fields=1)[0] for speed in speeds])
    drawn = inspect_clip(clip_of(tmp_path, flow, frame_rate="10/1"), tmp_path / "out", animation=animation)
    assert (drawn.num_fields, drawn.num_animated) == (num_fields, -(-num_fields // step))
    assert drawn.animation is not None
    assert drawn.animation.stem.endswith("-flow" if step == 1 else f"-flow-every{step}")
    frames = frames_of(drawn.animation)
    assert len(frames) == drawn.num_animated <= 6
    for frame, index in zip(frames, range(0, num_fields, step), strict=True):
        expected = flow_to_colour(flow[index], scale_px=drawn.scale_px)[20, 28]
        assert np.abs(frame[20, 56 + 28].astype(int) - expected).max() < 60, "each picture is of the field that it should show"
    if animation == "mp4":
        with av.open(str(drawn.animation)) as container:
            assert container.streams.video[0].average_rate == Fraction(10, step)
    else:
        with Image.open(drawn.animation) as gif:
            assert gif.info["duration"] == 100 * step


@pytest.mark.parametrize("animation", ["mp4", "gif"])
def test_an_animation_has_the_wheel_and_its_scale_in_a_corner_where_there_is_room(tmp_path: Path, animation: Any) -> None:
    drawn = inspect_clip(clip_of(tmp_path, moving(0, 0, num_fields=2, height=256, width=340)), tmp_path / "out", animation=animation)
    if animation == "mp4":
        with av.open(str(drawn.animation)) as container:
            first = next(container.decode(video=0)).to_ndarray(format="rgb24")
    else:
        with Image.open(drawn.animation) as gif:  # type: ignore[arg-type]
            first = np.array(gif.convert("RGB"))
    height, width = first.shape[:2]
    corner = first[-(height // 6) :, -(width // 12) :].astype(int)
    outside = first.copy()
    outside[-(height // 5) :, -(width // 4) :] = 255
    colourful = np.ptp(corner, axis=2) > 100
    assert colourful.mean() > 0.2
    for axis in range(3):
        assert (corner.argmax(axis=2)[colourful] == axis).mean() > 0.15, "all hues are in the wheel"
    assert (outside[:, width // 2 + 4 :] > 230).all(), "elsewhere, still flow is white"


@pytest.mark.parametrize("rate", ["0/1", "100000/1", "30000/1001"])
@pytest.mark.parametrize("size", [(1, 1), (3, 300)], ids=["one pixel", "a strip"])
def test_the_smallest_clips_and_strange_rates_are_drawn(tmp_path: Path, rate: str, size: tuple[int, int]) -> None:
    clip = clip_of(tmp_path, moving(1, 1, num_fields=1, height=size[0], width=size[1]), frame_rate=rate)
    drawn = inspect_clip(clip, tmp_path / "out")
    assert drawn.animation is not None
    assert drawn.animation.stat().st_size > 0


HOSTILE = [
    "a b/c d",
    "x/<script>",
    "x/-rf",
    "x/.hidden",
    "x/[b]$\\alpha$".replace("\\", ""),
    "x/\u202eevil\n\x1b[31m",
    "日本/動画 🎬",
    "x/" + "é" * 100,
    "x/%s{}*?",
]


@pytest.mark.parametrize("video_id", HOSTILE)
def test_file_names_are_safe_for_any_id(tmp_path: Path, video_id: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,90}", picture_name(video_id))


def test_a_hostile_id_is_drawn_into_the_folder_and_nowhere_else(tmp_path: Path) -> None:
    clip = clip_of(tmp_path, moving(0, 2, num_fields=2), video_id="x/$\\frac$ <b> \x1b[31m\n🎬".replace("\\", ""), class_name="$x^$")
    drawn = inspect_clip(clip, tmp_path / "out", animation=None)
    assert {path.parent for path in (drawn.sheet, drawn.histogram)} == {tmp_path / "out"}
    assert drawn.animation is None


def test_names_differ_when_ids_do() -> None:
    ids = ["a/x y", "a/x_y", "b/x_y", "a/X_y", "a/x-y"]
    assert len({picture_name(video_id).casefold() for video_id in ids}) == len(ids)


def test_the_command_prints_the_paths_it_wrote(packed_root: Path, tmp_path: Path) -> None:
    code, out, _ = run("colour0-motion0/v00", "--data", packed_root, "--output", tmp_path / "pictures", "--animation", "gif")
    assert code == 0
    assert all(Path(line).is_file() for line in out.splitlines())
    assert len(out.splitlines()) == 3
    code, out, _ = run("colour0-motion0/v00", "--data", packed_root, "--output", tmp_path / "pictures", "--animation", "none", "--json")
    printed = json.loads(out)
    assert Path(printed["sheet"]).is_file()
    assert printed["animation"] is None


def test_the_command_says_what_is_a_sample(packed_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pictures.MOST_PICTURES, "gif", 4)
    monkeypatch.setattr(pictures, "_MEASURED_FIELDS", 3)
    line = ["colour0-motion0/v00", "--data", packed_root, "--output", tmp_path / "pictures", "--animation", "gif"]
    code, out, err = run(*line)
    assert code == 0
    assert len(out.splitlines()) == 3
    assert re.search(r"sample of 3 of \d+ flow fields", err)
    assert re.search(r"whole video at its speed with [34] of \d+ flow fields", err)
    assert re.search(r"-every\d+\.gif$", out.strip())
    printed = json.loads(run(*line, "--json").out)
    assert printed["num_measured"] == 3 < printed["num_animated"] + 1 <= 5 < printed["num_fields"]


@pytest.fixture
def drawn_figure(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The matplotlib figures that are saved."""
    from matplotlib.figure import Figure

    figures: list[Any] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *given, **named: (figures.append(figure), save(figure, *given, **named)))
    return figures


@pytest.mark.parametrize(("num_fields", "said"), [(12, ": 12 flow fields"), (250, "sample of 200 of 250 flow fields")])
def test_a_histogram_says_how_much_it_measured_in_numbers_people_read(
    tmp_path: Path, drawn_figure: list[Any], num_fields: int, said: str
) -> None:
    flow = moving(3, 1, num_fields=num_fields).copy()
    flow[0, 0, 0, 0] = 20.0
    inspect_clip(clip_of(tmp_path, flow), tmp_path / "out", animation=None)
    (figure,) = drawn_figure
    assert said in figure.get_suptitle()
    left, right = figure.axes
    assert "at the bound of 20 px/frame" in right.get_title()
    texts = [axes.get_title() for axes in figure.axes] + [label.get_text() for axes in figure.axes for label in axes.get_yticklabels()]
    assert any(re.fullmatch(r"0\.0*1", text) for text in texts), "ticks are plain numbers"
    assert not any(re.search(r"\de[-+]?\d|10\^", text) for text in texts)
    lines = [line for line in right.get_lines() if not line.get_label().startswith("_")]
    assert len({line.get_color() for line in lines}) == len({str(line.get_linestyle()) for line in lines}) == 2
    assert "px/frame" in left.get_ylabel()


def test_the_legend_says_what_darker_means_where_something_is_darker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    draw = ImageDraw.ImageDraw.multiline_text
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "multiline_text", lambda own, xy, text, **named: (written.append(text), draw(own, xy, text, **named))
    )
    clip = clip_of(tmp_path, moving(5, 0))
    contact_sheet(clip, scale_px=10)
    contact_sheet(clip, scale_px=2)
    assert [("darker" in text, "px/frame" in text) for text in written] == [(False, True), (True, True)]


def test_a_mistyped_id_suggests_the_right_one_and_writes_nothing(packed_root: Path, tmp_path: Path) -> None:
    code, _, err = run("v00", "--data", packed_root, "--output", tmp_path / "pictures")
    assert code == 1
    assert "did you mean 'colour0-motion0/v00'" in err
    assert not (tmp_path / "pictures").exists()


def test_a_folder_that_cannot_be_written_is_found_before_anything_is_drawn(
    packed_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowkit.describe.pictures.inspect_clip", lambda *_, **__: pytest.fail("something was drawn"))
    (tmp_path / "file").touch()
    ended = run("colour0-motion0/v00", "--data", packed_root, "--output", tmp_path / "file" / "out")
    assert ended.code == 1
    assert "cannot be written (Not a directory): give another folder with --output DIR" in ended.err
