"""The default one of several video streams is used, else the largest, and never a cover or preview picture."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from av.stream import Disposition

from flowkit.video.decode import probe, read_frames
from flowkit.video.streams import moving_pictures, opened

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT = Disposition.default.value
SMALL, LARGE = (32, 32), (96, 64)


def write_streams(
    path: Path, sizes: list[tuple[int, int]], marks: list[int] | None = None, *, codec: str = "mpeg4", count: int = 5
) -> Path:
    """Write a file with several video streams of the given sizes, each marked as a container can mark it."""
    with av.open(str(path), "w") as out:
        streams = []
        for index, (width, height) in enumerate(sizes):
            stream = out.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            if marks is not None:
                stream.disposition = marks[index]
            streams.append(stream)
        for k in range(count):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(np.full((stream.height, stream.width, 3), 9 * k, np.uint8), format="rgb24")
                frame.pts, frame.time_base = k, Fraction(1, 25)
                out.mux(stream.encode(frame))
        for stream in streams:
            out.mux(stream.encode())
    return path


def used(path: Path) -> tuple[tuple[int, int], str]:
    """Return the size of the frames, after checking that both ways of reading agree, and which stream it is of how many."""
    info = probe(path)
    assert next(read_frames(path, short_side=None)).frames.shape[1:3] == (info.height, info.width)
    with opened(path, 1) as video:
        return (info.width, info.height), f"{video.number} of {video.num_streams}"


@pytest.mark.parametrize(
    ("suffix", "sizes", "marks", "expected"),
    [
        (".mkv", [SMALL, LARGE], [0, DEFAULT], (LARGE, "2 of 2")),
        (".mkv", [LARGE, SMALL], [0, DEFAULT], (SMALL, "2 of 2")),
        (".mkv", [SMALL, LARGE, SMALL], [DEFAULT, DEFAULT, 0], (LARGE, "2 of 3")),
        (".mkv", [SMALL, LARGE], [0, 0], (LARGE, "2 of 2")),
        (".mkv", [LARGE, LARGE], [0, 0], (LARGE, "1 of 2")),
        (".mp4", [SMALL, LARGE], [0, DEFAULT], (LARGE, "2 of 2")),
        (".mp4", [SMALL, LARGE], [DEFAULT, 0], (SMALL, "1 of 2")),
        (".mp4", [LARGE], [DEFAULT], (LARGE, "1 of 1")),
        (".avi", [SMALL, LARGE], None, (LARGE, "2 of 2")),
    ],
)
def test_the_default_stream_is_used_and_else_the_largest(
    tmp_path: Path, suffix: str, sizes: list[tuple[int, int]], marks: list[int] | None, expected: tuple[tuple[int, int], str]
) -> None:
    assert used(write_streams(tmp_path / f"a{suffix}", sizes, marks)) == expected


def test_the_larger_of_two_programmes_of_a_broadcast_is_used(tmp_path: Path) -> None:
    assert used(write_streams(tmp_path / "a.ts", [SMALL, LARGE], codec="mpeg2video")) == (LARGE, "2 of 2")


def test_cover_and_preview_pictures_are_not_used_beside_a_film() -> None:
    film, cover = SimpleNamespace(disposition=Disposition(0)), SimpleNamespace(disposition=Disposition.attached_pic)
    preview = SimpleNamespace(disposition=Disposition.timed_thumbnails | Disposition.default)
    assert moving_pictures([preview, cover, film]) == [film]
    assert moving_pictures([cover, preview]) == [preview]
    assert moving_pictures([cover]) == []


def test_the_given_broadcast_gives_its_larger_programme(shared_cases: Path) -> None:
    assert used(shared_cases / "video" / "dual_programs.ts") == (LARGE, "2 of 2")
