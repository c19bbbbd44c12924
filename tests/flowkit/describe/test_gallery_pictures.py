"""Stills and films of the gallery: what they show, at which speed, and how large they may be."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from flowkit.describe.gallery_pictures import LONG_SIDE_PX, MOST_BYTES, SECONDS, SHORT_SIDE_PX, draw_pictures, shown_fields
from flowkit.errors import DeviceError
from flowkit.quantise import Quantiser
from flowkit.shards.reader import Clip, ShardReader
from flowkit.shards.schema import ClipAttributes
from flowkit.shards.writer import ClipWriter

COLOUR = (30, 90, 200)


def clip_of(folder: Path, frames: np.ndarray, flow: np.ndarray, *, frame_rate: str = "25/1") -> Clip:
    """A clip of these frames (T, H, W, 3) and this flow (T-1, 2, H, W), px/frame."""
    quantiser = Quantiser()
    attributes = ClipAttributes("run/a", "run", "a.avi", "", frame_rate, len(frames), 0, 0, "zstd", quantiser.to_dict(), {}, "strict")
    with ClipWriter(folder / "clip.h5", height=frames.shape[1], width=frames.shape[2]) as writer:
        writer.append_frames(frames)
        writer.append_flow(quantiser.encode(flow))
        writer.finish(attributes)
    return ShardReader(folder / "clip.h5").clip("run/a")


def plain_clip(folder: Path, num_frames: int = 12, *, height: int = 40, width: int = 56, u: float = 4.9, **changes: Any) -> Clip:
    """A clip whose frames have one colour, and whose pixels all move to the right."""
    frames = np.broadcast_to(np.array(COLOUR, np.uint8), (num_frames, height, width, 3))
    flow = np.broadcast_to(np.array([u, 0], np.float32)[:, None, None], (num_frames - 1, 2, height, width))
    return clip_of(folder, frames, flow, **changes)


def decoded(film: bytes) -> tuple[list[np.ndarray], Fraction]:
    """Return the frames of a film and its rate."""
    with av.open(io.BytesIO(film)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "vp9"
        assert stream.average_rate is not None
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)], stream.average_rate


@pytest.mark.parametrize(
    ("num_frames", "rate", "step", "film_rate"),
    [
        (30, "25", 2, "25/2"),
        (30, "30000/1001", 2, "15000/1001"),
        (30, "15", 1, "15"),
        (30, "10", 1, "10"),
        (30, "60", 4, "15"),
        (30, "240", 16, "15"),
        (30, "0", 2, "25/2"),
        (30, "1/10", 2, "25/2"),
        (30, "100000", 2, "25/2"),
        (2, "60", 4, "15"),
    ],
)
def test_a_film_runs_at_the_speed_of_the_video_and_a_short_one_is_whole(num_frames: int, rate: str, step: int, film_rate: str) -> None:
    shown = shown_fields(num_frames, Fraction(rate))
    assert (shown.start, shown.stop, shown.step, shown.rate) == (0, num_frames - 1, step, Fraction(film_rate))
    assert num_frames - 1 - shown.indices[-1] <= step


@pytest.mark.parametrize("rate", ["25", "30000/1001", "24", "60", "7", "1"])
def test_of_a_long_video_the_middle_is_shown_and_not_longer_than_the_limit(rate: str) -> None:
    shown = shown_fields(2001, Fraction(rate))
    assert SECONDS - 1 <= shown.seconds <= SECONDS
    assert abs(shown.start - (2000 - shown.stop)) <= 1


def test_still_and_film_show_the_frame_beside_the_colour_of_its_flow(tmp_path: Path) -> None:
    pictures = draw_pictures(plain_clip(tmp_path))
    still = np.asarray(Image.open(io.BytesIO(pictures.still)).convert("RGB"))
    frames, rate = decoded(pictures.film)
    assert rate == Fraction(25, 2)
    assert len(frames) == len(pictures.shown.indices) == 6
    assert (pictures.width, pictures.height) == (112, 40)
    for picture in (still, frames[0], frames[-1]):
        assert picture.shape == (40, 112, 3)
        assert np.abs(picture[5:35, 5:50].mean(axis=(0, 1)) - COLOUR).max() < 12
        assert picture[5:35, 62:105, 0].mean() > 230 > 60 > picture[5:35, 62:105, 1:].mean(), "to the right at full scale is red"
    assert pictures.speed_px == pytest.approx(4.9, abs=0.1)
    assert pictures.scale_px == 5


def test_flow_keeps_its_speed_when_the_picture_shrinks(tmp_path: Path) -> None:
    pictures = draw_pictures(plain_clip(tmp_path, height=200, width=300, u=8.0))
    assert (pictures.width, pictures.height) == (2 * 192, 128)
    assert pictures.speed_px == pytest.approx(8, abs=0.1)


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (3, 300), (300, 3), (41, 57), (256, 340), (340, 256), (1000, 40)], ids=lambda side: str(side)
)
def test_any_size_gives_a_small_picture_that_plays(tmp_path: Path, height: int, width: int) -> None:
    pictures = draw_pictures(plain_clip(tmp_path, 2, height=height, width=width))
    frames, _ = decoded(pictures.film)
    assert frames[0].shape == (pictures.height, pictures.width, 3)
    assert min(pictures.height, pictures.width // 2) <= SHORT_SIDE_PX
    assert max(pictures.height, pictures.width // 2) <= LONG_SIDE_PX
    if min(height, width) >= 16:
        assert pictures.height / (pictures.width / 2) == pytest.approx(height / width, rel=0.1), "the proportions stay"


@pytest.mark.parametrize("num_frames", [12, 40])
def test_noise_which_no_codec_can_compress_takes_no_more_than_the_limit(tmp_path: Path, num_frames: int) -> None:
    draw = np.random.default_rng(0)
    frames = draw.integers(0, 255, (num_frames, 128, 170, 3), dtype=np.uint8)
    flow = draw.uniform(-20, 20, (num_frames - 1, 2, 128, 170)).astype(np.float32)
    pictures = draw_pictures(clip_of(tmp_path, frames, flow, frame_rate="15/1"))
    assert 10_000 < len(pictures.still) + len(pictures.film) <= MOST_BYTES
    shown, _ = decoded(pictures.film)
    assert len(shown) == len(pictures.shown.indices) >= 6, "a film that had to be cut says so"
    assert 0 <= pictures.shown.start < pictures.shown.stop <= num_frames - 1


def test_the_same_clip_gives_the_same_bytes(tmp_path: Path) -> None:
    clip = plain_clip(tmp_path)
    assert draw_pictures(clip) == draw_pictures(clip)


def test_a_pyav_without_the_codec_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("av.codecs_available", {"libx264"})
    with pytest.raises(DeviceError, match="cannot write VP9"):
        draw_pictures(plain_clip(tmp_path))
