"""The settings of networks over the features of a video's frames (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from flowkit.model.settings.checks import brief_repr, check, check_choices, from_record, is_int, is_number, to_record

SequenceKind = Literal["lstm", "conv_pool", "late_pool"]


@dataclass(frozen=True)
class SequenceConfig:
    """The architecture of a `SequenceNetwork`; stored in every checkpoint.

    Parameters
    ----------
    num_classes : int
        Number of classes, at least 1.
    num_features : int
        D, the length of a frame's feature vector: 2048 for ResNet-50, 4096 for VGG-16.
    kind : {"lstm", "conv_pool", "late_pool"}
        ``lstm``: stacked LSTM layers, and a classifier at every step. ``conv_pool``: the maximum over time of the features, then a
        hidden layer. ``late_pool``: a hidden layer on every frame, then the maximum over time.
    hidden : int
        Cells of each LSTM layer, or units of the hidden layer.
    layers : int
        LSTM layers, one on the other; 1 to 16.
    dropout : float
        Dropout before the classifier, and between LSTM layers, in [0, 1).

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
    >>> config = SequenceConfig(num_classes=101, kind="conv_pool")
    >>> SequenceConfig.from_dict(config.to_dict()) == config
    True
    """

    num_classes: int
    num_features: int = 2048
    kind: SequenceKind = "lstm"
    hidden: int = 512
    layers: int = 5
    dropout: float = 0.5

    __repr__ = brief_repr

    def __post_init__(self) -> None:
        check_choices(self)
        for name, most in {"num_classes": 1 << 20, "num_features": 1 << 16, "hidden": 1 << 14, "layers": 16}.items():
            value = getattr(self, name)
            check(is_int(value) and 1 <= value <= most, name, f"a whole number of 1 to {most}", value)
        check(is_number(self.dropout) and 0 <= self.dropout < 1, "dropout", "in [0, 1)", self.dropout)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as built-in types."""
        return to_record(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SequenceConfig:
        """Make a configuration from what `to_dict` returned; an unknown name raises `ParameterError`."""
        return from_record(cls, values)
