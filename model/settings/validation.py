"""Validation as settings: which training videos are held out, and how often they are measured (standard library only)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from flowkit.errors import ParameterError
from flowkit.model.settings.checks import check, is_int, is_number
from flowkit.model.settings.training import TrainConfig

_FEWEST_SAMPLES = 5
_MOST_TIMES = 10  # in a phase
_COST_SHARE = 1 / 4  # of the work of training
_WHOLE_FRAME = 340 * 256 / 224**2  # work for a complete frame, by that for a crop
_BACKWARD = 2  # work of a backward pass, by that of a forward pass


@dataclass(frozen=True)
class Validation:
    """Which training videos are held out: a share of each class, or groups. Exactly one of the two is given.

    Parameters
    ----------
    fraction : float, optional
        The share of each class's training videos, in (0, 1).
    groups : tuple of int
        The numbers of groups: ``_gNN_`` in the names of videos, which UCF101 gives to videos of one actor or scene.

    Raises
    ------
    ParameterError
        If both or neither are given, or a value is out of its range.

    Examples
    --------
    >>> str(Validation(groups=(1, 2)))
    'groups 1,2'
    >>> str(Validation(fraction=0.2))
    'fraction 0.2'
    """

    fraction: float | None = None
    groups: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(self.groups))
        if (self.fraction is None) == (not self.groups):
            raise ParameterError("validation takes either a fraction or groups")
        good = self.fraction is None or (is_number(self.fraction) and 0 < self.fraction < 1)
        check(good, "validation", "a fraction above 0 and below 1", self.fraction)
        good = all(is_int(number) and number >= 0 for number in self.groups) and len(set(self.groups)) == len(self.groups)
        check(good, "validation_groups", "different whole numbers of at least 0", self.groups)

    def __str__(self) -> str:
        return f"groups {','.join(map(str, self.groups))}" if self.groups else f"fraction {self.fraction:g}"

    def to_dict(self) -> dict[str, Any]:
        """Return what is given as built-in types."""
        return {"groups": list(self.groups)} if self.groups else {"fraction": self.fraction}


def validation_samples(config: TrainConfig) -> int:
    """Return how many frames of a video a measurement during training sees: as many as a training clip has, at least 5."""
    return max(_FEWEST_SAMPLES, config.num_samples)


def validation_interval(config: TrainConfig, *, num_trained: int, num_held_out: int) -> int:
    """Return the number of steps between two measurements on the validation videos.

    Parameters
    ----------
    config : TrainConfig
        The settings of the phase; its `validation_steps` is the answer unless that is 0.
    num_trained, num_held_out : int
        The numbers of videos that are trained on and held out.

    Notes
    -----
    By default one pass over the training videos lies between two measurements; but there are at most ten in a phase, and they cost at
    most about a quarter of the work of training, counted in frames that pass through the network.

    Examples
    --------
    >>> from flowkit.model.settings.recipes import make_configs
    >>> motion = make_configs("small", num_classes=6, num_videos=58, short_side=64)["motion"]
    >>> motion.num_steps, validation_interval(motion, num_trained=58, num_held_out=14)
    (250, 25)
    """
    if config.validation_steps:
        return config.validation_steps
    epoch = math.ceil(num_trained / config.batch)
    step_cost = (1 + _BACKWARD) * config.batch * config.num_samples
    cost = 2 * _WHOLE_FRAME * num_held_out * validation_samples(config)  # twice, because each frame is seen mirrored as well
    cost += config.bn_renewal_steps * config.batch * config.num_samples
    return max(epoch, math.ceil(config.num_steps / _MOST_TIMES), math.ceil(cost / (_COST_SHARE * step_cost)))
