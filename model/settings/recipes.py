"""How each phase is trained: the settings of a phase, and the recipes that fill them in, as data (standard library only)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from flowkit.errors import ParameterError
from flowkit.model.settings.network import STResNetConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

Phase = Literal["appearance", "motion", "st-resnet", "st-resnet-star"]
Crop = Literal["borders25", "regular", "none"]
Corners = Literal["four", "diagonal"]
Decay = Literal["steps", "cosine"]
TauDrawn = Literal["clip", "sub_batch"]
RecipeName = Literal["paper", "small"]
Schedule = tuple[tuple[int, float], ...]  # (steps, learning rate), one after the other

PHASES: tuple[Phase, ...] = get_args(Phase)
BASE_PHASES: tuple[Phase, ...] = ("appearance", "motion")
STREAMS_OF: dict[Phase, tuple[str, ...]] = {phase: (phase,) if phase in BASE_PHASES else ("appearance", "motion") for phase in PHASES}


@dataclass(frozen=True)
class TrainConfig:
    """All that decides what one phase learns from its data; stored in every checkpoint.

    Parameters
    ----------
    phase : {"appearance", "motion", "st-resnet", "st-resnet-star"}
    network : STResNetConfig
    recipe : str
        The recipe these settings come from.
    weights : str
        What the base streams start from: ``imagenet``, ``none``, or ``sha256:`` and a file's digest.
    seed : int
        Every random draw is a function of it, the phase, the step and the place in the batch.
    num_samples : int
        T, frames (and flow stacks) of a training clip.
    tau_min, tau_max : int, frames
        Range of the distance between them.
    tau_drawn : {"clip", "sub_batch"}
        Draw it for each clip, or one for all clips that share batch statistics, as the official code does.
    batch : int, videos
        Videos of one step.
    bn_group : int, videos
        Videos that share batch statistics; gradients are summed over ``batch / bn_group`` of these sub-batches.
    schedule : tuple of (int, float)
        Steps and the learning rate they have, one after the other.
    decay : {"steps", "cosine"}
        ``steps``: the schedule as it stands. ``cosine``: from the first learning rate towards 0 over all steps.
    warmup_steps : int
        Steps over which the learning rate rises to its value.
    momentum, weight_decay : float
        Of SGD.
    bn_momentum : float
        Share of a step's moments in the running ones.
    bn_average_first : bool
        Start the running moments as a plain average (momentum ``1/(step+1)`` until that is below `bn_momentum`), for short runs.
    crop : {"borders25", "regular", "none"}
        Random crops: sides of .75-1.25 near the borders, {256, 224, 192, 168}/256 at 5 places, or the whole frame.
    corners : {"four", "diagonal"}
        ``diagonal``: `borders25` takes only two opposite corners, as the official code does.
    flip : bool
        Mirror half of the clips.

    Raises
    ------
    ParameterError
        If a value is out of its range.
    """

    phase: Phase
    network: STResNetConfig
    recipe: str
    batch: int
    bn_group: int
    schedule: Schedule
    weights: str = "none"
    seed: int = 0
    num_samples: int = 1
    tau_min: int = 1
    tau_max: int = 1
    tau_drawn: TauDrawn = "clip"
    decay: Decay = "steps"
    warmup_steps: int = 0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    bn_momentum: float = 0.05
    bn_average_first: bool = False
    crop: Crop = "borders25"
    corners: Corners = "four"
    flip: bool = True

    def __post_init__(self) -> None:
        for name, kind in {"phase": Phase, "decay": Decay, "tau_drawn": TauDrawn, "crop": Crop, "corners": Corners}.items():
            _check(getattr(self, name) in get_args(kind), name, f"one of {', '.join(get_args(kind))}", getattr(self, name))
        for name, least in {"batch": 1, "bn_group": 1, "num_samples": 1, "tau_min": 1, "tau_max": 1, "warmup_steps": 0, "seed": 0}.items():
            value = getattr(self, name)
            _check(_is_int(value) and value >= least, name, f"a whole number of at least {least}", value)
        _check(self.tau_max >= self.tau_min, "tau_max", f"at least tau_min ({self.tau_min})", self.tau_max)
        _check(self.batch % self.bn_group == 0, "batch", f"a multiple of bn_group ({self.bn_group})", self.batch)
        _check(self.bn_group * self.num_samples > 1, "bn_group", "at least 2 where T is 1 (batch statistics of one frame are none)", 1)
        for name in ("momentum", "bn_momentum", "weight_decay"):
            value = getattr(self, name)
            _check(_is_number(value) and 0 <= value <= 1, name, "in [0, 1]", value)
        for name in ("flip", "bn_average_first"):
            _check(isinstance(getattr(self, name), bool), name, "true or false", getattr(self, name))
        try:
            schedule = tuple((steps, float(rate)) for steps, rate in self.schedule)
        except (TypeError, ValueError):
            schedule = ()
        good = schedule and all(_is_int(steps) and steps >= 1 and 0 <= rate < math.inf for steps, rate in schedule)
        _check(bool(good), "schedule", "pairs of steps and learning rate", self.schedule)
        object.__setattr__(self, "schedule", schedule)

    @property
    def num_steps(self) -> int:
        """Steps of the whole phase."""
        return sum(steps for steps, _ in self.schedule)

    @property
    def num_sub_batches(self) -> int:
        """Sub-batches of one step: the batch divided into groups that share batch statistics."""
        return self.batch // self.bn_group

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step, 0-based."""
        rate, end = self.schedule[-1][1], 0
        for steps, value in self.schedule:
            end += steps
            if step < end:
                rate = value
                break
        if self.decay == "cosine":
            done = max(step - self.warmup_steps, 0) / max(self.num_steps - self.warmup_steps, 1)
            rate = self.schedule[0][1] * (1 + math.cos(math.pi * min(done, 1.0))) / 2
        return rate * min(1.0, (step + 1) / (self.warmup_steps + 1))

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as built-in types."""
        return asdict(self) | {"network": self.network.to_dict(), "schedule": [list(part) for part in self.schedule]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Make a config from what `to_dict` returned; unknown names raise `ParameterError`."""
        unknown = sorted(set(values) - {item.name for item in fields(cls)})
        if unknown:
            raise ParameterError(f"unknown training settings: {', '.join(unknown)}")
        try:
            return cls(**{**values, "network": STResNetConfig.from_dict(values["network"])})
        except (KeyError, TypeError) as cause:
            raise ParameterError(f"training settings are incomplete: {cause}") from cause


@dataclass(frozen=True)
class PhaseRecipe:
    """One phase in one recipe: what `TrainConfig` needs, with a schedule that fits lists of any length.

    Parameters
    ----------
    settings : dict
        Fields of `TrainConfig`.
    passes : int
        Passes over the training videos that make one epoch.
    epochs : tuple of (int, float)
        Epochs and the learning rate they have. An epoch is ``ceil(videos * passes / batch)`` steps.
    steps : tuple of (int, float)
        The same as fixed numbers of steps: the paper's counts; used instead of `epochs` where those are empty.
    network : dict
        Fields of `STResNetConfig`.
    """

    settings: dict[str, Any]
    passes: int = 1
    epochs: Schedule = ()
    steps: Schedule = ()
    network: dict[str, Any] = field(default_factory=dict)


# specs/stresnet.md, section 11. `epochs` are the official code's, `steps` the paper's iteration counts.
PAPER: dict[Phase, PhaseRecipe] = {
    "appearance": PhaseRecipe(
        {"batch": 256, "bn_group": 32},
        passes=10,
        epochs=((2, 1e-2), (2, 1e-3), (2, 1e-4)),
        steps=((10_000, 1e-2), (10_000, 1e-3)),
    ),
    "motion": PhaseRecipe(
        {"batch": 128, "bn_group": 32, "crop": "regular"},
        passes=100,
        epochs=((1, 1e-2), (1, 1e-3), (1, 1e-4), (1, 1e-5)),
        steps=((30_000, 1e-2), (10_000, 1e-3)),
        network={"motion_dropout": 0.8},
    ),
    "st-resnet": PhaseRecipe(
        {"batch": 128, "bn_group": 4, "num_samples": 5, "tau_min": 5, "tau_max": 15},
        passes=10,
        epochs=((3, 1e-3), (3, 1e-4), (2, 1e-5)),
        steps=((30_000, 1e-3), (30_000, 1e-4), (20_000, 1e-5)),
    ),
    "st-resnet-star": PhaseRecipe(
        {"batch": 128, "bn_group": 4, "num_samples": 11, "tau_min": 1, "tau_max": 15},
        passes=1,
        epochs=((1, 1e-4), (1, 1e-5)),
        steps=((2_000, 1e-4), (2_000, 1e-5)),
    ),
}

# A narrow, shallow network from scratch, in minutes on a laptop's CPU.
_SMALL = {"decay": "cosine", "bn_momentum": 0.1, "bn_average_first": True}
SMALL: dict[Phase, PhaseRecipe] = {
    "appearance": PhaseRecipe(_SMALL | {"batch": 32, "bn_group": 32, "warmup_steps": 20}, steps=((200, 0.05),)),
    "motion": PhaseRecipe(_SMALL | {"batch": 32, "bn_group": 32, "warmup_steps": 20, "crop": "regular"}, steps=((250, 0.03),)),
    # The loss is a sum over time and streams, so these rates are to be read times 2T.
    "st-resnet": PhaseRecipe(
        _SMALL | {"batch": 16, "bn_group": 16, "warmup_steps": 5, "num_samples": 5, "tau_min": 1, "tau_max": 15}, steps=((100, 0.004),)
    ),
    "st-resnet-star": PhaseRecipe(
        _SMALL | {"batch": 16, "bn_group": 16, "warmup_steps": 2, "num_samples": 11, "tau_min": 1, "tau_max": 15}, steps=((25, 0.002),)
    ),
}
RECIPES: dict[RecipeName, dict[Phase, PhaseRecipe]] = {"paper": PAPER, "small": SMALL}

_PAPER_CROP = 224 / 256  # side of a mean crop as a share of the frame's short side
_SMALL_INPUT_SIZE_LIMIT = 112


def small_network(short_side: int) -> dict[str, Any]:
    """Return the small recipe's network for frames of this short side, px: it sees 7/8 of it, at most 112 px, in eights."""
    input_size = min(round(short_side * _PAPER_CROP / 8) * 8, _SMALL_INPUT_SIZE_LIMIT)
    return {"base_width": 16, "stage_units": (2, 2, 2, 2), "input_size": max(input_size, 32)}


_NETWORK_KEYS = {item.name for item in fields(STResNetConfig)} - {"num_classes"}
_STREAM_KEYS = {"depth", "stage_units", "base_width", "input_size", "stride_in_1x1", "head_pool", "motion_dropout"}
TWO_STREAM_KEYS = _NETWORK_KEYS - _STREAM_KEYS  # which base streams do not have: injection and time
_SAME_IN_ALL_PHASES = ("depth", "stage_units", "base_width", "stride_in_1x1")
_PHASE_KEYS = {item.name for item in fields(TrainConfig)} - {"phase", "network", "recipe", "weights"}
OVERRIDES = sorted(_NETWORK_KEYS | _PHASE_KEYS | {"steps", "lr"})


def make_configs(
    recipe: RecipeName,
    *,
    num_classes: int,
    num_videos: int,
    short_side: int,
    weights: str = "none",
    paper_steps: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> dict[Phase, TrainConfig]:
    """Fill in a recipe for a data set.

    Parameters
    ----------
    recipe : {"paper", "small"}
    num_classes, num_videos : int
        Of the training list.
    short_side : int, px
        Of the stored frames.
    weights : str
        As `TrainConfig.weights`.
    paper_steps : bool
        Take the paper's iteration counts where the recipe has both those and the official code's epochs.
    overrides : dict
        Values to use instead of the recipe's: any field of `TrainConfig` or `STResNetConfig`, ``steps`` (of the whole phase; the
        schedule is scaled) and ``lr`` (the first; the later ones keep their ratio), neither beside a ``schedule`` that says both. A key
        ``motion.batch`` is for that phase alone.
        A `batch` without a `bn_group` takes the largest group up to the recipe's that divides it; a `depth` without `stage_units` is
        that of a ResNet.

    Returns
    -------
    dict from phase to TrainConfig
        Base streams leave the settings that only two streams have at their defaults, so that these do not tell runs apart.

    Raises
    ------
    ParameterError
        If a name is unknown or a value out of its range.
    """
    chosen = _by_phase(overrides or {})
    configs = {}
    for phase, entry in RECIPES[recipe].items():
        own = chosen[phase]
        network = (small_network(short_side) if recipe == "small" else {}) | entry.network
        network |= {"temporal_pool": phase == "st-resnet-star"}
        if "depth" in own:  # which the units of the small recipe would overrule
            network.pop("stage_units", None)
        network |= {key: value for key, value in own.items() if key in _NETWORK_KEYS}
        if phase in BASE_PHASES:
            network = {key: value for key, value in network.items() if key in _STREAM_KEYS}
        if phase == "appearance":
            network.pop("motion_dropout", None)
        settings = entry.settings | {key: value for key, value in own.items() if key in _PHASE_KEYS}
        batch = settings["batch"]
        _check(_is_int(batch) and batch >= 1, "batch", "a whole number of at least 1", batch)
        if "batch" in own and "bn_group" not in own:  # the recipe's groups as nearly as the batch allows
            settings["bn_group"] = next(size for size in range(entry.settings["bn_group"], 0, -1) if batch % size == 0)
        if "schedule" not in own:
            settings["schedule"] = _schedule(entry, batch, num_videos, paper_steps, own)
        if "steps" in own and "warmup_steps" not in own:
            settings["warmup_steps"] = min(settings.get("warmup_steps", 0), own["steps"] // 10)
        made = STResNetConfig(num_classes=num_classes, **network)
        configs[phase] = TrainConfig(phase=phase, network=made, recipe=recipe, weights=weights, **settings)
    for key in _SAME_IN_ALL_PHASES:
        values = {phase: getattr(config.network, key) for phase, config in configs.items()}
        if len(set(values.values())) > 1:
            raise ParameterError(f"{key} must be the same in all phases, each starts from the one before; got {values}")
    return configs


def scaled(schedule: Schedule, num_steps: int) -> Schedule:
    """Return the schedule with its parts shortened or stretched alike, so that it has `num_steps` steps."""
    total, done, parts, seen = sum(steps for steps, _ in schedule), 0, [], 0
    for steps, rate in schedule:
        seen += steps
        end = (2 * num_steps * seen + total) // (2 * total)
        if end > done:
            parts.append((end - done, rate))
        done = end
    return tuple(parts)


def _schedule(entry: PhaseRecipe, batch: int, num_videos: int, paper_steps: bool, own: Mapping[str, Any]) -> Schedule:
    """Return a phase's steps and learning rates for a list of this length, with the user's ``steps`` and ``lr``."""
    epoch = math.ceil(num_videos * entry.passes / batch)
    schedule = entry.steps if paper_steps or not entry.epochs else tuple((count * epoch, rate) for count, rate in entry.epochs)
    if "steps" in own:
        _check(_is_int(own["steps"]) and own["steps"] >= 1, "steps", "a whole number of at least 1", own["steps"])
        schedule = scaled(schedule, own["steps"])
    if "lr" in own:
        _check(_is_number(own["lr"]) and own["lr"] >= 0, "lr", "a number of at least 0", own["lr"])
        first = schedule[0][1]
        schedule = tuple((steps, rate / first * own["lr"]) for steps, rate in schedule)
    return schedule


def _by_phase(overrides: Mapping[str, Any]) -> dict[Phase, dict[str, Any]]:
    """Sort ``key`` and ``phase.key`` into one dict a phase; the phase's own wins."""
    chosen: dict[Phase, dict[str, Any]] = {phase: {} for phase in PHASES}
    for whole in (True, False):
        for name, value in overrides.items():
            phase, _, key = name.rpartition(".")
            if key not in OVERRIDES or (phase and phase not in PHASES):
                raise ParameterError(f"no setting {name!r}; there are {', '.join(OVERRIDES)}, each also as PHASE.NAME")
            if (not phase) == whole:
                for one in [p for p in PHASES if phase in ("", p)]:
                    chosen[one][key] = value
    for one in [p for p in PHASES if "schedule" in chosen[p]]:
        for key in ("steps", "lr"):
            if f"{one}.{key}" in overrides or (key in overrides and f"{one}.schedule" not in overrides):
                raise ParameterError(f"schedule says steps and learning rates already; leave out {key}")
            chosen[one].pop(key, None)  # said for all phases, of which this one has a schedule of its own
    return chosen


def _check(good: bool, name: str, must_be: str, got: object) -> None:
    if not good:
        raise ParameterError(f"{name} must be {must_be}, got {got!r}")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
