"""Choosing frames by their time stamps or their numbers, as they come out of the decoder."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from flowkit.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flowkit.video.reading import Reading

_Frame = TypeVar("_Frame")


class NoTimesError(Exception):
    """Frames are to be chosen by time, and nothing tells their times; the message is the end of a sentence about the video."""


class Clock(Protocol):
    """Gives frames their times, one after the other."""

    num_counted: int  # of frames without a usable time stamp

    def time_of(self, stamp: Any) -> Fraction | None:
        """Return the time of the next frame; None if it is unknown."""


class FrameClock:
    """The times of frames in s, exact: time stamp x time base, or counted by the frame rate where a frame has no usable time stamp.

    A time stamp is not usable if it is unknown, or not later than the time of the frame before: the frame then comes one frame interval
    after that one. A video without any time stamp so begins at 0 and has the times k / frame rate.

    Parameters
    ----------
    time_base : Fraction or None, s
        The unit of the time stamps; None if there are none.
    rate : callable
        Returns the frame rate of the video, in frames/s, or 0 if nothing tells it; called if it is needed.
    """

    def __init__(self, time_base: Fraction | None, rate: Callable[[], Fraction]) -> None:
        self._time_base, self._find_rate = time_base, rate
        self._last: Fraction | None = None
        self._known_rate: Fraction | None = None
        self.num_counted = 0

    def time_of(self, stamp: int | None) -> Fraction | None:
        """Return the time of the next frame; None if it has no usable time stamp and the frame rate is unknown."""
        time = None if stamp is None or not self._time_base else stamp * Fraction(self._time_base)
        if time is None or (self._last is not None and time <= self._last):
            self.num_counted += 1
            if self._known_rate is None:
                self._known_rate = self._find_rate()
            if not self._known_rate:
                return None
            time = Fraction(0) if self._last is None else self._last + 1 / self._known_rate
        self._last = time
        return time


class FrameChooser(Generic[_Frame]):
    """Chooses frames one after the other, and holds back at most one.

    The grid of times t_0 + j / fps ends half a median frame interval after the last time stamp. A frame owns the times that are nearer
    to it than to any other frame, and the one that is equally near to the next frame; it is chosen if a time of the grid is among them.

    Parameters
    ----------
    reading : Reading
        Which frames are chosen.
    clock : Clock
        Gives the frames their times.
    """

    def __init__(self, reading: Reading, clock: Clock) -> None:
        self._reading, self._clock = reading, clock
        self.num_seen = self.num_chosen = 0
        self._held: tuple[_Frame, Fraction] | None = None
        self._intervals: Counter[Fraction] = Counter()
        self._start = Fraction(0)
        self._next = 0  # the first time of the grid that no frame owns so far
        self._num_unmet = 0  # times of the grid that have no frame of their own

    def add(self, frame: _Frame, stamp: Any) -> Iterator[tuple[_Frame, Fraction | None]]:
        """Take the next frame of the video with its time stamp; yield the frame that is known to be chosen now, with its time."""
        time = self._clock.time_of(stamp)
        self.num_seen += 1
        if self._reading.rate is None:
            if (self.num_seen - 1) % self._reading.every == 0:
                self.num_chosen += 1
                yield frame, time
            return
        if time is None:
            raise NoTimesError(
                "has neither usable time stamps nor a frame rate, so frames cannot be chosen for a rate; choose them by number (every)"
            )
        if self._held is None:
            self._start = time
        else:
            self._intervals[time - self._held[1]] += 1
            yield from self._owned_until((self._held[1] + time) / 2)
        self._held = (frame, time)

    def finish(self) -> Iterator[tuple[_Frame, Fraction | None]]:
        """Yield the last frame if it is chosen."""
        if self._held is not None:
            yield from self._owned_until(self._held[1] + _median(self._intervals) / 2)

    def _owned_until(self, end: Fraction) -> Iterator[tuple[_Frame, Fraction | None]]:
        assert self._held is not None
        assert self._reading.rate is not None
        after = (end - self._start) * self._reading.rate // 1 + 1  # the first time of the grid that is later
        if after > self._next:
            self._num_unmet += after - self._next - 1
            self._next = after
            self.num_chosen += 1
            yield self._held

    def notes(self) -> list[str]:
        """Return in words what is odd about the times, once all frames were seen."""
        notes = []
        if self._reading.rate is not None and self._num_unmet:
            slower = f"slower than {self._reading.in_words().removeprefix('frames at ')}"
            notes.append(f"{slower}: all frames kept" if self.num_chosen == self.num_seen else f"{slower} in places")
        if self._clock.num_counted and not self._reading.takes_all:
            notes.append(f"{counted(self._clock.num_counted, 'frame')} without a usable time stamp, counted by the frame rate")
        return notes


def _median(intervals: Counter[Fraction]) -> Fraction:
    """Return the median of intervals, each with the number of times that it occurs; 0 if there are none."""
    total, seen = sum(intervals.values()), 0
    middle: list[Fraction] = []
    for interval, number in sorted(intervals.items()):
        seen += number
        if len(middle) == 0 and 2 * seen >= total:
            middle.append(interval)
        if 2 * seen >= total + 1:
            middle.append(interval)
            break
    return (middle[0] + middle[-1]) / 2 if middle else Fraction(0)
