"""Checks of settings, which raise `ParameterError` with the name of what is wrong."""

from __future__ import annotations

import math

from flowkit.errors import ParameterError


def check(good: bool, name: str, must_be: str, got: object) -> None:
    """Raise `ParameterError` with the setting's name and value unless it is good."""
    if not good:
        raise ParameterError(f"{name} must be {must_be}, got {got!r}")


def is_int(value: object) -> bool:
    """Return whether a value is a whole number; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Return whether a value is a finite number; True and False are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
