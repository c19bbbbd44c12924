"""What an ablation compares: named variants of ST-ResNet, in sets, as data (standard library only)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowkit.errors import ParameterError
from flowkit.model.settings.recipes import OVERRIDES
from flowkit.model.settings.training import BASE_PHASES, PHASES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flowkit.model.settings.training import Phase

ST_PHASES: tuple[Phase, ...] = tuple(phase for phase in PHASES if phase not in BASE_PHASES)
REFERENCE = "paper"  # the variant that all others are compared with: the network as it is without any setting


@dataclass(frozen=True)
class Variant:
    """One network to compare: the paper's but for some settings of its ST phases.

    Parameters
    ----------
    name : str
        Letters, digits and ``- _ .``; it names the variant's run.
    settings : dict
        What `flowkit.model.settings.recipes.make_configs` takes, for both ST phases, or as ``st-resnet-star.NAME`` for one. The base
        streams are everyone's and have none.

    Raises
    ------
    ParameterError
        If the name will not do, or a setting is none of an ST phase.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name) or set(self.name) == {"."}:
            raise ParameterError(f"a variant's name may hold letters, digits and - _ . only, got {self.name!r}")
        for name in self.settings:
            phase, _, key = name.rpartition(".")
            if key not in OVERRIDES or phase not in ("", *ST_PHASES):
                raise ParameterError(
                    f"variant {self.name}: {name!r} is no setting of {' or '.join(ST_PHASES)}; `flowkit train --set list` names them, "
                    "and the base streams are the same for all variants"
                )

    @property
    def overrides(self) -> dict[str, Any]:
        """The settings, each under the name of its phase; what is said for one phase beats what is said for both."""
        shared = {f"{phase}.{name}": value for name, value in self.settings.items() if "." not in name for phase in ST_PHASES}
        return shared | {name: value for name, value in self.settings.items() if "." in name}

    def __str__(self) -> str:
        return ", ".join(f"{name} {_shown(value)}" for name, value in self.settings.items()) or "as the paper"


@dataclass(frozen=True)
class VariantSet:
    """Variants that answer one question, which `question` words."""

    question: str
    variants: tuple[Variant, ...]


def _set(question: str, **settings: Mapping[str, Any]) -> VariantSet:
    return VariantSet(question, tuple(Variant(name.replace("_", "-"), values) for name, values in settings.items()))


VARIANT_SETS: dict[str, VariantSet] = {
    "connections": _set(
        "Motion into the residual branch (paper), into the identity path as well, or not at all; one way, the other, both.",
        no_injection={"injection": "none"},
        residual_reverse={"injection_direction": "appearance_to_motion"},
        residual_both={"injection_direction": "both"},
        direct={"injection": "direct"},
        direct_reverse={"injection": "direct", "injection_direction": "appearance_to_motion"},
        direct_both={"injection": "direct", "injection_direction": "both"},
    ),
    "kinds": _set(
        "Motion added (paper), or multiplied with, which is the authors' follow-up (CVPR 2017).",
        multiplicative={"injection_kind": "multiplicative"},
        multiplicative_both={"injection_kind": "multiplicative", "injection_direction": "both"},
        multiplicative_direct={"injection_kind": "multiplicative", "injection": "direct"},
    ),
    "temporal": _set(
        "Temporal convolutions that begin as an average (paper), as their centre alone (CVPR 2017), or none; zeros (paper) or repeated "
        "frames outside a clip.",
        center_init={"temporal_init": "center"},
        no_temporal={"temporal_convolution": False},
        replicate={"temporal_padding": "replicate"},
    ),
    "stages": _set(
        "Motion residuals and temporal convolutions at every stage, 2 to 5 (paper), or at the later ones only.",
        injection_345={"injection_stages": [3, 4, 5]},
        injection_45={"injection_stages": [4, 5]},
        injection_5={"injection_stages": [5]},
        temporal_345={"temporal_stages": [3, 4, 5]},
        temporal_45={"temporal_stages": [4, 5]},
        temporal_5={"temporal_stages": [5]},
    ),
    "pooling": _set(
        "ST-ResNet*'s pooling over time after the spatial pooling (paper), before it (the official code), or none.",
        pool_before={"st-resnet-star.temporal_pool_position": "before_pool5"},
        no_pool={"st-resnet-star.temporal_pool": False},
    ),
    "heads": _set(
        "Average pooling in 7x7 windows (paper), or over the whole map: the same on training crops, not on the frames of the test.",
        global_head={"head_pool": "global"},
    ),
}


def chosen_variants(sets: Iterable[str], own: Iterable[Variant] = ()) -> list[Variant]:
    """Return the variants of some sets and one's own, in order.

    Raises
    ------
    ParameterError
        If there is no such set, or two variants have one name.
    """
    sets = list(sets)
    unknown = [name for name in sets if name not in VARIANT_SETS]
    if unknown:
        raise ParameterError(f"no set of variants {unknown[0]!r}; there are {', '.join(VARIANT_SETS)}")
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
