"""The phases of networks over the features of the base streams of ST-ResNet, and the rows that they give (standard library only)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowkit.model.settings.phase import PhaseDescription, Reference
from flowkit.model.settings.recipes import PhaseRecipe
from flowkit.model.settings.sequence import SequenceConfig, SequenceKind
from flowkit.model.systems.shared.residual_recipes import small_network
from flowkit.model.systems.system import Row

CITATION = (
    "J. Y.-H. Ng, M. Hausknecht, S. Vijayanarasimhan, O. Vinyals, R. Monga, G. Toderici, Beyond Short Snippets: Deep Networks for Video "
    "Classification, CVPR 2015"
)
DIFFERENCES = (
    "features of ResNets that were trained on ImageNet and on these videos (paper: GoogLeNet, trained on Sports-1M first)",
    "the ResNets do not learn further (paper: all layers learn together)",
    "25 frames at equal distances (paper: 30 frames for the LSTM, 120 for pooling)",
    "the plain mean of both streams' scores",
    "schedule and dropout are flowkit's, because those of the paper could not be checked",
)
_ALL = {"num_samples": 25, "decay": "cosine", "crop": "none", "flip": False}
_FULL = _ALL | {"batch": 128, "bn_group": 128, "warmup_steps": 100}
_BRIEF = _ALL | {"batch": 32, "bn_group": 32, "warmup_steps": 20}
_OF_RESNET = frozenset({"depth", "stage_units", "base_width", "input_size", "stride_in_1x1", "stem_pool", "head_pool"})
_SAME = ("depth", "stage_units", "base_width", "input_size", "stride_in_1x1", "stem_pool", "rgb_offset", "head_pool")
_STREAMS = ("appearance", "motion")  # they are also the names of the base streams of ST-ResNet


def sequence_phases(
    name: str, kind: SequenceKind, keys: frozenset[str], *, rates: tuple[float, float, float], small: Mapping[str, Any]
) -> tuple[PhaseDescription, PhaseDescription]:
    """Return the phase on the features of frames and that on the features of flow.

    `keys` are the settings of what follows the features, `rates` the first learning rates of the recipes official, own and small, and
    `small` the settings of the last.
    """

    def phase(stream: str) -> PhaseDescription:
        official, own, least = rates
        return PhaseDescription(
            f"{name}-{stream}",
            SequenceConfig,
            {
                "official": PhaseRecipe(_FULL, epochs=((60, official),), least_steps=600),
                "own": PhaseRecipe(_BRIEF, epochs=((60, own),), least_steps=600),
                "small": PhaseRecipe(_BRIEF, steps=((300, least),), network=dict(small), network_for=small_network),
            },
            starts_from=(stream,),
            network_keys=_OF_RESNET | keys | (frozenset({"rgb_offset"}) if stream == "appearance" else frozenset()),
            fixed={"kind": kind},
            same=_SAME,
            reference=Reference(first_weights=f"{stream} network, trained on Sports-1M"),
        )

    return phase("appearance"), phase("motion")


def sequence_rows(name: str, title: str, row: str, published: Mapping[str, float]) -> tuple[Row, ...]:
    """Return the rows of both streams and of their mean."""
    parts = tuple((f"{name}-{stream}", stream) for stream in _STREAMS)
    return (*(Row(f"{title} on {stream}", (part,)) for part in parts for stream in part[1:]), Row(row, parts, published))
