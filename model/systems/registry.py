"""All systems by their names, in the order of the results table."""

from __future__ import annotations

from flowkit.errors import ParameterError
from flowkit.model.systems.idt import IDT
from flowkit.model.systems.st_resnet import ST_RESNET
from flowkit.model.systems.st_resnet_star_idt import ST_RESNET_STAR_IDT
from flowkit.model.systems.system import System
from flowkit.model.systems.two_streams_idt import TWO_STREAMS_IDT

SYSTEMS: dict[str, System] = {system.name: system for system in (ST_RESNET, IDT, TWO_STREAMS_IDT, ST_RESNET_STAR_IDT)}


def find_system(name: str) -> System:
    """Return the system of a name; `ParameterError` if there is none."""
    if name not in SYSTEMS:
        raise ParameterError(f"system must be one of {', '.join(SYSTEMS)}, got {name!r}")
    return SYSTEMS[name]
