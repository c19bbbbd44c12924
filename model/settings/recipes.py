"""Recipes: how each phase is trained, as data, and how they become the settings of a run (standard library only)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from flowkit.errors import ParameterError
from flowkit.model.settings.checks import check, check_choices, is_int, is_number
from flowkit.model.settings.network import STResNetConfig
from flowkit.model.settings.training import BASE_PHASES, PHASES, RENAMED_RECIPES, Phase, Schedule, TrainConfig
from flowkit.model.settings.validation import Validation

RecipeName = Literal["official", "own", "small"]
Recipe = Literal["auto", "official", "own", "small"]
Weights = Literal["imagenet", "none"] | Path


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
        Fields of `STResNetConfig`.
    """

    settings: dict[str, Any]
    passes: int = 1
    epochs: Schedule = ()
    least_steps: int = 0
    steps: Schedule = ()
    network: dict[str, Any] = field(default_factory=dict)
    paper: dict[str, Any] = field(default_factory=dict)


_OFFICIAL = {"bn_moments": "std"}  # what the official code does in all phases, unlike the defaults of `TrainConfig`
# The last version of the code of Feichtenhofer, Pinz and Wildes (NIPS 2016), feichtenhofer/st-resnet at 8b4f284: `STResNet_stage1.m`,
# `STResNet_stage2.m` and the two scripts of `base_streams`. Two things are flowkit's choice, because that code leaves them open: how
# often a schedule's last rate is repeated where the code sets no number of epochs and so trains 300 (all phases but st-resnet), and
# what `FREE_CHOICES` of `flowkit.model.evaluation.official` lists. `paper` is the paper's own schedule (its Table 2) as far as it is
# known: it is recollection and could not be checked against the text. Its motion batch of 256 in three sub-batches of up to 86 is 258
# here, because BN groups are equal.
OFFICIAL: dict[Phase, PhaseRecipe] = {
    "appearance": PhaseRecipe(
        _OFFICIAL | {"batch": 256, "bn_group": 32},
        passes=10,
        epochs=((2, 1e-2), (2, 1e-3), (2, 1e-4)),
        paper={"batch": 256, "bn_group": 8, "schedule": ((10_000, 1e-2), (10_000, 1e-3))},
    ),
    "motion": PhaseRecipe(
        _OFFICIAL | {"batch": 128, "bn_group": 32, "crop": "regular"},
        passes=100,
        epochs=((1, 1e-2), (1, 1e-3), (1, 1e-4), (1, 1e-5)),
        paper={"batch": 258, "bn_group": 86, "schedule": ((30_000, 1e-2), (10_000, 1e-3))},
        network={"motion_dropout": 0.8},
    ),
    "st-resnet": PhaseRecipe(
        _OFFICIAL | {"batch": 128, "bn_group": 4, "num_samples": 5, "tau_min": 5, "tau_max": 15},
        passes=10,
        epochs=((3, 1e-3), (3, 1e-4), (2, 1e-5)),
        paper={"batch": 128, "bn_group": 4, "schedule": ((30_000, 1e-3), (30_000, 1e-4), (20_000, 1e-5))},
    ),
    "st-resnet-star": PhaseRecipe(
        _OFFICIAL | {"batch": 128, "bn_group": 4, "num_samples": 11, "tau_min": 1, "tau_max": 15},
        passes=1,
        epochs=((1, 1e-4), (1, 1e-5)),
        paper={"batch": 128, "bn_group": 4, "schedule": ((2_000, 1e-4), (2_000, 1e-5))},
    ),
}

# A narrow, shallow network, trained from scratch in minutes on a laptop's CPU.
_SMALL = {"decay": "cosine", "bn_momentum": 0.1, "bn_average_first": True}
SMALL: dict[Phase, PhaseRecipe] = {
    "appearance": PhaseRecipe(_SMALL | {"batch": 32, "bn_group": 32, "warmup_steps": 20}, steps=((200, 0.05),)),
    "motion": PhaseRecipe(_SMALL | {"batch": 32, "bn_group": 32, "warmup_steps": 20, "crop": "regular"}, steps=((250, 0.03),)),
    # The loss is a sum over T time steps and two streams, so these rates act like rates 2T times as high.
    "st-resnet": PhaseRecipe(
        _SMALL | {"batch": 16, "bn_group": 16, "warmup_steps": 5, "num_samples": 5, "tau_min": 1, "tau_max": 15}, steps=((100, 0.004),)
    ),
    "st-resnet-star": PhaseRecipe(
        _SMALL | {"batch": 16, "bn_group": 16, "warmup_steps": 2, "num_samples": 11, "tau_min": 1, "tau_max": 15}, steps=((25, 0.002),)
    ),
}
# The full-width network on users' own lists, which are mostly much shorter than UCF101's. Every choice is flowkit's own: steps follow the
# list, but are never too few to learn (the official schedule gives ST-ResNet* 4 steps for 213 videos). Batches are smaller than the
# official ones, and so are rates, which rise and fall smoothly: at 0.01 the motion stream has spikes (benchmarks/README.md). Its dropout is
# mild, because with the official 0.8 it stays at chance on so few videos. The rates of the ST phases, times the 5 or 4 outputs of a stream
# over which the loss is a sum, are a little below those of the base streams.
_OWN = {"decay": "cosine", "bn_momentum": 0.1, "bn_average_first": True, "warmup_steps": 20}
OWN: dict[Phase, PhaseRecipe] = {
    "appearance": PhaseRecipe(_OWN | {"batch": 32, "bn_group": 32}, epochs=((30, 0.005),), least_steps=300),
    "motion": PhaseRecipe(
        _OWN | {"batch": 32, "bn_group": 32, "crop": "regular"}, epochs=((60, 0.003),), least_steps=600, network={"motion_dropout": 0.2}
    ),
    "st-resnet": PhaseRecipe(
        _OWN | {"batch": 16, "bn_group": 8, "num_samples": 5, "tau_min": 1, "tau_max": 15}, epochs=((15, 0.0005),), least_steps=300
    ),
    "st-resnet-star": PhaseRecipe(
        _OWN | {"batch": 16, "bn_group": 4, "num_samples": 11, "tau_min": 1, "tau_max": 15}, epochs=((5, 0.00025),), least_steps=150
    ),
}
RECIPES: dict[RecipeName, dict[Phase, PhaseRecipe]] = {"official": OFFICIAL, "own": OWN, "small": SMALL}

_CROP = 224 / 256  # side of the mean crop, as a share of the frame's short side
_SMALL_INPUT_SIZE_LIMIT = 112
_MEMORIES = 3  # after 1 / bn_momentum steps this many times, 5 % of the older running moments are left


def small_network(short_side: int) -> dict[str, Any]:
    """Return the small recipe's network for frames of this short side, px: it sees 7/8 of it, at most 112 px, a multiple of 8."""
    input_size = min(round(short_side * _CROP / 8) * 8, _SMALL_INPUT_SIZE_LIMIT)
    return {"base_width": 16, "stage_units": (2, 2, 2, 2), "input_size": max(input_size, 32)}


_NETWORK_KEYS = {item.name for item in fields(STResNetConfig)} - {"num_classes"}
_STREAM_KEYS = {
    "depth",
    "stage_units",
    "base_width",
    "input_size",
    "stride_in_1x1",
    "stem_pool",
    "rgb_offset",
    "head_pool",
    "motion_dropout",
}
TWO_STREAM_KEYS = _NETWORK_KEYS - _STREAM_KEYS  # injection and time, which base streams do not have
SAME_IN_ALL_PHASES = ("depth", "stage_units", "base_width", "stride_in_1x1", "stem_pool", "rgb_offset")
_PHASE_KEYS = {item.name for item in fields(TrainConfig)} - {"phase", "network", "recipe", "weights"}
_TIMING = {"steps", "lr", "warmup_steps", "bn_renewal_steps"}
OVERRIDES = sorted(_NETWORK_KEYS | _PHASE_KEYS | {"steps", "lr"})


def make_configs(
    recipe: RecipeName,
    *,
    num_classes: int,
    num_videos: int,
    short_side: int,
    weights: str = "none",
    paper_schedule: bool = False,
    file: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> dict[Phase, TrainConfig]:
    """Fill in a recipe for a data set.

    Parameters
    ----------
    recipe : {"official", "own", "small"}
        The recipe's name.
    num_classes, num_videos : int
        The size of the training list.
    short_side : int, px
        The short side of the stored frames.
    weights : str
        What the base streams start from, as `TrainConfig` stores it.
    paper_schedule : bool
        Take the paper's batches and iterations, as far as they are known, instead of the official code's; see `OFFICIAL`.
    file : dict
        Values of a file that stand in the place of the recipe's, by the same names as `overrides`, which win over them.
    overrides : dict
        Values to use instead of the recipe's: any field of `TrainConfig` or `STResNetConfig`, ``steps`` (of the phase; the schedule
        is scaled) and ``lr`` (the first learning rate; later ones keep their ratio to it). ``schedule`` excludes ``steps`` and ``lr``.
        A key such as ``motion.batch`` is for one phase only. A `batch` without a `bn_group` takes the largest divisor of the batch
        that is not above the recipe's `bn_group`; a `depth` without `stage_units` means a ResNet of that depth.

    Returns
    -------
    dict from phase to TrainConfig
        In base streams, the settings that only two streams have keep their defaults, so that runs do not differ by them.

    Raises
    ------
    ParameterError
        If a name is unknown or a value out of its range.
    """
    if paper_schedule and recipe != "official":
        raise ParameterError(f"the paper's schedule is one of the recipe official; the recipe {recipe} has one schedule")
    chosen, filed = _by_phase(overrides or {}), _by_phase(file or {})
    configs = {}
    for phase, original in RECIPES[recipe].items():
        entry, own = _with_file(original, filed[phase], chosen[phase], paper_schedule=paper_schedule)
        network = (small_network(short_side) if recipe == "small" else {}) | entry.network
        network |= {"temporal_pool": phase == "st-resnet-star"}
        if "depth" in own:  # the small recipe's stage_units would overrule it
            network.pop("stage_units", None)
        network |= {key: value for key, value in own.items() if key in _NETWORK_KEYS}
        if phase in BASE_PHASES:
            network = {key: value for key, value in network.items() if key in _STREAM_KEYS}
        if phase == "appearance":
            network.pop("motion_dropout", None)
        if phase == "motion":
            network.pop("rgb_offset", None)
        given = entry.settings | (entry.paper if paper_schedule else {})
        settings = given | {key: value for key, value in own.items() if key in _PHASE_KEYS}
        batch = settings["batch"]
        check(is_int(batch) and batch >= 1, "batch", "a whole number of at least 1", batch)
        if "batch" in own and "bn_group" not in own:  # the recipe's BN groups as nearly as the batch allows
            settings["bn_group"] = _fitting_group(given["bn_group"], batch)
        if "schedule" not in own:
            settings["schedule"] = _schedule(entry, batch, num_videos, given.get("schedule"), own)
        if "steps" in own and "warmup_steps" not in own:
            settings["warmup_steps"] = min(settings.get("warmup_steps", 0), own["steps"] // 10)
        made = STResNetConfig(num_classes=num_classes, **network)
        config = TrainConfig(phase=phase, network=made, recipe=recipe, weights=weights, **settings)
        configs[phase] = config if "bn_renewal_steps" in own else replace(config, bn_renewal_steps=renewal_steps(config))
    for key in SAME_IN_ALL_PHASES:
        values = {phase: getattr(config.network, key) for phase, config in configs.items() if (phase, key) != ("motion", "rgb_offset")}
        if len(set(values.values())) > 1:
            raise ParameterError(f"{key} must be the same in all phases, each starts from the one before; got {values}")
    return configs


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


def _with_file(
    entry: PhaseRecipe, file: Mapping[str, Any], own: Mapping[str, Any], *, paper_schedule: bool
) -> tuple[PhaseRecipe, Mapping[str, Any]]:
    """Return a phase's recipe with a file's values in the place of its own, and the user's values with those of the file that last.

    The file's steps, first rate, warm-up and renewal count as the user's, unless the user chooses other steps.
    """
    if not file:
        return entry, own
    given = entry.settings | (entry.paper if paper_schedule else {})
    settings = given | {key: value for key, value in file.items() if key in _PHASE_KEYS - _TIMING}
    if "batch" in file and "bn_group" not in file and is_int(file["batch"]):
        settings["bn_group"] = _fitting_group(given["bn_group"], file["batch"])
    network = {"stage_units": None} if "depth" in file else {}
    network = entry.network | network | {key: value for key, value in file.items() if key in _NETWORK_KEYS}
    timing = {key: value for key, value in file.items() if key in _TIMING}
    if "schedule" in own:
        timing.pop("steps", None)
        timing.pop("lr", None)
    if own.keys() & {"schedule", "steps"}:
        timing.pop("bn_renewal_steps", None)
    if "steps" in own:
        settings |= {"warmup_steps": timing.pop("warmup_steps")} if "warmup_steps" in timing else {}
    return replace(entry, settings=settings, network=network, paper={}), {**timing, **own}


def _fitting_group(most: int, batch: int) -> int:
    """Return the largest divisor of a batch that is not above `most`."""
    return next(size for size in range(most, 0, -1) if batch % size == 0)


def renewal_steps(config: TrainConfig) -> int:
    """Return for how many steps a phase renews its running moments by default.

    Notes
    -----
    The running moments remember about ``3 / bn_momentum`` steps, which is 95 % of them. If the last learning rate of the schedule lasts
    for fewer, they are in part those of weights that have changed a lot since, and ``1 / bn_momentum`` further batches replace them.
    """
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


def _schedule(entry: PhaseRecipe, batch: int, num_videos: int, fixed: Schedule | None, own: Mapping[str, Any]) -> Schedule:
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


def _by_phase(overrides: Mapping[str, Any]) -> dict[Phase, dict[str, Any]]:
    """Sort ``key`` and ``phase.key`` into one dictionary per phase; ``phase.key`` wins."""
    chosen: dict[Phase, dict[str, Any]] = {phase: {} for phase in PHASES}
    for for_all in (True, False):
        for name, value in overrides.items():
            phase, _, key = name.rpartition(".")
            if key not in OVERRIDES or (phase and phase not in PHASES):
                raise ParameterError(f"no setting {name!r}; there are {', '.join(OVERRIDES)}, each also as PHASE.NAME")
            if (not phase) == for_all:
                for name_of_phase in [p for p in PHASES if phase in ("", p)]:
                    chosen[name_of_phase][key] = value
    for phase in [p for p in PHASES if "schedule" in chosen[p]]:
        for key in ("steps", "lr"):
            if f"{phase}.{key}" in overrides or (key in overrides and f"{phase}.schedule" not in overrides):
                raise ParameterError(f"schedule already sets steps and learning rates; leave out {key}")
            chosen[phase].pop(key, None)  # given for all phases, but this one has its own schedule
    return chosen
