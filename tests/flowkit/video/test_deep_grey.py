"""Grey pictures of more than 8 bits: what is lost of them is reported, and a range is stretched exactly; and the choice of a stream."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from click.testing import CliRunner
from small_videos import SETTINGS

from flowkit import ParameterError, Reading, VideoDecodeError, compute_flow, extract, probe, read_frames
from flowkit.cli.main import flowkit as command
from flowkit.video.deep_grey import grey_levels, stretched

CASES = Path(__file__).resolve().parents[4] / "shared" / "cases" / "video"


def write_grey(path: Path, frames: np.ndarray[Any, Any], pixels: str = "gray16le") -> Path:
    """Write a lossless video of uint16 frames (T, H, W)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:], pixels
        for k, levels in enumerate(frames):
            frame = av.VideoFrame(levels.shape[1], levels.shape[0], pixels)
            plane = frame.planes[0]
            rows = np.zeros((levels.shape[0], plane.line_size // 2), "<u2")
            rows[:, : levels.shape[1]] = levels
            plane.update(rows.tobytes())
            frame.pts, frame.time_base = k, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def moving(num_frames: int, low: int, high: int, *, width: int = 75) -> np.ndarray[Any, Any]:
    """Return smooth noise that moves 2 px/frame to the left, uint16 (T, 48, width), between two levels."""
    import cv2

    noise = cv2.GaussianBlur(np.random.default_rng(0).random((48, width + 2 * num_frames)), (0, 0), 2)
    levels = low + (noise - noise.min()) / np.ptp(noise) * (high - low)
    return np.stack([levels[:, 2 * k : 2 * k + width] for k in range(num_frames)]).round().astype(np.uint16)


def read(path: Path, reading: Reading) -> tuple[np.ndarray[Any, Any], str]:
    batches = list(read_frames(path, short_side=None, reading=reading))
    assert batches[-1].report is not None
    return np.concatenate([batch.frames for batch in batches]), batches[-1].report.notes


@pytest.mark.parametrize(("pixels", "bits"), [("gray16le", 16), ("gray12le", 12), ("gray10le", 10)])
def test_a_narrow_range_is_told_with_the_option_that_stretches_it_and_stretching_is_exact(tmp_path: Path, pixels: str, bits: int) -> None:
    low = 7500 >> (16 - bits)
    levels = moving(3, low, low + (600 >> (16 - bits)))
    path = write_grey(tmp_path / "a.mkv", levels, pixels)
    plain, notes = read(path, Reading())
    number = len(np.unique(plain))
    assert number <= 4
    text = f"{levels.min()}:{levels.max()}"
    assert notes == f"{bits}-bit grey from {levels.min()} to {levels.max()} becomes {number} grey levels; --grey-range {text} stretches it"
    wide, notes = read(path, Reading(grey_range=text))
    assert notes == ""
    expected = np.round((levels - float(levels.min())) / np.ptp(levels) * 255)
    assert np.array_equal(wide, np.repeat(expected.astype(np.uint8)[..., None], 3, axis=3))
    part, notes = read(path, Reading(grey_range=(int(levels.min()) + 1, int(levels.max()) - 1)))
    assert notes == f"grey from {levels.min()} to {levels.max()} is clipped to {levels.min() + 1} to {levels.max() - 1}"
    assert (part.min(), part.max()) == (0, 255)


def test_the_grey_range_concerns_no_other_pictures(tmp_path: Path) -> None:
    frame = av.VideoFrame(16, 16, "yuv420p")
    assert grey_levels(frame) is None
    assert grey_levels(av.VideoFrame(16, 16, "gray")) is None
    assert stretched(np.array([[0, 5, 10, 20]], np.uint16), 5, 10)[0, :, 0].tolist() == [0, 0, 255, 255]


def test_the_motion_of_a_thermal_camera_is_seen_when_its_range_is_stretched() -> None:
    path = CASES / "thermal16.mkv"
    if not path.is_file():
        pytest.skip("the case is not here")
    plain, notes = read(path, Reading())
    assert notes == "16-bit grey from 7514 to 8047 becomes 3 grey levels; --grey-range 7514:8047 stretches it"
    wide, _ = read(path, Reading(grey_range="7500:8100"))
    inner = (slice(None), 0, slice(8, -8), slice(8, -8))
    assert abs(np.median(compute_flow(plain[:3])[inner])) < 0.5
    assert abs(np.median(compute_flow(wide[:3])[inner]) + 2) < 0.1


@pytest.mark.parametrize("wrong", ["", "5", "5:5", "8:5", "0:65536", "a:b", (1,), (1, 2.0), (True, 5), 3, "-1:5"])
def test_ranges_that_are_none_are_refused(wrong: object) -> None:
    with pytest.raises(ParameterError, match="grey_range must be LOW:HIGH"):
        Reading(grey_range=wrong)  # type: ignore[arg-type]


def test_all_of_a_reading_comes_back_and_differences_name_its_parts() -> None:
    reading = Reading(fps="12.5", stream=2, grey_range="7500:8100")
    assert Reading.from_dict(reading.to_dict()) == reading
    assert reading.in_words() == "frames at 12.5 frames/s, video stream 2, grey from 7500 to 8100"
    assert reading.options() == ["--fps", "12.5", "--stream", "2", "--grey-range", "7500:8100"]
    differing = SETTINGS.differences(replace(SETTINGS, reading=reading))
    assert differing == ["fps: all frames, not 12.5", "stream: default, not 2", "grey_range: upper 8 bits, not 7500:8100"]
    assert replace(SETTINGS, reading=reading) == type(SETTINGS).from_dict(replace(SETTINGS, reading=reading).to_dict())
    for wrong in ({"stream": -1}, {"stream": True}, {"stream": 1000}):
        with pytest.raises(ParameterError, match="stream must be"):
            Reading(**wrong)


def test_the_stream_that_is_asked_for_is_read_or_the_video_fails(tmp_path: Path) -> None:
    if not CASES.is_dir():
        pytest.skip("the case is not here")
    path = CASES / "dual_programs.ts"
    sizes = {number: (probe(path, stream=number).width, probe(path, stream=number).stream_number) for number in (0, 1, 2)}
    assert sizes == {0: (96, 2), 1: (32, 1), 2: (96, 2)}
    for number, width in ((1, 32), (2, 96)):
        frames, notes = read(path, Reading(stream=number))
        assert frames.shape[2] == width
        assert f"video stream {number} of 2" in notes
    with pytest.raises(VideoDecodeError, match="has 2 video streams, so there is no stream 3"):
        next(iter(read_frames(path, reading=Reading(stream=3))))
    with pytest.raises(VideoDecodeError, match="has 1 video stream, so there is no stream 2"):
        probe(CASES / "pan.mkv", stream=2)


@pytest.mark.usefixtures("kept_workers")
def test_extract_records_the_range_and_the_stream_with_each_clip(tmp_path: Path) -> None:
    write_grey(tmp_path / "videos" / "run" / "a.mkv", moving(3, 100, 400))
    write_grey(tmp_path / "videos" / "run" / "b.mkv", moving(3, 100, 500))
    line = ["extract", str(tmp_path / "videos"), "--data", str(tmp_path / "data"), "--short-side", "32", "--jobs", "1"]
    done = CliRunner().invoke(command, [*line, "--grey-range", "100:400", "--stream", "1"])
    assert done.exit_code == 0
    assert "video stream 1, grey from 100 to 400" in done.stderr
    assert "grey from 100 to 500 is clipped to 100 to 400" in done.stderr
    assert extract(tmp_path / "videos", tmp_path / "data", progress=False, jobs=1).skipped[0].status == "ok"
    with pytest.raises(ParameterError, match="grey_range: 100:400, not upper 8 bits"):
        extract(tmp_path / "videos", tmp_path / "data", settings=SETTINGS, progress=False, jobs=1)
