"""The settings of C3D, as a frozen dataclass (standard library only)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from flowkit.model.settings.checks import brief_repr, check, check_choices, from_record, is_int, is_number, numbers, to_record
from flowkit.model.settings.network import INPUT_SIZES
from flowkit.model.settings.network_config import ClipPlan, NetworkConfig, View
from flowkit.model.settings.vgg import VALUES_OF_RESNET_50

C3DKind = Literal["c3d", "c3d-scratch"]

# Channels of the convolutions between two pools, and units of the two hidden layers, at width 1.
STAGES: dict[C3DKind, tuple[tuple[int, ...], ...]] = {
    "c3d": ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    "c3d-scratch": ((64,), (128,), (256,), (256,), (256,)),
}
HIDDEN: dict[C3DKind, int] = {"c3d": 4096, "c3d-scratch": 2048}
CLIP_FRAMES = 16
_TEST_STRIDE = 8
_NUM_POOLS = 5


@dataclass(frozen=True)
class C3DConfig(NetworkConfig):
    """The architecture of a `C3DNetwork`; stored in every checkpoint.

    Parameters
    ----------
    num_classes : int
        Number of classes, at least 1.
    kind : {"c3d", "c3d-scratch"}
        The network of eight convolutions for Sports-1M, or that of five which the authors train on UCF101 from scratch.
    width : float
        The channels of each layer, and the units of each hidden layer, as a share of the published ones: above 0, at most 1.
    input_size : int, px
        S, the side of a training crop: 112 in the paper.
    dropout : tuple of 2 float
        Dropout after the first and after the second fully connected layer, in [0, 1).
    view : {"whole", "centre"}
        What C3D sees of a frame in a test: all of it, in its proportions, or as the authors' code the centre of 112 x 112 px of a frame
        that is resized to 128 x 171 px, and in the same ratio for other sizes of crops. ``crop=uniform`` draws such crops in training.

    Raises
    ------
    ParameterError
        If a value is not one of those listed.

    References
    ----------
    D. Tran, L. Bourdev, R. Fergus, L. Torresani, M. Paluri, "Learning Spatiotemporal Features with 3D Convolutional Networks",
    ICCV 2015.

    Examples
    --------
    >>> from flowkit.model.settings.c3d import C3DConfig
    >>> config = C3DConfig(num_classes=101)
    >>> config.map_sizes(112)  # frames and side after each pool
    ((16, 56), (8, 28), (4, 14), (2, 7), (1, 4))
    >>> C3DConfig.from_dict(config.to_dict()) == config
    True
    """

    kinds: ClassVar[tuple[str, ...]] = get_args(C3DKind)
    num_classes: int
    kind: C3DKind = "c3d"
    width: float = 1.0
    input_size: int = 112
    dropout: tuple[float, float] = (0.5, 0.5)
    view: View = "whole"

    __repr__ = brief_repr

    def __post_init__(self) -> None:
        check_choices(self)
        check(is_int(self.num_classes) and self.num_classes >= 1, "num_classes", "a whole number of at least 1", self.num_classes)
        check(is_number(self.width) and 0 < self.width <= 1, "width", "above 0 and at most 1", self.width)
        smallest, largest = INPUT_SIZES
        good = is_int(self.input_size) and smallest <= self.input_size <= largest
        check(good, "input_size", f"a whole number of {smallest} to {largest}", self.input_size)
        rates = numbers(self.dropout, 2)
        check(bool(rates) and all(0 <= rate < 1 for rate in rates), "dropout", "two numbers in [0, 1)", self.dropout)
        object.__setattr__(self, "width", float(self.width))
        object.__setattr__(self, "dropout", rates)

    @property
    def stages(self) -> tuple[tuple[int, ...], ...]:
        """Channels of the convolutions between two pools, at this width."""
        return tuple(tuple(self._narrowed(channels) for channels in stage) for stage in STAGES[self.kind])

    @property
    def hidden(self) -> int:
        """Units of each hidden layer."""
        return self._narrowed(HIDDEN[self.kind])

    @property
    def head_window(self) -> int:
        """Side of the maps that the first fully connected layer receives from a training crop: 4 for 112 px."""
        return self.map_sizes(self.input_size)[-1][1]

    def map_sizes(self, side: int) -> tuple[tuple[int, int], ...]:
        """Return frames and side of the maps after each pool, for clips of 16 frames with this side; halves are rounded up."""
        sizes, frames = [], CLIP_FRAMES
        for pool in range(_NUM_POOLS):
            frames, side = frames if pool == 0 else -(-frames // 2), -(-side // 2)
            sizes.append((frames, side))
        return tuple(sizes)

    @property
    def clip_plan(self) -> ClipPlan:
        """Clips of 16 frames: any in training, all that are 8 frames apart in a test."""
        return ClipPlan(CLIP_FRAMES, _TEST_STRIDE, 1, view=self.view)

    def has_dropout(self, phase: str) -> bool:
        """Return whether the network draws random numbers in training."""
        return any(self.dropout)

    @property
    def frame_cost(self) -> float:
        """The memory for the activations of one clip in training, in units of a frame in a ResNet-50 that sees 224 px."""
        sizes = [(CLIP_FRAMES, self.input_size), *self.map_sizes(self.input_size)]
        values = sum(sum(stage) * frames * side**2 for stage, (frames, side) in zip(self.stages, sizes[:-1], strict=True))
        return values / VALUES_OF_RESNET_50

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as built-in types."""
        return to_record(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> C3DConfig:
        """Make a configuration from what `to_dict` returned; an unknown name raises `ParameterError`."""
        return from_record(cls, values)

    def _narrowed(self, channels: int) -> int:
        return max(round(channels * self.width), 1)
