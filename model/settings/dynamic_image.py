"""The settings of networks on dynamic images (standard library only)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from flowkit.model.settings.checks import check, is_int, is_number
from flowkit.model.settings.network import STResNetConfig

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
