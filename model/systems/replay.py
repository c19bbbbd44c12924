"""Settings of phases as values of a file, which give the same settings again, and whether a file's values are of their kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from flowkit.errors import ParameterError
from flowkit.model.settings.checks import is_int, is_number
from flowkit.model.settings.network_config import NetworkConfig
from flowkit.model.settings.training import Phase, TrainConfig
from flowkit.model.systems.configs import NETWORK_KEYS, OVERRIDES
from flowkit.model.systems.registry import PHASES, description_of, linked

_NETWORKS: list[type[NetworkConfig]] = list(dict.fromkeys(phase.network for phase in PHASES.values()))
_HINTS: dict[str, Any] = {
    **{name: hint for kind in _NETWORKS for name, hint in get_type_hints(kind).items()},
    **get_type_hints(TrainConfig),
    "steps": int,
    "lr": float,
}
_LARGEST = 1 << 63
_MOST_SHOWN = 60


def values_of(configs: Mapping[Phase, TrainConfig]) -> dict[str, Any]:
    """Return the values with which `make_configs` gives these settings again, as its `file`.

    Parameters
    ----------
    configs : dict from phase to TrainConfig
        The settings of some phases, or of all.

    Returns
    -------
    dict
        Built-in types, under the name of a setting where all phases have the same value, and under ``phase.name`` elsewhere.

    Examples
    --------
    >>> from flowkit.model.systems.configs import make_configs
    >>> from flowkit.model.systems.replay import values_of
    >>> configs = make_configs("small", num_classes=5, num_videos=100, short_side=64)
    >>> values = values_of(configs)
    >>> values["base_width"], values["motion.crop"]
    (16, 'regular')
    >>> make_configs("small", num_classes=5, num_videos=7, short_side=256, file=values) == configs
    True
    """
    flat = {phase: _values(config) for phase, config in configs.items()}
    is_whole = len(configs) == len(linked(configs))
    same = frozenset(key for phase in configs for key in description_of(phase).same)
    values: dict[str, Any] = {}
    for name in dict.fromkeys(name for own in flat.values() for name in own):
        having = {phase: own[name] for phase, own in flat.items() if name in own}
        first = next(iter(having.values()))
        if all(value == first for value in having.values()) and (name in same or is_whole):
            values[name] = first
        else:
            values |= {f"{phase}.{name}": value for phase, value in having.items()}
    return values


def _values(config: TrainConfig) -> dict[str, Any]:
    """Return the settings that a phase has, without those that are of no concern to it."""
    values = config.to_dict()
    values |= values.pop("network")
    unconcerned = NETWORK_KEYS - description_of(config.phase).network_keys
    return {name: value for name, value in values.items() if name in OVERRIDES and name not in unconcerned and value is not None}


def check_kind(name: str, value: object) -> None:
    """Raise `ParameterError` unless a value of a file is of the kind that a setting has; whether it is in its range is tested later.

    Parameters
    ----------
    name : str
        One of `OVERRIDES`.
    value : object
        What the file has.
    """
    hint = _HINTS[name]
    if get_origin(hint) is Literal:
        good, must_be = value in get_args(hint), f"one of {', '.join(map(str, get_args(hint)))}"
    elif hint is bool:
        good, must_be = isinstance(value, bool), "true or false"
    elif hint is int:
        good, must_be = _is_bounded(value), "a whole number"
    elif hint is float:
        good, must_be = is_number(value), "a number"
    elif name == "schedule":
        good, must_be = (
            isinstance(value, list) and all(map(_is_part, value)),
            "a list of steps and rates, such as [[100, 0.01], [50, 0.001]]",
        )
    else:
        good, must_be = isinstance(value, list) and all(map(is_number, value)), "a list of numbers"
    if not good:
        raise ParameterError(f"{name} must be {must_be}, got {_brief(value)}")


def _is_bounded(value: object) -> bool:
    return is_int(value) and abs(value) < _LARGEST  # type: ignore[arg-type]


def _is_part(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and _is_bounded(value[0]) and is_number(value[1])


def _brief(value: object) -> str:
    if isinstance(value, dict):
        return "a table"
    try:
        text = repr(value)
    except ValueError:  # a number of thousands of digits
        return "a number that is too large"
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 3] + "..."
