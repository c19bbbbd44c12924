"""The phases of two VGG streams, one of frames and one of stacks of flow, and the rows that they give (standard library only)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flowkit.model.settings.phase import PhaseDescription, Reference
from flowkit.model.settings.recipes import PhaseRecipe, RecipeName
from flowkit.model.settings.vgg import VggConfig, VggKind
from flowkit.model.systems.system import Row

_SMALL = {"decay": "cosine", "batch": 32, "bn_group": 32, "warmup_steps": 20}
_SMALL_INPUT_SIZE = (96, 64)  # px: of frames whose short side is at least the first, and of smaller ones


def small_network(short_side: int) -> dict[str, Any]:
    """Return the small recipe's network for frames of this short side, px: an eighth of the width, little dropout."""
    largest, least = _SMALL_INPUT_SIZE
    return {"width": 0.125, "input_size": largest if short_side >= largest else least, "dropout": (0.1, 0.1)}


def vgg_phases(
    kind: VggKind,
    official: Mapping[str, PhaseRecipe],
    *,
    first_weights: str,
    rates: tuple[float, float],
    of_motion: Mapping[str, Any] | None = None,
) -> tuple[PhaseDescription, PhaseDescription]:
    """Return the appearance and the motion phase of a kind of VGG network.

    `first_weights` are those of the paper, and `rates` those of the recipe ``small``. `of_motion` are settings of the motion network in all
    recipes.
    """

    def phase(stream: str, rate: float) -> PhaseDescription:
        crop = {"crop": "regular"} if stream == "motion" else {}
        own, network = official[stream], dict(of_motion or {}) if stream == "motion" else {}
        recipes: dict[RecipeName, PhaseRecipe] = {
            "official": replace(own, network=own.network | network),
            "own": PhaseRecipe(
                {"batch": 32, "bn_group": 32, "decay": "cosine", "warmup_steps": 20, **crop},
                epochs=((30 if stream == "appearance" else 60, 0.002),),
                least_steps=600,
                network={"dropout": (0.5, 0.5)} | network,
            ),
            "small": PhaseRecipe(_SMALL | crop, steps=((250, rate),), network=network, network_for=small_network),
        }
        return PhaseDescription(
            f"{kind}-{stream}",
            VggConfig,
            recipes,
            network_keys=frozenset({"width", "input_size", "dropout", "lrn", "rgb_offset" if stream == "appearance" else "without_mean"}),
            fixed={"kind": kind},
            reference=Reference(first_weights=first_weights),
            has_imagenet=kind == "vgg-16",  # torchvision has no VGG-M
        )

    return phase("appearance", rates[0]), phase("motion", rates[1])


def vgg_rows(
    kind: VggKind, title: str, published: Mapping[str, Mapping[str, float]], *, softmax_weights: tuple[float, float] | None = None
) -> tuple[Row, ...]:
    """Return the rows of both streams and of their mean; `published` has the accuracies by the last word of the row's name."""
    parts = {stream: ((f"{kind}-{stream}", stream),) for stream in ("appearance", "motion")}
    rows = {**parts, "two-streams": (*parts["appearance"], *parts["motion"])}
    return tuple(
        Row(f"{title} {name}", own, published.get(name, {}), softmax_weights=softmax_weights if len(own) > 1 else None)
        for name, own in rows.items()
    )
