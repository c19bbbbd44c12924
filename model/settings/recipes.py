"""Recipes: how a phase is trained, as data, and what a user chooses of them (standard library only)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from flowkit.errors import ParameterError
from flowkit.model.settings.checks import check, check_choices, is_int, is_number
from flowkit.model.settings.training import RENAMED_RECIPES, Schedule, TrainConfig
from flowkit.model.settings.validation import Validation

RecipeName = Literal["official", "own", "small"]
Recipe = Literal["auto", "official", "own", "small"]
Weights = Literal["imagenet", "none"] | Path
RECIPE_NAMES: tuple[RecipeName, ...] = get_args(RecipeName)

_MEMORIES = 3  # after 1 / bn_momentum steps this many times, 5 % of the older running moments are left


@dataclass(frozen=True)
class PhaseRecipe:
    """One phase of a recipe: values for `TrainConfig`, and a schedule that fits lists of any length.

    Parameters
    ----------
    settings : dict
        Fields of `TrainConfig`.
    passes : int
        Passes over the training videos in one epoch.
    epochs : tuple of (int, float)
        Numbers of epochs and their learning rates. An epoch has ``ceil(videos * passes / batch)`` steps.
    least_steps : int
        A schedule of epochs is stretched to at least so many steps, because a short list has too few.
    steps : tuple of (int, float)
        The same as fixed numbers of steps, for a recipe without `epochs`.
    paper : dict
        Fields of `TrainConfig` that the paper's schedule has instead: batch, BN group and iterations.
    network : dict
        Fields of the settings of the phase's network.
    network_for : callable, optional
        Returns further such fields for frames of a short side, px.
    """

    settings: dict[str, Any]
    passes: int = 1
    epochs: Schedule = ()
    least_steps: int = 0
    steps: Schedule = ()
    network: dict[str, Any] = field(default_factory=dict)
    paper: dict[str, Any] = field(default_factory=dict)
    network_for: Callable[[int], dict[str, Any]] | None = None

    def network_at(self, short_side: int) -> dict[str, Any]:
        """Return the fields of the network's settings for frames of this short side, px."""
        return (self.network_for(short_side) if self.network_for else {}) | self.network


@dataclass(frozen=True)
class TrainSettings:
    """How to train: what a training leaves to the user, the same for all phases, runs and variants.

    Parameters
    ----------
    recipe : {"auto", "official", "own", "small"}
        ``auto`` is `small` on a CPU; on a CUDA device it is `official` for the lists of UCF101 and HMDB51, and `own` for others.
    weights : "imagenet", "none" or path, optional
        What the base streams start from. By default random weights for `small`, ImageNet for the others.
    paper_schedule : bool
        Take the paper's batches and iterations, as far as they are known, instead of the official code's.
    overrides : dict
        Values to use instead of the recipe's; see `make_configs`.
    validation : Validation, optional
        Which training videos are held out for validation, in all phases; by default none.
    file : dict
        Values of a file that stand in the place of the recipe's; `overrides` win over them.
    """

    recipe: Recipe = "auto"
    weights: Weights | str | None = None
    paper_schedule: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)
    validation: Validation | None = None
    file: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.recipe in RENAMED_RECIPES:
            raise ParameterError(f"the recipe {self.recipe} is now called {RENAMED_RECIPES[self.recipe]}")
        check_choices(self)
        if isinstance(self.weights, str) and self.weights not in ("imagenet", "none"):
            object.__setattr__(self, "weights", Path(self.weights))
        object.__setattr__(self, "overrides", dict(self.overrides))
        for name, value in self.all_overrides.items() if self.validation is None else ():
            key = name.rpartition(".")[2]
            if (key == "validation_steps" and (value or name in self.overrides)) or (key == "select" and value == "best"):
                raise ParameterError(f"{name} {value} needs validation videos: give --validation FRACTION or --validation-groups N,...")

    def recipe_on(self, device_type: str, *, is_official_list: bool) -> RecipeName:
        """Return the recipe for a device of this type, ``cpu`` or ``cuda``, and a list that is UCF101's or HMDB51's or not."""
        if self.recipe != "auto":
            return self.recipe
        return "small" if device_type != "cuda" else "official" if is_official_list else "own"

    def why_recipe(self, device_type: str, *, is_official_list: bool) -> str:
        """Return why `recipe_on` chose as it did; empty if the user chose."""
        if self.recipe != "auto":
            return ""
        return "the device is not a GPU" if device_type != "cuda" else f"{'' if is_official_list else 'not '}UCF101's or HMDB51's lists"

    def weights_for(self, recipe: RecipeName) -> Weights:
        """Return what the base streams start from in a recipe."""
        weights: Weights = self.weights or ("none" if recipe == "small" else "imagenet")  # type: ignore[assignment]
        return weights

    @property
    def all_overrides(self) -> dict[str, Any]:
        """The values of the file and the overrides, which win where both have the same name."""
        return {**self.file, **self.overrides}

    def but(self, overrides: Mapping[str, Any]) -> TrainSettings:
        """Return the same settings with more values to use instead of the recipe's."""
        return replace(self, overrides={**self.overrides, **overrides})

    def with_seed(self, seed: int) -> TrainSettings:
        """Return the same settings with this seed in all phases."""
        kept = {name: value for name, value in self.overrides.items() if name.rpartition(".")[2] != "seed"}
        return replace(self, overrides=kept | {"seed": seed})


def renewal_steps(config: TrainConfig) -> int:
    """Return for how many steps a phase renews its running moments by default.

    Notes
    -----
    The running moments remember about ``3 / bn_momentum`` steps, which is 95 % of them. If the last learning rate of the schedule lasts
    for fewer, they are in part those of weights that have changed a lot since, and ``1 / bn_momentum`` further batches replace them.
    """
    if not config.network.has_batch_norm:
        return 0
    last = config.num_steps if config.decay == "cosine" else config.schedule[-1][0]
    enough = config.bn_momentum == 0 or last * config.bn_momentum >= _MEMORIES
    return 0 if enough else min(config.num_steps, math.ceil(1 / config.bn_momentum))


def with_moments_of(config: TrainConfig, begun: TrainConfig, overrides: Mapping[str, Any]) -> TrainConfig:
    """Return the settings of a phase that was begun, perhaps before its rules for running moments were settings, by those rules.

    Then variances were averaged and nothing was renewed, which is kept unless `overrides` says otherwise.
    """
    names = {name.rpartition(".")[2] for name in overrides}
    if (begun.bn_moments, begun.bn_renewal_steps) != ("variance", 0) or names & {"bn_moments", "bn_renewal_steps"}:
        return config
    return replace(config, bn_moments="variance", bn_renewal_steps=0)


def scaled(schedule: Schedule, num_steps: int) -> Schedule:
    """Return a schedule shortened or stretched to `num_steps` steps, in proportion."""
    total, done, parts, seen = sum(steps for steps, _ in schedule), 0, [], 0
    for steps, rate in schedule:
        seen += steps
        end = (2 * num_steps * seen + total) // (2 * total)
        if end > done:
            parts.append((end - done, rate))
        done = end
    return tuple(parts)


def filled_schedule(entry: PhaseRecipe, batch: int, num_videos: int, fixed: Schedule | None, own: Mapping[str, Any]) -> Schedule:
    """Return a phase's steps and learning rates for a list of `num_videos`, with the user's ``steps`` and ``lr``."""
    epoch = math.ceil(num_videos * entry.passes / batch)
    schedule = fixed or entry.steps or tuple((count * epoch, rate) for count, rate in entry.epochs)
    if sum(steps for steps, _ in schedule) < entry.least_steps:
        schedule = scaled(schedule, entry.least_steps)
    if "steps" in own:
        check(is_int(own["steps"]) and own["steps"] >= 1, "steps", "a whole number of at least 1", own["steps"])
        schedule = scaled(schedule, own["steps"])
    if "lr" in own:
        check(is_number(own["lr"]) and own["lr"] >= 0, "lr", "a number of at least 0", own["lr"])
        first = schedule[0][1]
        schedule = tuple((steps, rate / first * own["lr"]) for steps, rate in schedule)
    return schedule
