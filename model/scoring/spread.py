"""Mean and standard deviation of a figure over several trainings that differ in their seed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

SPREAD_NOTE = (
    "sd: standard deviation over the n seeds, with n - 1 in the denominator; it measures how far trainings with other seeds lie apart on "
    "these videos, not how much other videos would change the result"
)


@dataclass(frozen=True)
class Spread:
    """A figure of several trainings.

    Parameters
    ----------
    values : tuple of float or None
        The figure of each training; None where it is unknown.

    Examples
    --------
    >>> from flowkit.model.scoring.spread import Spread
    >>> spread = Spread((0.5, 0.7, 0.6))
    >>> spread.mean, round(spread.deviation, 3)
    (0.6, 0.1)
    >>> Spread((0.5,)).deviation is None, Spread((0.5, None)).mean is None
    (True, True)
    """

    values: tuple[float | None, ...]

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread:
        """Return the spread of these values; NaN counts as unknown."""
        return cls(tuple(None if value is None or math.isnan(value) else value for value in values))

    @property
    def known(self) -> Sequence[float]:
        """The values, if all of them are known; else none, because a mean over some of the trainings would not be the one that is named."""
        known = [value for value in self.values if value is not None]
        return known if len(known) == len(self.values) else ()

    @property
    def mean(self) -> float | None:
        """The mean of the values; None unless all are known."""
        return statistics.fmean(self.known) if self.known else None

    @property
    def deviation(self) -> float | None:
        """The standard deviation of the values, with n - 1 in the denominator; None unless all are known, and two or more."""
        return statistics.stdev(self.known) if len(self.known) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Return it as built-in types, for JSON."""
        return {"values": list(self.values), "n": len(self.values), "mean": self.mean, "sd": self.deviation}
