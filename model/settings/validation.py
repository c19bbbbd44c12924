"""Which training videos are held out for validation, as a setting (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flowkit.errors import ParameterError
from flowkit.model.settings.checks import check, is_int, is_number


@dataclass(frozen=True)
class Validation:
    """Which training videos are held out: a share of each class, or groups. Exactly one of the two is given.

    Parameters
    ----------
    fraction : float, optional
        The share of each class's training videos, in (0, 1).
    groups : tuple of int
        The numbers of groups: ``_gNN_`` in the names of videos, which UCF101 gives to videos of one actor or scene.

    Raises
    ------
    ParameterError
        If both or neither are given, or a value is out of its range.

    Examples
    --------
    >>> str(Validation(groups=(1, 2)))
    'groups 1,2'
    >>> str(Validation(fraction=0.2))
    'fraction 0.2'
    """

    fraction: float | None = None
    groups: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(self.groups))
        if (self.fraction is None) == (not self.groups):
            raise ParameterError("validation takes either a fraction or groups")
        good = self.fraction is None or (is_number(self.fraction) and 0 < self.fraction < 1)
        check(good, "validation", "a fraction above 0 and below 1", self.fraction)
        good = all(is_int(number) and number >= 0 for number in self.groups) and len(set(self.groups)) == len(self.groups)
        check(good, "validation_groups", "different whole numbers of at least 0", self.groups)

    def __str__(self) -> str:
        return f"groups {','.join(map(str, self.groups))}" if self.groups else f"fraction {self.fraction:g}"

    def to_dict(self) -> dict[str, Any]:
        """Return what is given as built-in types."""
        return {"groups": list(self.groups)} if self.groups else {"fraction": self.fraction}
