"""All systems and all phases by their names, in the order of the results table (standard library only)."""

from __future__ import annotations

from collections.abc import Iterable

from flowkit.errors import ParameterError
from flowkit.model.settings.phase import PhaseDescription
from flowkit.model.settings.svm_phase import SvmDescription
from flowkit.model.systems.c3d import C3D, C3D_IDT
from flowkit.model.systems.dynamic_images import DYNAMIC_IMAGES, DYNAMIC_IMAGES_IDT
from flowkit.model.systems.idt import IDT
from flowkit.model.systems.st_resnet import ST_RESNET
from flowkit.model.systems.st_resnet_idt import ST_RESNET_STAR_IDT, TWO_STREAMS_IDT
from flowkit.model.systems.system import System
from flowkit.model.systems.tdd import TDD, TDD_IDT
from flowkit.model.systems.transformations import TRANSFORMATIONS
from flowkit.model.systems.two_stream_fusion import TWO_STREAM_FUSION, TWO_STREAM_FUSION_IDT
from flowkit.model.systems.two_streams_lstm import TWO_STREAMS_LSTM
from flowkit.model.systems.two_streams_pooling import TWO_STREAMS_POOLING
from flowkit.model.systems.two_streams_vgg_16 import TWO_STREAMS_VGG_16
from flowkit.model.systems.two_streams_vgg_m import TWO_STREAMS_VGG_M

_ALL = (
    ST_RESNET,
    IDT,
    TWO_STREAMS_IDT,
    ST_RESNET_STAR_IDT,
    TWO_STREAMS_VGG_M,
    TWO_STREAMS_VGG_16,
    TWO_STREAMS_LSTM,
    TWO_STREAMS_POOLING,
    TWO_STREAM_FUSION,
    TWO_STREAM_FUSION_IDT,
    DYNAMIC_IMAGES,
    DYNAMIC_IMAGES_IDT,
    C3D,
    C3D_IDT,
    TDD,
    TDD_IDT,
)
NOT_BUILT: tuple[System, ...] = (TRANSFORMATIONS,)  # which a comparison lists with their published figures
SYSTEMS: dict[str, System] = {system.name: system for system in _ALL}
DEFAULT_SYSTEM = ST_RESNET.name
# Every phase that trains a network, once, whatever the number of systems that have it.
PHASES: dict[str, PhaseDescription] = {phase.name: phase for system in SYSTEMS.values() for phase in system.trains}
# Every phase that trains a linear SVM.
SVM_PHASES: dict[str, SvmDescription] = {svm.name: svm for system in SYSTEMS.values() for svm in system.svms}


def find_system(name: str) -> System:
    """Return the system of a name; `ParameterError` if there is none."""
    if name not in SYSTEMS:
        raise ParameterError(f"system must be one of {', '.join(SYSTEMS)}, got {name!r}")
    return SYSTEMS[name]


def description_of(name: str) -> PhaseDescription:
    """Return the description of a phase; `ParameterError` if there is none."""
    if name not in PHASES:
        raise ParameterError(f"phase must be one of {', '.join(PHASES)}, got {name!r}")
    return PHASES[name]


def system_of_svm(name: str) -> str:
    """Return the name of the first system that trains an SVM: the one that `train --system` takes for it."""
    return next(system.name for system in SYSTEMS.values() if name in (svm.name for svm in system.svms))


def starts_from(name: str) -> tuple[str, ...]:
    """Return the phases from whose weights a phase starts."""
    return description_of(name).starts_from


def linked(names: Iterable[str]) -> tuple[PhaseDescription, ...]:
    """Return some phases with all that start from them or from which they start, directly or by others, in the order of `PHASES`.

    Of the phases that start from them, only those of the first system that has all of the given ones count; or, if none has all, of the
    first system of each.

    Examples
    --------
    >>> from flowkit.model.systems.registry import linked
    >>> [phase.name for phase in linked(["motion"])]
    ['appearance', 'motion', 'st-resnet', 'st-resnet-star']
    >>> [phase.name for phase in linked(["lstm-motion"])]
    ['motion', 'lstm-motion']
    """
    found = {description_of(name).name for name in names}
    together = next((set(system.networks) for system in SYSTEMS.values() if found <= set(system.networks)), None)
    near = together or {phase for name in found for phase in next(s.networks for s in SYSTEMS.values() if name in s.networks)}
    while True:
        more = {phase.name for phase in PHASES.values() if phase.name in near and found & {phase.name, *phase.starts_from}}
        more |= {before for name in more for before in PHASES[name].starts_from}
        if more == found:
            return tuple(phase for phase in PHASES.values() if phase.name in found)
        found = more


def first_phases(names: Iterable[str]) -> tuple[str, ...]:
    """Return those phases that start from no other phase."""
    return tuple(name for name in names if not starts_from(name))
