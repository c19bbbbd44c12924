"""Dynamic images: several frames as one picture by approximate rank pooling, and a ResNet that classifies such pictures of a video.

References
----------
H. Bilen, B. Fernando, E. Gavves, A. Vedaldi, S. Gould, "Dynamic Image Networks for Action Recognition", CVPR 2016; its code,
hbilen/dynamic-image-nets.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from flowkit.errors import ParameterError
from flowkit.model.foreign.state_dicts import PretrainedWeights
from flowkit.model.networks.family import PhaseNetwork, State
from flowkit.model.networks.layers.temporal_conv import by_clip
from flowkit.model.networks.residual import ResidualFamily
from flowkit.model.networks.resnet import ResidualStream
from flowkit.model.networks.weights import check_pretrained, initialise_single_stream
from flowkit.model.settings.dynamic_image import DynamicImageConfig
from flowkit.model.settings.network import NUM_RGB_CHANNELS
from flowkit.model.settings.network_config import StreamName
from flowkit.model.settings.training import TrainConfig

GREY_LEVELS = 255 * 0.226  # in one unit of a network's normalised input
IN_CHANNELS: dict[StreamName, int] = {"appearance": NUM_RGB_CHANNELS, "motion": 2}  # RGB; u and v


def rank_coefficients(num_frames: int) -> Tensor:
    """Return what approximate rank pooling multiplies each frame by: float64 (N,), with sum 0 for N > 1.

    Notes
    -----
    Frame i of N has ``a_i = sum over t = i..N of (2t - N - 1) / t``; a single frame has 1.

    Examples
    --------
    >>> from flowkit.model.networks.dynamic_image import rank_coefficients
    >>> rank_coefficients(3)
    tensor([-1.3333,  0.6667,  0.6667], dtype=torch.float64)
    """
    if num_frames == 1:
        return torch.ones(1, dtype=torch.float64)
    t = torch.arange(1, num_frames + 1, dtype=torch.float64)
    return ((2 * t - num_frames - 1) / t).flip(0).cumsum(0).flip(0)


def rank_pool(frames: Tensor) -> Tensor:
    """Return the dynamic image of frames by approximate rank pooling.

    Parameters
    ----------
    frames : float tensor, shape (..., N, C, H, W)
        Frames in their order.

    Returns
    -------
    float tensor, shape (..., C, H, W)
        The sum of ``a_i`` times frame i, computed from the differences of neighbouring frames: where nothing changes it is exactly 0,
        which the weighted sum of the frames is not. A single frame is its own dynamic image.

    Examples
    --------
    >>> import torch
    >>> from flowkit.model.networks.dynamic_image import rank_pool
    >>> static = torch.rand(1, 3, 4, 4).expand(10, 3, 4, 4)
    >>> float(rank_pool(static).abs().max())
    0.0
    """
    num_frames = frames.shape[-4]
    if num_frames == 1:
        return frames[..., 0, :, :, :]
    steps = -rank_coefficients(num_frames).cumsum(0)[:-1].to(frames)
    differences = frames[..., 1:, :, :, :] - frames[..., :-1, :, :, :]
    return (steps[:, None, None, None] * differences).sum(-4)


def normalise_image(image: Tensor, *, rms: float, limit: float) -> Tensor:
    """Scale pictures to a root mean square and clip them; a picture of zeros stays so.

    Parameters
    ----------
    image : float tensor, shape (..., C, H, W)
        Dynamic images.
    rms, limit : float
        The root mean square over all values of a picture, and the largest absolute value after that, in units of the result.
    """
    exact = image.to(torch.promote_types(image.dtype, torch.float32))  # squares of half precision would overflow
    norm = exact.square().mean((-3, -2, -1), keepdim=True).sqrt().to(image.dtype)
    scaled = image * (rms / torch.where(norm > 0, norm, 1.0))
    return scaled.clamp(-limit, limit)


class DynamicImageNetwork(PhaseNetwork):
    """A ResNet over the dynamic images of a clip; the last maps of all images are joined by their maximum.

    Its parameters are torchvision's after the stream's name, so it starts from the same weights as a base stream.

    Parameters
    ----------
    config : DynamicImageConfig
        The architecture.
    stream : {"appearance", "motion"}
        Whether the images are made of frames or of flow fields.
    checkpoint_activations : bool
        Trade computation for memory; see `ResidualStream`.

    Examples
    --------
    Four images of ten frames each, of two clips:

    >>> import torch
    >>> from flowkit.model.networks.dynamic_image import DynamicImageNetwork
    >>> from flowkit.model.settings.dynamic_image import DynamicImageConfig
    >>> config = DynamicImageConfig(num_classes=5, base_width=4, stage_units=(2, 2, 2, 2), input_size=32)
    >>> network = DynamicImageNetwork(config, "appearance").eval()
    >>> with torch.inference_mode():
    ...     logits = network(torch.randn(2, 4 * 10, 3, 32, 32))
    >>> logits.shape
    torch.Size([2, 1, 5])
    """

    def __init__(self, config: DynamicImageConfig, stream: StreamName, *, checkpoint_activations: bool = False) -> None:
        super().__init__()
        if stream not in IN_CHANNELS:
            raise ParameterError(f"stream must be appearance or motion, got {stream!r}")
        self.config = config
        self.stream_name: StreamName = stream
        self.add_module(
            stream,
            ResidualStream(
                config, IN_CHANNELS[stream], temporal=False, dropout=config.dropout, checkpoint_activations=checkpoint_activations
            ),
        )

    @property
    def streams(self) -> tuple[StreamName, ...]:
        """The streams whose logits the network returns."""
        return (self.stream_name,)

    @property
    def stream(self) -> ResidualStream:
        """The ResNet."""
        return cast("ResidualStream", getattr(self, self.stream_name))

    @property
    def classifiers(self) -> dict[StreamName, nn.Linear]:
        """The last layer of each stream; its input are the stream's features."""
        return {self.stream_name: self.stream.fc}

    def images(self, clips: Tensor) -> Tensor:
        """Return the normalised dynamic images, (B, n, C, H, W), of clips (B, n * N, C, H, W) of N frames per image."""
        config, channels = self.config, IN_CHANNELS[self.stream_name]
        num_images, rest = divmod(clips.shape[1], config.image_frames) if clips.ndim == 5 else (0, 0)
        if clips.ndim != 5 or clips.shape[2] != channels or rest or num_images == 0:
            raise ParameterError(
                f"the {self.stream_name} stream takes clips of shape (B, T, {channels}, H, W) with T a multiple of "
                f"{config.image_frames}, got {tuple(clips.shape)}"
            )
        images = rank_pool(clips.reshape(len(clips), num_images, config.image_frames, *clips.shape[2:]))
        return normalise_image(images, rms=config.image_rms / GREY_LEVELS, limit=config.image_limit / GREY_LEVELS)

    def forward(self, clips: Tensor) -> Tensor:
        """Classify clips, (B, n * N, 3 or 2, H, W), n images of N consecutive frames or fields each: logits (B, 1, num_classes)."""
        images = self.images(clips)
        num_images = images.shape[1]
        x = self.stream.stem(images.flatten(0, 1))
        for stage in range(self.stream.num_stages):
            x = self.stream.unit_a(stage, x, num_images).relu()
            x = self.stream.units_from_b(stage, x, x, num_images)
        return self.stream.head(by_clip(x, num_images).amax(1), 1)

    def stream_logits(self, rgb: Tensor | None, flow: Tensor | None) -> dict[str, Tensor]:
        """Return the logits of its stream, by the stream's name."""
        return {self.stream_name: self(rgb if self.stream_name == "appearance" else flow)}


class DynamicImageFamily(ResidualFamily):
    """`DynamicImageNetwork`; it starts from the same ResNets as the base streams of ST-ResNet."""

    def build(self, config: TrainConfig, *, checkpoint_activations: bool = False) -> DynamicImageNetwork:  # type: ignore[override]
        """Return the network of a phase, on the CPU."""
        assert isinstance(config.network, DynamicImageConfig)
        return DynamicImageNetwork(config.network, config.streams[0], checkpoint_activations=checkpoint_activations)

    def initialise(self, network: PhaseNetwork, weights: PretrainedWeights | None, *, generator: torch.Generator) -> None:
        """Start from a ResNet, or from random weights."""
        assert isinstance(network, DynamicImageNetwork)
        initialise_single_stream(network, weights, generator=generator)

    def check_pretrained(self, network: PhaseNetwork, state: State, source: str) -> None:
        """Check whether a network can start from a ResNet."""
        assert isinstance(network, DynamicImageNetwork)
        check_pretrained(network, state, source)
