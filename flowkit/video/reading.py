"""How the frames of a video are read: which of them are chosen (standard library only, so that the help of the command line stays fast)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from flowkit.errors import ParameterError

MAX_RATE = 1000  # frames/s
MAX_EVERY = 1_000_000
_MAX_DENOMINATOR = 1_000_000


@dataclass(frozen=True)
class Reading:
    """Which frames of a video are read, before anything else is done with them.

    Parameters
    ----------
    fps : Fraction, str, int or float, frames/s, optional
        Choose frames for this rate: for j = 0, 1, 2, ... the frame whose time stamp is nearest to t_0 + j/fps, where t_0 is that of the
        first frame; the earlier of two that are equally near. No frame is chosen twice, so a video that is slower keeps all its frames.
        A text is a decimal number or a fraction, such as ``"30000/1001"``; a float counts as its shortest decimal form.
    every : int
        Choose every so many frames, beginning with the first; 1 is all frames.

    Raises
    ------
    ParameterError
        If a value is out of its range, or both are given.

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

    def __post_init__(self) -> None:
        if self.fps is not None:
            object.__setattr__(self, "fps", _rate(self.fps))
        if isinstance(self.every, bool) or not isinstance(self.every, int) or not 1 <= self.every <= MAX_EVERY:
            raise ParameterError(f"every must be a whole number from 1 to {MAX_EVERY:,}, got {self.every!r}")
        if self.fps is not None and self.every != 1:
            raise ParameterError("frames are chosen by fps or by every, not by both")

    @property
    def rate(self) -> Fraction | None:
        """The frames per second for which frames are chosen; None if they are not chosen by time."""
        return self.fps if isinstance(self.fps, Fraction) else None

    @property
    def takes_all(self) -> bool:
        """Whether all frames are read."""
        return self.fps is None and self.every == 1

    def in_words(self) -> str:
        """Return which frames are chosen, for messages; empty if all are."""
        if self.rate is not None:
            return f"frames at {rate_text(self.rate)} frames/s"
        return "" if self.every == 1 else f"every {_ordinal(self.every)} frame"

    def num_chosen(self, num_frames: int, frame_rate: Fraction) -> int:
        """Return about how many frames are chosen of a video with so many frames at this rate, which may be 0 if it is unknown."""
        if self.rate is None:
            return -(-num_frames // self.every)
        return -(-num_frames * self.rate // frame_rate) if frame_rate > self.rate else num_frames

    def rate_of_chosen(self, frame_rate: Fraction) -> Fraction:
        """Return the number of chosen frames per second of a video with this frame rate, which may be 0 if it is unknown."""
        if self.rate is None:
            return frame_rate / self.every
        return min(self.rate, frame_rate) if frame_rate else self.rate

    def options(self) -> list[str]:
        """Return the options of `flowkit extract` that choose the same frames."""
        return ["--fps", rate_text(self.rate)] if self.rate is not None else ["--every", str(self.every)] if self.every > 1 else []

    def to_dict(self) -> dict[str, Any]:
        """Return what is not the default, as built-in types."""
        return {"fps": str(self.rate)} if self.rate is not None else {"every": self.every} if self.every > 1 else {}

    @classmethod
    def from_dict(cls, values: object) -> Reading:
        """Return the reading that `to_dict` returned; `ParameterError` if it is anything else."""
        if not isinstance(values, dict) or not values.keys() <= {"fps", "every"} or not isinstance(values.get("fps", ""), str):
            raise ParameterError(f"how frames are read must be a table with fps (a text) or every, got {values!r}")
        return cls(**values)


def rate_text(rate: Fraction) -> str:
    """Return a rate as people write it: ``12.5``, or ``30000/1001`` if it has no short decimal form."""
    text = f"{float(rate):.6g}"
    return text if Fraction(text) == rate else str(rate)


def _rate(value: object) -> Fraction:
    try:
        if isinstance(value, bool) or not isinstance(value, (str, int, float, Fraction)) or len(str(value)) > 40:
            raise ValueError
        rate = Fraction(value) if isinstance(value, Fraction) else Fraction(str(value).strip())
    except (ValueError, ZeroDivisionError):
        raise ParameterError(f"fps must be a decimal number or a fraction such as 30000/1001, got {value!r}") from None
    if not 0 < rate <= MAX_RATE or rate.denominator > _MAX_DENOMINATOR:
        raise ParameterError(
            f"fps must be above 0 and at most {MAX_RATE} frames/s, with a denominator of at most {_MAX_DENOMINATOR:,}, got {value!r}"
        )
    return rate


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
