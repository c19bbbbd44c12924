"""The settings of networks on dynamic images (standard library only)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from flowkit.model.settings.checks import check, is_int, is_number
from flowkit.model.settings.network import STResNetConfig
from flowkit.model.settings.network_config import ClipPlan

_STRIDE, _FIRST_IN_TRAINING, _MOST_IN_TESTS = 6, 2, 20  # frames, and images of a video
# The official code gives a picture of 224 x 224 x 3 the Euclidean norm 6000; this is its root mean square, in grey levels.
PUBLISHED_RMS = 6000 / math.sqrt(3 * 224 * 224)


@dataclass(frozen=True)
class DynamicImageConfig(STResNetConfig):
    """The architecture of a `DynamicImageNetwork`; stored in every checkpoint. Its ResNet has the settings of `STResNetConfig`.

    Parameters
    ----------
    image_frames : int
        Frames (or flow fields) of one dynamic image.
    image_rms : float, grey levels
        The root mean square to which a dynamic image is scaled.
    image_limit : float, grey levels
        Values of the scaled image are clipped to this.
    dropout : float
        Dropout before the classifier, in [0, 1): 0.5 in the official code, and 0.8 for flow.

    Raises
    ------
    ParameterError
        If a value is not one of those listed.

    Examples
    --------
    >>> from flowkit.model.settings.dynamic_image import DynamicImageConfig
    >>> config = DynamicImageConfig(num_classes=101)
    >>> round(config.image_rms * (3 * 224 * 224) ** 0.5)
    6000
    >>> DynamicImageConfig.from_dict(config.to_dict()) == config
    True
    """

    kinds: ClassVar[tuple[str, ...]] = ("dynamic-image",)
    image_frames: int = 10
    image_rms: float = PUBLISHED_RMS
    image_limit: float = 128.0
    dropout: float = 0.5

    __repr__ = STResNetConfig.__repr__

    def __post_init__(self) -> None:
        super().__post_init__()
        check(is_int(self.image_frames) and self.image_frames >= 1, "image_frames", "a whole number of at least 1", self.image_frames)
        for name in ("image_rms", "image_limit"):
            value = getattr(self, name)
            check(is_number(value) and value > 0, name, "above 0", value)
        check(is_number(self.dropout) and 0 <= self.dropout < 1, "dropout", "in [0, 1)", self.dropout)

    @property
    def clip_plan(self) -> ClipPlan:
        """The clips of which images are made: overlapping ones, 20 of a video in a test."""
        return ClipPlan(self.image_frames, _STRIDE, _STRIDE, _FIRST_IN_TRAINING, _MOST_IN_TESTS)

    def temporal_reach(self, phase: str) -> int:
        """Return 0: all images are joined by their maximum."""
        return 0

    def temporal_stride(self, phase: str) -> int:
        """Return 0: time is no axis of the network's maps."""
        return 0

    def num_outputs(self, phase: str, num_samples: int) -> int:
        """Return 1: a video has one score, whatever the number of its images."""
        return 1

    def has_dropout(self, phase: str) -> bool:
        """Return whether the network draws random numbers in training."""
        return bool(self.dropout)

    def kept_settings(self, phase: str) -> tuple[str, ...]:
        """Return the settings that change what the network computes but no tensor; a phase that starts from it must have the same."""
        return ("stride_in_1x1", "stem_pool", "image_frames", "image_rms", "image_limit")

    def adopted(self, its_streams: tuple[str, ...], streams: tuple[str, ...]) -> dict[str, Any]:
        """Return the settings that a network with these streams takes from this one, which has `its_streams`, if it starts from it."""
        names = ("image_frames", "image_rms", "image_limit", "dropout")
        return super().adopted(its_streams, streams) | {name: getattr(self, name) for name in names}

    def described(self, phase: str) -> dict[str, str]:
        """Return in words what a report says of the network, under ``network`` and further names."""
        images = f"of {self.image_frames} frames, root mean square {self.image_rms:.3g} grey levels"
        return super().described(phase) | {"dynamic images": images, "dropout": f"{self.dropout:g}"}

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as built-in types."""
        return {"kind": self.kinds[0], **super().to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DynamicImageConfig:
        """Make a configuration from what `to_dict` returned; an unknown name raises `ParameterError`."""
        made = super().from_dict(values)
        assert isinstance(made, cls)
        return made
