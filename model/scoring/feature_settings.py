"""Which features are computed of which frames: plain settings (standard library and NumPy only)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ParameterError
from flowkit.model.data.sampling import protocol_centres, valid_centres

Layer = Literal["pool5", "logits"]
Frames = Literal["protocol", "all"]


@dataclass(frozen=True)
class FeatureSettings:
    """What is computed of each video.

    Parameters
    ----------
    layer : {"pool5", "logits"}
        The features before the classifier (2,048 for each stream of a ResNet-50), or the logits.
    frames : {"protocol", "all"}
        The 25 frames of the test protocol, or all frames that can be the centre of a stack of flow: 5 to N-6.
    stride : int
        With ``all``: every how many frames.
    average : bool
        One vector for each video, the mean over its time steps, instead of one for each time step.
    mirror : bool
        Whether features are the mean of those of a video and of its mirror image, as in the test protocol.
    window : int
        With ``all``: how many time steps are computed together; more need more memory. The features do not depend on it.

    Raises
    ------
    ParameterError
        If a value is out of its range.

    Examples
    --------
    >>> from flowkit.model.scoring.feature_settings import FeatureSettings
    >>> FeatureSettings(frames="all", stride=4).centres(30)
    array([ 5,  9, 13, 17, 21])
    """

    layer: Layer = "pool5"
    frames: Frames = "protocol"
    stride: int = 1
    average: bool = False
    mirror: bool = False
    window: int = 32

    def __post_init__(self) -> None:
        for name, choices in (("layer", get_args(Layer)), ("frames", get_args(Frames))):
            if getattr(self, name) not in choices:
                raise ParameterError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        for name in ("stride", "window"):
            if getattr(self, name) < 1:
                raise ParameterError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.stride > 1 and self.frames == "protocol":
            raise ParameterError("stride chooses among all frames; the protocol's 25 frames have none")

    def centres(self, num_frames: int) -> NDArray[np.int64]:
        """Return the centre frames of a video's samples.

        Raises
        ------
        ParameterError
            If the video has fewer than 11 frames.
        """
        if self.frames == "protocol":
            return protocol_centres(num_frames)
        return np.array(valid_centres(num_frames)[:: self.stride])

    @property
    def most(self) -> int | None:
        """The most time steps that are computed together; None for all samples of a video."""
        return None if self.frames == "protocol" else self.window

    def to_dict(self) -> dict[str, Any]:
        """Return what decides the features, as built-in types."""
        return {name: value for name, value in asdict(self).items() if name != "window"}
