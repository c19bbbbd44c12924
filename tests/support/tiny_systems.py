"""Every system of networks, with settings that make it train in a moment; systems that are added later are among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowkit.errors import ParameterError
from flowkit.model.systems.configs import make_configs, overrides_of
from flowkit.model.systems.registry import SYSTEMS

STEPS: dict[str, Any] = {"batch": 4, "bn_group": 2, "steps": 3, "warmup_steps": 0}
_NARROW: dict[str, Any] = {"width": 0.03, "base_width": 4, "hidden": 8}
_SIZES = (32, 64)  # px: the smallest that a network takes


def network_systems() -> list[str]:
    """Return the systems whose networks are not all those of a system before them."""
    kept: list[str] = []
    for name, system in SYSTEMS.items():
        if system.networks and not any(set(system.networks) <= set(SYSTEMS[other].networks) for other in kept):
            kept.append(name)
    return kept


def tiny(system: str) -> dict[str, Any]:
    """Return values of the recipe ``small`` that make the networks of a system tiny."""
    networks = SYSTEMS[system].networks
    for size in _SIZES:
        values = overrides_of({**_NARROW, "input_size": size}, networks)
        try:
            make_configs("small", phases=networks, num_classes=2, num_videos=4, short_side=48, overrides=values)
        except ParameterError:
            continue
        return values
    raise AssertionError(f"no size of {_SIZES} px is one of {system}")


def options_of(values: Mapping[str, Any]) -> list[str]:
    """Return the options that give these values to a command."""
    return [part for name, value in values.items() for part in ("--set", f"{name}={value}")]
