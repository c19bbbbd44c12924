"""Which features are computed of which frames or clips of a video, and where these lie."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ParameterError
from flowkit.model.data.clip_frames import clip_frames
from flowkit.model.data.places import Places, centred_places, clip_places, tested_clips
from flowkit.model.data.sampling import protocol_centres, valid_centres
from flowkit.model.settings.network_config import ClipPlan

Layer = Literal["pool5", "fc6", "logits"]
Frames = Literal["protocol", "all"]


@dataclass(frozen=True)
class FeatureSettings:
    """What is computed of each video.

    Parameters
    ----------
    layer : {"pool5", "fc6", "logits"}
        The features before the classifier (2,048 for each stream of a ResNet-50), the first fully connected layer of C3D, or the logits.
    frames : {"protocol", "all"}
        The 25 frames of the test protocol, or all frames that can be the centre of a stack of flow: 5 to N-6.
    stride : int
        With ``all``: every how many frames, or how many frames apart the clips of a network begin that sees clips.
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
        """Return the centre frames of a video's samples, for a network that sees single frames and stacks.

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


@dataclass(frozen=True)
class FeatureSamples:
    """The samples of a video of which features are computed: frames with their stacks of flow, or clips of consecutive frames.

    Parameters
    ----------
    settings : FeatureSettings
        What the user wants.
    plan : ClipPlan, optional
        The clips that the network sees in the place of frames. ``protocol`` then means those of the test, and ``all`` every clip that
        begins at a frame of the video and ends in it, or every `stride`-th.
    has_one_output : bool
        Whether the network joins all clips of a video. Those of the test are then one time step; with ``all``, each clip is by itself.

    Examples
    --------
    >>> from flowkit.model.scoring.feature_settings import FeatureSamples, FeatureSettings
    >>> from flowkit.model.settings.network_config import ClipPlan
    >>> samples = FeatureSamples(FeatureSettings(frames="all", stride=4), ClipPlan(length=16, stride=8, training_stride=1))
    >>> samples.middles(30)  # clips of the frames 0 to 15, 4 to 19, 8 to 23 and 12 to 27
    array([ 8, 12, 16, 20])
    """

    settings: FeatureSettings
    plan: ClipPlan | None = None
    has_one_output: bool = False

    @property
    def is_joined(self) -> bool:
        """Whether all samples of a video give one time step."""
        return self.has_one_output and self.settings.frames == "protocol"

    @property
    def most(self) -> int | None:
        """The most time steps that are computed together; None for all samples of a video."""
        if self.plan is None:
            return self.settings.most
        return None if self.is_joined else self.settings.window

    def middles(self, num_frames: int) -> NDArray[np.int64]:
        """Return the middle frame of each sample of a video; of a clip of an even length, the first frame of its second half.

        Raises
        ------
        ParameterError
            If the video has fewer than 11 frames, and samples are stacks.
        """
        if self.plan is None:
            return self.settings.centres(num_frames)
        return self._clips(num_frames, self.plan)[:, self.plan.length // 2]

    def places(self, num_frames: int, first: int, stop: int) -> Places:
        """Return where the samples `first` to `stop` - 1 of a video lie."""
        if self.plan is None:
            return centred_places(self.settings.centres(num_frames)[first:stop])
        return clip_places(self._clips(num_frames, self.plan)[first:stop], num_frames)

    def _clips(self, num_frames: int, plan: ClipPlan) -> NDArray[np.int64]:
        """Return the frames of each clip."""
        if self.settings.frames == "protocol":
            return tested_clips(num_frames, plan)
        return clip_frames(num_frames, length=plan.length, stride=self.settings.stride)
