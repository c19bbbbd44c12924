"""What decides how a phase is trained (standard library only)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from flowkit.errors import ParameterError
from flowkit.model.settings.checks import brief_repr, check, check_choices, is_int, is_number
from flowkit.model.settings.network_config import NetworkConfig, StreamName
from flowkit.model.settings.network_kinds import network_from_dict

Phase = str  # the name of a phase; `flowkit.model.systems.registry` knows all of them
Crop = Literal["borders25", "regular", "uniform", "none"]
Corners = Literal["four", "diagonal"]
Decay = Literal["steps", "cosine"]
TauDrawn = Literal["clip", "sub_batch"]
BnMoments = Literal["std", "variance"]
Balance = Literal["none", "sampling", "weights"]
Select = Literal["last", "best"]
Schedule = tuple[tuple[int, float], ...]  # (steps, learning rate), one after the other

RENAMED_RECIPES = {"paper": "official"}  # it was named for the paper, and has always been the official code's
_PHASE_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")  # it names a folder


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what one phase learns from its data; stored in every checkpoint.

    Parameters
    ----------
    phase : str
        The name of the phase, such as ``st-resnet``: small letters, digits and hyphens.
    network : NetworkConfig
        The kind of network that is trained, and its architecture; for a residual network, `STResNetConfig`.
    recipe : str
        The recipe these settings come from.
    weights : str
        What the base streams start from: ``imagenet``, ``none``, or ``sha256:`` and a file's digest.
    seed : int
        Every random draw is a function of the seed, the phase, the step and the position in the batch.
    num_samples : int
        T, the frames (and flow stacks) of a training clip.
    tau_min, tau_max : int, frames
        The range of the distance between neighbouring samples.
    tau_drawn : {"clip", "sub_batch"}
        Draw the distance for each clip, or once for all clips that share batch statistics, as the official code does
        (getBatchWrapper_rgbflow.m:31-33).
    batch : int, videos
        Videos per step.
    bn_group : int, videos
        Videos that share batch statistics; gradients are summed over ``batch / bn_group`` of these sub-batches.
    schedule : tuple of (int, float)
        Numbers of steps, one after the other, and the learning rate of each.
    decay : {"steps", "cosine"}
        ``steps`` follows the schedule. ``cosine`` goes from the first learning rate towards 0 over all steps.
    warmup_steps : int
        Steps over which the learning rate rises to its value.
    momentum, weight_decay : float
        Settings of SGD, in [0, 1].
    bn_momentum : float
        The weight of a step's moments in batch normalisation's running moments, in [0, 1].
    bn_average_first : bool
        Start the running moments as a plain average (momentum ``1/(step+1)`` until that falls below `bn_momentum`).
    bn_moments : {"std", "variance"}
        Average standard deviations, as the official code does (MatConvNet, bnorm_cpu.cpp:50-53), or variances, as PyTorch does.
    bn_renewal_steps : int
        After the last step, replace the running moments by the plain mean over the batches of this many further steps, with the final
        weights. 0 keeps the running moments of training.
    crop : {"borders25", "regular", "uniform", "none"}
        Random crops: near the borders with sides of 0.75 to 1.25 times 224/256; at one of five places with sides of 256, 224, 192 or
        168 of 256; anywhere, with 112/128 of the height and 112/171 of the width, as C3D's code; or the whole frame.
    corners : {"four", "diagonal"}
        ``diagonal``: `borders25` takes only two opposite corners, as the official code does (cnn_get_im_flow_batch.m:55-62).
    flip : bool
        Mirror half of the clips.
    balance : {"none", "sampling", "weights"}
        What makes up for classes of uneven size: nothing; ``sampling`` draws videos so that all classes are equally frequent; ``weights``
        multiplies the loss of a video by the inverse frequency of its class, with mean 1 over the training videos. A class without a
        training video is never drawn either way.
    select : {"last", "best"}
        Which weights a phase ends with: those of its last step, or those that had the best accuracy on the validation videos.
    skip_cuts : bool
        Draw no sample whose flow stack, or whose clip of consecutive frames, lies across a cut, and leave out videos that have no other.
    validation_steps : int
        The number of steps between two measurements on the validation videos, if there are any. 0: see `validation_interval`.

    Raises
    ------
    ParameterError
        If a value is out of its range.

    Examples
    --------
    >>> from flowkit.model import STResNetConfig, TrainConfig
    >>> network = STResNetConfig(num_classes=5, base_width=4, input_size=32)
    >>> config = TrainConfig("motion", network, recipe="my own", batch=8, bn_group=4, schedule=((200, 0.01), (100, 0.001)))
    >>> config.num_steps, config.num_sub_batches
    (300, 2)
    >>> config.learning_rate(199), config.learning_rate(200)
    (0.01, 0.001)
    """

    phase: Phase
    network: NetworkConfig
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
    bn_moments: BnMoments = "variance"
    bn_renewal_steps: int = 0
    crop: Crop = "borders25"
    corners: Corners = "four"
    flip: bool = True
    balance: Balance = "none"
    select: Select = "last"
    validation_steps: int = 0
    skip_cuts: bool = False

    __repr__ = brief_repr

    def __post_init__(self) -> None:
        named = isinstance(self.phase, str) and _PHASE_NAME.fullmatch(self.phase) is not None
        check(named, "phase", "a name of small letters, digits and hyphens", self.phase)
        check_choices(self)
        for name, least in {
            "batch": 1,
            "bn_group": 1,
            "num_samples": 1,
            "tau_min": 1,
            "tau_max": 1,
            "warmup_steps": 0,
            "seed": 0,
            "bn_renewal_steps": 0,
            "validation_steps": 0,
        }.items():
            value = getattr(self, name)
            check(is_int(value) and value >= least, name, f"a whole number of at least {least}", value)
        check(self.tau_max >= self.tau_min, "tau_max", f"at least tau_min ({self.tau_min})", self.tau_max)
        check(self.batch % self.bn_group == 0, "batch", f"a multiple of bn_group ({self.bn_group})", self.batch)
        check(self.bn_group * self.num_samples > 1, "bn_group", "at least 2 where T is 1 (batch statistics of one frame are none)", 1)
        check(isinstance(self.skip_cuts, bool), "skip_cuts", "true or false", self.skip_cuts)
        for name in ("momentum", "bn_momentum", "weight_decay"):
            value = getattr(self, name)
            check(is_number(value) and 0 <= value <= 1, name, "in [0, 1]", value)
        try:
            schedule = tuple((steps, float(rate)) for steps, rate in self.schedule)
        except (TypeError, ValueError):
            schedule = ()
        good = schedule and all(is_int(steps) and steps >= 1 and 0 <= rate < math.inf for steps, rate in schedule)
        check(bool(good), "schedule", "pairs of steps and learning rate", self.schedule)
        object.__setattr__(self, "schedule", schedule)

    @property
    def streams(self) -> tuple[StreamName, ...]:
        """The streams that the network reads and gives scores for."""
        return self.network.streams_of(self.phase)

    @property
    def num_outputs(self) -> int:
        """T', the time steps for which each stream has an output of a training clip."""
        return self.network.num_outputs(self.phase, self.num_samples)

    @property
    def num_steps(self) -> int:
        """Number of steps of the phase."""
        return sum(steps for steps, _ in self.schedule)

    @property
    def num_sub_batches(self) -> int:
        """Sub-batches of one step: the groups of videos that share batch statistics."""
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
        """Make a configuration from what `to_dict` returned; an unknown name raises `ParameterError`."""
        unknown = sorted(set(values) - {item.name for item in fields(cls)})
        if unknown:
            raise ParameterError(f"unknown training settings: {', '.join(unknown)}")
        try:
            recipe = RENAMED_RECIPES.get(values["recipe"], values["recipe"])
            return cls(**{**values, "recipe": recipe, "network": network_from_dict(values["network"])})
        except (KeyError, TypeError, AttributeError) as cause:
            raise ParameterError(f"training settings are incomplete: {cause}") from cause
