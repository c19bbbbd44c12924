"""How the frames of a video are read: which stream, which frames, which grey levels (standard library only: help pages stay fast)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from flowkit.errors import ParameterError

MAX_RATE = 1000  # frames/s
MAX_EVERY = 1_000_000
MAX_STREAMS = 999
_MAX_DENOMINATOR = 1_000_000


@dataclass(frozen=True)
class Reading:
    """Which frames of a video are read, and how, before anything else is done with them.

    Parameters
    ----------
    fps : Fraction, str, int or float, frames/s, optional
        Choose frames for this rate: for j = 0, 1, 2, ... the frame whose time stamp is nearest to t_0 + j/fps, where t_0 is that of the
        first frame; the earlier of two that are equally near. No frame is chosen twice, so a video that is slower keeps all its frames.
        A text is a decimal number or a fraction, such as ``"30000/1001"``; a float counts as its shortest decimal form.
    every : int
        Choose every so many frames, beginning with the first; 1 is all frames.
    stream : int
        Which video stream of a file is read, from 1; 0 is the default stream of each file, else its largest.
    grey_range : (int, int) or str, optional
        The grey levels that become 0 and 255, of grey pictures with more than 8 bits: ``(7500, 8100)`` or ``"7500:8100"``. By default
        the upper 8 bits are kept.
    frame_rate : Fraction, str, int or float, frames/s, optional
        The frame rate of videos that do not tell theirs: of folders of pictures. By default it is unknown.

    Raises
    ------
    ParameterError
        If a value is out of its range, or `fps` and `every` are both given.

    Examples
    --------
    >>> from flowkit import Reading
    >>> Reading(fps="30000/1001").fps, Reading(fps=12.5).fps
    (Fraction(30000, 1001), Fraction(25, 2))
    >>> Reading(every=2).in_words()
    'every 2nd frame'
    """

    fps: Fraction | str | int | float | None = None
    every: int = 1
    stream: int = 0
    grey_range: tuple[int, int] | str | None = None
    frame_rate: Fraction | str | int | float | None = None

    def __post_init__(self) -> None:
        if self.fps is not None:
            object.__setattr__(self, "fps", _rate(self.fps, "fps"))
        if self.frame_rate is not None:
            object.__setattr__(self, "frame_rate", _rate(self.frame_rate, "frame_rate"))
        if isinstance(self.every, bool) or not isinstance(self.every, int) or not 1 <= self.every <= MAX_EVERY:
            raise ParameterError(f"every must be a whole number from 1 to {MAX_EVERY:,}, got {self.every!r}")
        if self.fps is not None and self.every != 1:
            raise ParameterError("frames are chosen by fps or by every, not by both")
        if isinstance(self.stream, bool) or not isinstance(self.stream, int) or not 0 <= self.stream <= MAX_STREAMS:
            raise ParameterError(f"stream must be a whole number from 1 to {MAX_STREAMS}, or 0 for the default stream, got {self.stream!r}")
        if self.grey_range is not None:
            object.__setattr__(self, "grey_range", _grey_range(self.grey_range))

    @property
    def rate(self) -> Fraction | None:
        """The frames per second for which frames are chosen; None if they are not chosen by time."""
        return self.fps if isinstance(self.fps, Fraction) else None

    @property
    def known_rate(self) -> Fraction | None:
        """The frame rate of videos that do not tell theirs; None if it is unknown."""
        return self.frame_rate if isinstance(self.frame_rate, Fraction) else None

    @property
    def takes_all(self) -> bool:
        """Whether all frames are read."""
        return self.fps is None and self.every == 1

    @property
    def stretch(self) -> tuple[int, int] | None:
        """The grey levels that become 0 and 255; None if the upper 8 bits are kept."""
        return self.grey_range if isinstance(self.grey_range, tuple) else None

    def in_words(self) -> str:
        """Return how frames are read, for messages; empty if nothing is chosen."""
        words = [] if self.every == 1 else [f"every {_ordinal(self.every)} frame"]
        words += [] if self.rate is None else [f"frames at {rate_text(self.rate)} frames/s"]
        words += [f"video stream {self.stream}"] if self.stream else []
        words += [] if self.stretch is None else [f"grey from {self.stretch[0]} to {self.stretch[1]}"]
        words += [] if self.known_rate is None else [f"folders of pictures at {rate_text(self.known_rate)} frames/s"]
        return ", ".join(words)

    def num_chosen(self, num_frames: int, frame_rate: Fraction) -> int:
        """Return about how many frames are chosen of a video with so many frames at this rate, which may be 0 if it is unknown."""
        frame_rate = frame_rate or self.known_rate or Fraction(0)
        if self.rate is None:
            return -(-num_frames // self.every)
        return -(-num_frames * self.rate // frame_rate) if frame_rate > self.rate else num_frames

    def rate_of_chosen(self, frame_rate: Fraction) -> Fraction:
        """Return the number of chosen frames per second of a video with this frame rate, which may be 0 if it is unknown."""
        frame_rate = frame_rate or self.known_rate or Fraction(0)
        if self.rate is None:
            return frame_rate / self.every
        return min(self.rate, frame_rate) if frame_rate else self.rate

    def options(self) -> list[str]:
        """Return the options of `flowkit extract` that read the same frames."""
        words = ["--fps", rate_text(self.rate)] if self.rate is not None else ["--every", str(self.every)] if self.every > 1 else []
        words += ["--stream", str(self.stream)] if self.stream else []
        words += [] if self.known_rate is None else ["--frame-rate", rate_text(self.known_rate)]
        return words + ([] if self.stretch is None else ["--grey-range", range_text(self.stretch)])

    def to_dict(self) -> dict[str, Any]:
        """Return what is not the default, as built-in types."""
        values: dict[str, Any] = {} if self.rate is None else {"fps": str(self.rate)}
        values |= {"every": self.every} if self.every > 1 else {}
        values |= {"stream": self.stream} if self.stream else {}
        values |= {} if self.known_rate is None else {"frame_rate": str(self.known_rate)}
        return values if self.stretch is None else {**values, "grey_range": range_text(self.stretch)}

    @classmethod
    def from_dict(cls, values: object) -> Reading:
        """Return the reading that `to_dict` returned; `ParameterError` if it is anything else."""
        texts = [] if not isinstance(values, dict) else [values.get(name, "") for name in ("fps", "grey_range", "frame_rate")]
        names = {"fps", "every", "stream", "grey_range", "frame_rate"}
        if not isinstance(values, dict) or not values.keys() <= names or not all(isinstance(text, str) for text in texts):
            raise ParameterError(
                f"how frames are read must be a table with fps, grey_range, frame_rate (texts), every or stream, got {values!r}"
            )
        return cls(**values)


def rate_text(rate: Fraction) -> str:
    """Return a rate as people write it: ``12.5``, or ``30000/1001`` if it has no short decimal form."""
    text = f"{float(rate):.6g}"
    return text if Fraction(text) == rate else str(rate)


def range_text(levels: tuple[int, int]) -> str:
    """Return a range of grey levels as options have it: ``7500:8100``."""
    return f"{levels[0]}:{levels[1]}"


def _grey_range(value: object) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5}):(\d{1,5})", value) if isinstance(value, str) else None
    levels = (int(match[1]), int(match[2])) if match else value
    is_pair = isinstance(levels, tuple) and len(levels) == 2 and all(type(level) is int for level in levels)
    if not is_pair or not 0 <= levels[0] < levels[1] < 1 << 16:  # type: ignore[index]
        raise ParameterError(f"grey_range must be LOW:HIGH with 0 <= LOW < HIGH <= 65535, such as 7500:8100, got {value!r}")
    return levels  # type: ignore[return-value]


def _rate(value: object, name: str) -> Fraction:
    try:
        if isinstance(value, bool) or not isinstance(value, (str, int, float, Fraction)) or len(str(value)) > 40:
            raise ValueError
        rate = Fraction(value) if isinstance(value, Fraction) else Fraction(str(value).strip())
    except (ValueError, ZeroDivisionError):
        raise ParameterError(f"{name} must be a decimal number or a fraction such as 30000/1001, got {value!r}") from None
    if not 0 < rate <= MAX_RATE or rate.denominator > _MAX_DENOMINATOR:
        raise ParameterError(
            f"{name} must be above 0 and at most {MAX_RATE} frames/s, with a denominator of at most {_MAX_DENOMINATOR:,}, got {value!r}"
        )
    return rate


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
