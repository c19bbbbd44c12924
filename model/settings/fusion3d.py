"""The settings of two VGG streams that are joined by a convolution and a max pool over space and time (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, cast, get_args

from flowkit.model.settings.checks import check, numbers
from flowkit.model.settings.vgg import VggConfig, VggKind

FusionKind = Literal["vgg-m-fusion", "vgg-16-fusion"]
_SUFFIX = "-fusion"


@dataclass(frozen=True)
class FusionConfig(VggConfig):
    """The architecture of a `FusionNetwork`; stored in every checkpoint. Both streams have these settings of `VggConfig`.

    Parameters
    ----------
    kind : {"vgg-m-fusion", "vgg-16-fusion"}
        Which of the two VGG networks both streams are.
    shares : tuple of 2 float
        What the fusion starts from: how much of the appearance map and of the motion map its result has, each at least 0. Activations
        of the motion stream are about a third as large, hence 0.25 and 0.75.
    train_trunks : bool
        Whether the convolutions of the two streams learn too. In the official code they do not, and only the fusion and the fully
        connected layers of both heads learn.

    Raises
    ------
    ParameterError
        If a value is not one of those listed.

    Examples
    --------
    >>> from flowkit.model.settings.fusion3d import FusionConfig
    >>> config = FusionConfig(num_classes=101, kind="vgg-16-fusion", dropout=(0.85, 0.85))
    >>> config.shares
    (0.25, 0.75)
    >>> FusionConfig.from_dict(config.to_dict()) == config
    True
    """

    kinds: ClassVar[tuple[str, ...]] = get_args(FusionKind)
    kind: FusionKind = "vgg-m-fusion"  # type: ignore[assignment]  # the names of other networks than those of its base
    shares: tuple[float, float] = (0.25, 0.75)
    train_trunks: bool = False

    __repr__ = VggConfig.__repr__

    def __post_init__(self) -> None:
        super().__post_init__()
        shares = numbers(self.shares, 2)
        check(bool(shares) and all(share >= 0 for share in shares), "shares", "two numbers of at least 0", self.shares)
        object.__setattr__(self, "shares", shares)

    @property
    def backbone(self) -> VggKind:
        """Which of the two VGG networks both streams are."""
        return cast("VggKind", self.kind.removesuffix(_SUFFIX))

    def temporal_reach(self, phase: str) -> int:
        """Return that the 3D convolution sees one sample before and one after a time step."""
        return 1

    def temporal_stride(self, phase: str) -> int:
        """Return the stride of the max pooling over time."""
        return 2

    @property
    def frame_cost(self) -> float:
        """The memory for the activations of one frame and stream in training; without gradients, those of the trunks are not kept."""
        return super().frame_cost * (1.0 if self.train_trunks else 0.1)
