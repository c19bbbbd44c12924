"""What the data classes of settings share: checks, which raise `ParameterError` with a name and a value, a brief repr, and records."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from flowkit.errors import ParameterError

Settings = TypeVar("Settings")


def check(good: bool, name: str, must_be: str, got: object) -> None:
    """Raise `ParameterError` unless a setting is good."""
    if not good:
        raise ParameterError(f"{name} must be {must_be}, got {got!r}")


def check_choices(settings: Any) -> None:
    """Check the fields of a data class whose type lists their values: a `Literal` or a bool."""
    for name, kind in get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        if kind is bool:
            check(isinstance(value, bool), name, "true or false", value)
        elif get_origin(kind) is Literal:
            check(value in get_args(kind), name, f"one of {', '.join(get_args(kind))}", value)


def brief_repr(settings: Any) -> str:
    """Return the repr of a data class without the fields that have their default."""
    shown = [f"{item.name}={value!r}" for item in fields(settings) if (value := getattr(settings, item.name)) != item.default]
    return f"{type(settings).__name__}({', '.join(shown)})"


def is_int(value: object) -> bool:
    """Return whether a value is a whole number; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Return whether a value is a finite number; True and False are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def numbers(values: object, count: int) -> tuple[float, ...]:
    """Return `count` finite numbers of a tuple or list as floats; an empty tuple if it is anything else."""
    given = tuple(values) if isinstance(values, (tuple, list)) else ()
    return tuple(map(float, given)) if len(given) == count and all(map(is_number, given)) else ()


def to_record(settings: Any) -> dict[str, Any]:
    """Return a data class of settings as built-in types, with lists for tuples."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(settings).items()}


def from_record(kind: type[Settings], values: Mapping[str, Any]) -> Settings:
    """Make settings from what `to_record` returned; a name that is unknown or missing raises `ParameterError`."""
    unknown = sorted(set(values) - {item.name for item in fields(kind)})  # type: ignore[arg-type]
    if unknown:
        raise ParameterError(f"unknown network settings: {', '.join(unknown)}")
    try:
        return kind(**values)
    except TypeError as cause:
        raise ParameterError(f"network settings are incomplete: {cause}") from cause
