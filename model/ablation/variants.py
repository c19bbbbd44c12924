"""What an ablation compares: named variants of ST-ResNet, grouped in sets, as data (standard library only)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flowkit.errors import ParameterError
from flowkit.model.settings.training import Phase
from flowkit.model.systems.configs import OVERRIDES
from flowkit.model.systems.registry import DEFAULT_SYSTEM, SYSTEMS, first_phases

BASE_PHASES: tuple[Phase, ...] = first_phases(SYSTEMS[DEFAULT_SYSTEM].networks)
ST_PHASES: tuple[Phase, ...] = tuple(phase for phase in SYSTEMS[DEFAULT_SYSTEM].networks if phase not in BASE_PHASES)
REFERENCE = "reference"  # the variant that all others are compared with: the network without any changed setting


@dataclass(frozen=True)
class Variant:
    """One network to compare: the reference, except for some settings of its ST phases.

    Parameters
    ----------
    name : str
        Letters, digits and ``- _ .``; it names the variant's run.
    settings : dict
        Overrides as `flowkit.model.systems.configs.make_configs` takes them, for both ST phases, or as ``st-resnet-star.NAME`` for
        one. There are none for the base streams, which all variants share.

    Raises
    ------
    ParameterError
        If the name is not allowed, or a setting is not one of an ST phase.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name) or set(self.name) == {"."}:
            raise ParameterError(f"a variant's name may only contain letters, digits and - _ . but is {self.name!r}")
        for name in self.settings:
            phase, _, key = name.rpartition(".")
            if key not in OVERRIDES or phase not in ("", *ST_PHASES):
                raise ParameterError(
                    f"variant {self.name}: {name!r} is not a setting of {' or '.join(ST_PHASES)}; `flowkit train --set list` names them, "
                    "and the base streams are the same for all variants"
                )

    @property
    def overrides(self) -> dict[str, Any]:
        """The settings, each under the name of its phase; a setting for one phase takes precedence over one for both."""
        shared = {f"{phase}.{name}": value for name, value in self.settings.items() if "." not in name for phase in ST_PHASES}
        return shared | {name: value for name, value in self.settings.items() if "." in name}

    def __str__(self) -> str:
        return ", ".join(f"{name} {_shown(value)}" for name, value in self.settings.items()) or "nothing changed"


@dataclass(frozen=True)
class VariantSet:
    """Variants that answer one question."""

    question: str
    variants: tuple[Variant, ...]


def _set(question: str, **settings: Mapping[str, Any]) -> VariantSet:
    return VariantSet(question, tuple(Variant(name.replace("_", "-"), values) for name, values in settings.items()))


VARIANT_SETS: dict[str, VariantSet] = {
    "connections": _set(
        "Motion enters the residual branch (eq. 2 of the paper), the identity path as well, or neither; in one direction, the other, or "
        "both.",
        no_injection={"injection": "none"},
        residual_reverse={"injection_direction": "appearance_to_motion"},
        residual_both={"injection_direction": "both"},
        direct={"injection": "direct"},
        direct_reverse={"injection": "direct", "injection_direction": "appearance_to_motion"},
        direct_both={"injection": "direct", "injection_direction": "both"},
    ),
    "kinds": _set(
        "Motion is added (eq. 2 of the paper), or multiplied, as in the authors' next paper (CVPR 2017).",
        multiplicative={"injection_kind": "multiplicative"},
        multiplicative_both={"injection_kind": "multiplicative", "injection_direction": "both"},
        multiplicative_direct={"injection_kind": "multiplicative", "injection": "direct"},
    ),
    "temporal": _set(
        "Temporal convolutions start as an average (eq. 5 of the paper) or as their centre tap only (CVPR 2017), or are left out; beyond "
        "the ends of a clip there are zeros (official code) or repeated frames.",
        center_init={"temporal_init": "center"},
        no_temporal={"temporal_convolution": False},
        replicate={"temporal_padding": "replicate"},
    ),
    "stages": _set(
        "Motion residuals and temporal convolutions are at every stage, 2 to 5 (Table 1 of the paper), or only at later ones.",
        injection_345={"injection_stages": [3, 4, 5]},
        injection_45={"injection_stages": [4, 5]},
        injection_5={"injection_stages": [5]},
        temporal_345={"temporal_stages": [3, 4, 5]},
        temporal_45={"temporal_stages": [4, 5]},
        temporal_5={"temporal_stages": [5]},
    ),
    "pooling": _set(
        "ST-ResNet* pools over time after the spatial pooling (Table 1 of the paper), before it (official code), or not at all.",
        pool_before={"st-resnet-star.temporal_pool_position": "before_pool5"},
        no_pool={"st-resnet-star.temporal_pool": False},
    ),
    "heads": _set(
        "Average pooling uses 7x7 windows (official code) or the whole map; the two are the same on training crops, not on test frames.",
        global_head={"head_pool": "global"},
    ),
}


def chosen_variants(sets: Iterable[str], own: Iterable[Variant] = ()) -> list[Variant]:
    """Return the variants of some sets, followed by the user's own.

    Raises
    ------
    ParameterError
        If there is no such set, or two variants have the same name.
    """
    sets = list(sets)
    unknown = [name for name in sets if name not in VARIANT_SETS]
    if unknown:
        raise ParameterError(f"there is no set of variants {unknown[0]!r}; the sets are {', '.join(VARIANT_SETS)}")
    variants = [variant for name in dict.fromkeys(sets) for variant in VARIANT_SETS[name].variants] + list(own)
    names = [REFERENCE, *(variant.name for variant in variants)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ParameterError(f"two variants are called {twice}; give one of them another name")
    return variants


def _shown(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return "+".join(map(_shown, value))
    return "on" if value is True else "off" if value is False else str(value)
