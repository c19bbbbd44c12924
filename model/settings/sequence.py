"""The settings of networks over the features of a video's frames (standard library only)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from flowkit.model.settings.checks import check, check_choices, is_int, is_number
from flowkit.model.settings.network import STResNetConfig

SequenceKind = Literal["resnet-lstm", "resnet-pooling"]
_FEATURES_PER_WIDTH = 32  # 2048 of a ResNet whose first convolution has 64 channels


@dataclass(frozen=True)
class SequenceConfig(STResNetConfig):
    """The architecture of a `SequenceNetwork`; stored in every checkpoint. Its ResNet has the settings of `STResNetConfig`.

    Parameters
    ----------
    kind : {"resnet-lstm", "resnet-pooling"}
        ``resnet-lstm``: stacked LSTM layers over the features of the frames, and a classifier at every step. ``resnet-pooling``: the
        maximum of the features over time, and a hidden layer.
    hidden : int
        Cells of each LSTM layer, or units of the hidden layer.
    layers : int
        LSTM layers, one on the other; 1 to 16.
    late_pooling : bool
        Apply the hidden layer to the features of each frame, and take the maximum of its outputs over time.
    dropout : float
        Dropout after each LSTM layer, or after the hidden layer, in [0, 1).

    Raises
    ------
    ParameterError
        If a value is not one of those listed.

    References
    ----------
    J. Y.-H. Ng, M. Hausknecht, S. Vijayanarasimhan, O. Vinyals, R. Monga, G. Toderici, "Beyond Short Snippets: Deep Networks for Video
    Classification", CVPR 2015.

    Examples
    --------
    >>> from flowkit.model.settings.sequence import SequenceConfig
    >>> config = SequenceConfig(num_classes=101, kind="resnet-pooling")
    >>> config.num_features
    2048
    >>> SequenceConfig.from_dict(config.to_dict()) == config
    True
    """

    kinds: ClassVar[tuple[str, ...]] = get_args(SequenceKind)
    learns_from_features: ClassVar[bool] = True
    kind: SequenceKind = "resnet-lstm"
    hidden: int = 512
    layers: int = 5
    late_pooling: bool = False
    dropout: float = 0.5

    __repr__ = STResNetConfig.__repr__

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self)
        for name, most in {"hidden": 1 << 14, "layers": 16}.items():
            value = getattr(self, name)
            check(is_int(value) and 1 <= value <= most, name, f"a whole number of 1 to {most}", value)
        check(is_number(self.dropout) and 0 <= self.dropout < 1, "dropout", "in [0, 1)", self.dropout)

    @property
    def is_lstm(self) -> bool:
        """Whether the features pass through an LSTM; else their maximum over time is taken."""
        return self.kind == "resnet-lstm"

    @property
    def num_features(self) -> int:
        """D, the length of a frame's feature vector: 2048 for ResNet-50."""
        return self.base_width * _FEATURES_PER_WIDTH

    @property
    def feature_settings(self) -> tuple[str, ...]:
        """Settings that change such features but no tensor, beside `kept_settings`; the phase from which it starts must have the same."""
        return ("input_size", "head_pool")

    def temporal_reach(self, phase: str) -> int:
        """Return 0: no time step but the whole video has a score."""
        return 0

    def temporal_stride(self, phase: str) -> int:
        """Return 0: time is not pooled with a stride."""
        return 0

    def num_outputs(self, phase: str, num_samples: int) -> int:
        """Return T', the number of time steps for which there are scores in training: all of an LSTM, one of a maximum."""
        return num_samples if self.is_lstm else 1

    def has_dropout(self, phase: str) -> bool:
        """Return whether the network draws random numbers in training."""
        return bool(self.dropout)

    @property
    def has_batch_norm(self) -> bool:
        """Return that no running moments change: the ResNet does not learn."""
        return False

    @property
    def frame_cost(self) -> float:
        """The memory for the activations of one frame in training, in units of a ResNet-50 that sees 224 px: only features are seen."""
        return 0.01

    def described(self, phase: str) -> dict[str, str]:
        """Return in words what a report says of the network, under ``network`` and further names."""
        place = "after" if self.late_pooling else "before"
        head = f"LSTM, {self.layers} x {self.hidden} cells" if self.is_lstm else f"maximum {place} a layer of {self.hidden} units"
        return super().described(phase) | {"over time": head, "dropout": f"{self.dropout:g}"}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SequenceConfig:
        """Make a configuration from what `to_dict` returned; an unknown name raises `ParameterError`."""
        made = super().from_dict(values)
        assert isinstance(made, cls)
        return made
