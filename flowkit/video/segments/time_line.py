"""When the frames of a video are shown, by the time stamps of its packets: the file is read, and nothing is decoded.

Those of a folder of pictures are known by their numbers and the frame rate.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

from flowkit.errors import ManifestError, VideoDecodeError
from flowkit.video.choosing import FrameClock
from flowkit.video.damage import Account
from flowkit.video.pictures.folder import picture_folder
from flowkit.video.promises import frame_rate
from flowkit.video.segments.segment import TOLERANCE
from flowkit.video.stream_frames import packets_of
from flowkit.video.streams import opened
from flowkit.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flowkit.video.reading import Reading

PACKETS_AT_ONCE = 1024  # between two signs of life
SLACK = Fraction(1, 2)  # s by which a segment may end after its video, because lists round, and sound may go on for longer


@dataclass(frozen=True)
class TimeLine:
    """The times of the frames of a video.

    Parameters
    ----------
    times : tuple of Fraction, s
        Ascending, from 0.
    """

    times: tuple[Fraction, ...]

    @cached_property
    def end(self) -> Fraction:
        """When the last frame ends, s: a median frame interval after its time."""
        intervals = [later - earlier for earlier, later in pairwise(self.times)]
        return self.times[-1] + (median(intervals) if intervals else 0)

    def frames_between(self, start: Fraction, end: Fraction) -> tuple[int, int]:
        """Return the numbers of the first frame that is not before `start`, and of the first one that is not before `end`, in s.

        Raises
        ------
        ManifestError
            If there is no frame between them, or they lie outside the video; the message is the end of a sentence.
        """
        if start >= self.end or end > self.end + SLACK:
            raise ManifestError(f"ends after its video, which has {float(self.end):.2f} s ({counted(len(self.times), 'frame')})")
        first, stop = (bisect_left(self.times, at - TOLERANCE) for at in (start, end))
        if first == stop:
            raise ManifestError("is empty: no frame of the video lies in it")
        return first, stop


def time_line(path: Path, reading: Reading, *, alive: Callable[[], None] = lambda: None) -> TimeLine:
    """Read the time stamps of a video.

    Parameters
    ----------
    path : Path
        The file, or the folder of pictures.
    reading : Reading
        Which of its video streams is read; the frame rate of folders.
    alive : callable, optional
        Is called now and then.

    Raises
    ------
    VideoDecodeError
        If the file cannot be opened, has no packet with a frame, or if neither time stamps nor a frame rate tell the times.
    """
    if path.is_dir():
        if reading.known_rate is None:
            raise VideoDecodeError(f"{str(path)!r} is a folder of pictures, whose frame rate is not known; give it with --frame-rate")
        return TimeLine(tuple(Fraction(number) / reading.known_rate for number in range(picture_folder(path).num_promised)))
    with opened(path, threads=1, stream_number=reading.stream) as video:
        account = Account(video)
        for k, _ in enumerate(packets_of(account)):
            if k % PACKETS_AT_ONCE == 0:
                alive()
        stamps = sorted(account.times)
        clock = FrameClock(video.stream.time_base, lambda: frame_rate(video.stream, stamps))
        times = [clock.time_of(stamp) for stamp in [*stamps, *[None] * (account.num_pictures - len(stamps))]]
        known = [time for time in times if time is not None]
    if not known:
        raise VideoDecodeError(f"{str(path)!r} has no frame")
    if len(known) < len(times):
        raise VideoDecodeError(f"{str(path)!r} has neither usable time stamps nor a frame rate, so its frames have no times")
    return TimeLine(tuple(time - known[0] for time in known))
