"""Lines about cuts, repeated frames and still videos, which `flowkit extract` and `flowkit stats` share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from flowkit.cli.shared.console import counted, show_name
from flowkit.words import percentage

_MOST_NAMED = 5  # videos


class WithScenes(Protocol):
    """A video, or the result of extracting one, with its cuts and the number of its repeated frames."""

    @property
    def cuts(self) -> tuple[int, ...]:
        """Flow fields that lead across a cut."""

    @property
    def num_repeated(self) -> int:
        """The number of frames that repeat the frame before them."""


def scenes_line(videos: Sequence[WithScenes], *, listed: str) -> str:
    """Return a line that counts the cuts and the repeated frames of these videos; `listed` says where they are listed."""
    parts = []
    for what, counts in (
        ("flow field", [len(video.cuts) for video in videos]),
        ("repeated frame", [video.num_repeated for video in videos]),
    ):
        across = " across a cut" if what == "flow field" else ""
        parts.append(f"{counted(sum(counts), what)}{across} in {counted(sum(map(bool, counts)), 'video')}")
    return f"scenes: {', '.join(parts)} ({listed} lists them)"


def still_line(video_ids: Sequence[str]) -> str:
    """Return a line about videos in which next to nothing moves."""
    from flowkit.extraction.flow_range import MOST_ZERO

    names = ", ".join(map(show_name, video_ids[:_MOST_NAMED])) + (", ..." if len(video_ids) > _MOST_NAMED else "")
    more = f"more than {percentage(MOST_ZERO)} of the flow is zero"
    return f"{counted(len(video_ids), 'video')} with next to no motion ({more}): {names}"
