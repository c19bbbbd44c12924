"""A header's numbers are used as far as they make sense."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from odd_videos import encode_video, needs

from flowkit.video.decode import probe
from flowkit.video.promises import frame_rate

if TYPE_CHECKING:
    from pathlib import Path

NTSC = Fraction(30000, 1001)


def in_milliseconds(rate: Fraction) -> list[int]:
    return [round(1000 * k / rate) for k in range(60)]


@pytest.mark.parametrize(
    ("average", "guessed", "time_base", "times", "expected"),
    [
        (25, 25, Fraction(1, 25), range(60), 25),
        (NTSC, NTSC, Fraction(1, 1000), in_milliseconds(NTSC), NTSC),
        (90000, 90000, Fraction(1, 90000), range(846982, 1000000, 3600), 25),
        (None, 90000, Fraction(1, 90000), range(0, 100000, 3003), NTSC),
        (60000, 25, Fraction(1, 60000), range(0, 100000, 2400), 25),
        (600, 600, Fraction(1, 600), range(0, 1440, 24), 25),
        (1000, 1000, Fraction(1, 1000), in_milliseconds(Fraction(24)), 24),
        (1000, None, Fraction(1, 1000), range(0, 7000, 140), Fraction(50, 7)),
        (Fraction(25, 3), 25, Fraction(1, 25), range(60), Fraction(25, 3)),  # long pauses later on
        (60, 60, Fraction(1, 60), range(0, 180, 3), 60),  # every third picture of a rate that the header names
        (None, 25, Fraction(1, 1200000), [], 25),
        (None, 90000, Fraction(1, 90000), [], 0),
        (None, None, Fraction(1, 90000), [], 0),
        (None, None, None, range(9), 0),
    ],
)
def test_a_frame_rate_is_believed_if_the_time_stamps_allow_it(
    average: Fraction | None, guessed: Fraction | None, time_base: Fraction | None, times: list[int], expected: Fraction
) -> None:
    rates = {"average_rate": average, "guessed_rate": guessed, "base_rate": guessed}
    stream = SimpleNamespace(time_base=time_base, **{name: rate and Fraction(rate) for name, rate in rates.items()})
    order = np.random.default_rng(1).permutation(len(times))
    assert frame_rate(stream, [times[k] for k in order]) == expected


@needs("mp2")
def test_a_video_that_begins_long_after_the_sound_has_its_own_rate(tmp_path: Path) -> None:
    path = tmp_path / "late.ts"
    with av.open(str(path), "w") as out:
        video = out.add_stream("mpeg2video", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = out.add_stream("mp2", rate=48000, layout="mono")
        noise = np.random.default_rng(0)
        for start in range(0, 10 * 48000, 1152):
            samples = av.AudioFrame.from_ndarray(noise.integers(-3000, 3000, (1, 1152), dtype=np.int16), format="s16", layout="mono")
            samples.rate, samples.pts, samples.time_base = 48000, start, Fraction(1, 48000)
            out.mux(sound.encode(samples))
        for k in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 9 * k, np.uint8), format="rgb24")
            frame.pts, frame.time_base = 225 + k, Fraction(1, 25)
            out.mux(video.encode(frame))
        out.mux(video.encode())
        out.mux(sound.encode())
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate != 25
    assert probe(path).frame_rate == 25


@needs("dvvideo")
def test_a_dv_file_has_the_rate_of_its_frames(tmp_path: Path) -> None:
    assert probe(encode_video(tmp_path / "a.dv", "dvvideo", size=(720, 576), num_frames=6)).frame_rate == 25


def test_an_avi_that_counts_a_clocks_ticks_as_frames_has_the_rate_of_its_frames(tmp_path: Path) -> None:
    path = encode_video(tmp_path / "a.avi", "mpeg4", num_frames=20, rate=600, pts=[24 * k for k in range(20)])
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 600
    info = probe(path)
    assert (info.frame_rate, info.header_frames) == (25, 20)
