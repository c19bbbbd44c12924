"""Two-stream fusion: motion enters appearance after the last convolution, through one 3D convolution and a max pool over space and time.

References
----------
C. Feichtenhofer, A. Pinz, A. Zisserman, "Convolutional Two-Stream Network Fusion for Video Action Recognition", CVPR 2016,
arXiv:1604.06573; its code, feichtenhofer/twostreamfusion.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowkit.errors import ParameterError
from flowkit.model.foreign.backbones import VGG
from flowkit.model.foreign.state_dicts import PretrainedWeights
from flowkit.model.networks.family import NetworkFamily, PhaseNetwork, State
from flowkit.model.networks.layers.conv3d import Conv3d
from flowkit.model.networks.layers.temporal_conv import by_clip
from flowkit.model.networks.resnet import temporal_max_pool
from flowkit.model.networks.stresnet import StreamLogits
from flowkit.model.networks.vgg import VggStream, check_clips, vgg_stream
from flowkit.model.networks.weights import check_streams, initialise_from_streams
from flowkit.model.settings.fusion3d import FusionConfig
from flowkit.model.settings.network_config import STREAMS, StreamName, pooled_length
from flowkit.model.settings.training import TrainConfig

KERNEL = 3  # of the fusion, in time and in space
_SIGMA = 1.0  # of the Gaussian that the fusion starts from
_POOL_STRIDE = 2  # of the max pool over time


class FusionNetwork(PhaseNetwork):
    """Two VGG streams with a head each; the appearance head sees both.

    Parameters
    ----------
    config : FusionConfig
        The architecture.
    checkpoint_activations : bool
        Trade computation for memory in the streams; see `VggStream`.

    Notes
    -----
    Let a and m be the last maps of the appearance and of the motion stream, after their ReLU, over T frames and stacks. The appearance
    head classifies ``pool(relu(W * [a, m] + b))``, where W is a convolution of 3 x 3 x 3 (time and space), and the motion head
    ``pool(m)``. The pool takes the maximum over space as the VGG network does, and over 5 frames at stride 2: T = 5 gives one time step.

    Examples
    --------
    >>> import torch
    >>> from flowkit.model.networks.fusion3d import FusionNetwork
    >>> from flowkit.model.settings.fusion3d import FusionConfig
    >>> network = FusionNetwork(FusionConfig(num_classes=5, width=0.125, input_size=64)).eval()
    >>> with torch.inference_mode():
    ...     logits = network(torch.randn(2, 5, 3, 64, 64), torch.randn(2, 5, 20, 64, 64))
    >>> logits.appearance.shape, logits.motion.shape
    (torch.Size([2, 1, 5]), torch.Size([2, 1, 5]))
    """

    streams: tuple[StreamName, ...] = ("appearance", "motion")

    def __init__(self, config: FusionConfig, *, checkpoint_activations: bool = False) -> None:
        super().__init__()
        self.config = config
        self.appearance = vgg_stream(config, "appearance", checkpoint_activations=checkpoint_activations)
        self.motion = vgg_stream(config, "motion", checkpoint_activations=checkpoint_activations)
        self.fusion = Conv3d(2 * config.channels, config.channels, KERNEL, padding=KERNEL // 2)
        self.reset_fusion()
        for stream in (self.appearance, self.motion):
            stream.features.requires_grad_(config.train_trunks)

    @property
    def classifiers(self) -> dict[StreamName, nn.Linear]:
        """The last layer of each stream; its input are the stream's features."""
        return {"appearance": self.appearance.fc, "motion": self.motion.fc}

    def reset_fusion(self) -> None:
        """Give the fusion its first weights; see `initial_kernel`."""
        with torch.no_grad():
            self.fusion.weight.copy_(initial_kernel(self.config.channels, self.config.shares))
            nn.init.zeros_(self.fusion.bias)  # type: ignore[arg-type]

    def forward(self, rgb: Tensor, flow: Tensor) -> StreamLogits:
        """Classify clips by both heads.

        Parameters
        ----------
        rgb : float tensor, shape (B, T, 3, H, W)
            Normalised frames.
        flow : float tensor, shape (B, T, 2L, H, W)
            Normalised stacks of L = 10 flow fields.

        Returns
        -------
        StreamLogits
            Two tensors of shape (B, T', num_classes), with T' = 1 for up to 5 frames, else (T - 5) // 2 + 1.

        Raises
        ------
        ParameterError
            If the shapes are not these.
        """
        check_clips(rgb, "appearance", self.config.input_size)
        check_clips(flow, "motion", self.config.input_size)
        if rgb.shape[:2] != flow.shape[:2] or rgb.shape[3:] != flow.shape[3:]:
            raise ParameterError(f"rgb and flow must agree in clips, frames and size, got {tuple(rgb.shape)} and {tuple(flow.shape)}")
        num_frames = rgb.shape[1]
        with self._trunks():
            maps_a, maps_m = self.appearance.maps(rgb.flatten(0, 1)), self.motion.maps(flow.flatten(0, 1))
        fused = self.fuse(maps_a, maps_m, num_frames)
        return StreamLogits(*(self._head(*each, num_frames) for each in ((self.appearance, fused), (self.motion, maps_m))))

    def stream_logits(self, rgb: Tensor | None, flow: Tensor | None) -> dict[str, Tensor]:
        """Return the logits of both heads, by their streams' names."""
        assert rgb is not None
        assert flow is not None
        return self(rgb, flow)._asdict()  # type: ignore[no-any-return]

    def fuse(self, maps_a: Tensor, maps_m: Tensor, num_frames: int) -> Tensor:
        """Join the maps of both streams, each (B*T, C, h, w), appearance first; return the same shape."""
        joined = by_clip(torch.cat([maps_a, maps_m], 1), num_frames).transpose(1, 2)  # (B, 2C, T, h, w)
        return functional.relu(self.fusion(joined)).transpose(1, 2).flatten(0, 1)

    def _trunks(self) -> AbstractContextManager[object]:
        return nullcontext() if self.config.train_trunks else torch.no_grad()

    def _head(self, stream: VggStream, maps: Tensor, num_frames: int) -> Tensor:
        # The maximum over a box is that over space, then over time; each rounds at its end as it does alone.
        pooled = temporal_max_pool(stream.pool(maps), num_frames, _POOL_STRIDE)
        return by_clip(stream.fc(stream.hidden(pooled)), pooled_length(num_frames, _POOL_STRIDE))


class FusionFamily(NetworkFamily):
    """`FusionNetwork`, which starts from two trained streams."""

    classifier = VGG.classifier

    def build(self, config: TrainConfig, *, checkpoint_activations: bool = False) -> FusionNetwork:
        """Return the network of a phase, on the CPU."""
        assert isinstance(config.network, FusionConfig)
        return FusionNetwork(config.network, checkpoint_activations=checkpoint_activations)

    def initialise(self, network: PhaseNetwork, weights: PretrainedWeights | None, *, generator: torch.Generator) -> None:
        """Draw random weights for both streams; the fusion has its initial kernel."""
        assert isinstance(network, FusionNetwork)
        for stream in (network.appearance, network.motion):
            stream.reset_parameters(generator)
        network.reset_fusion()

    def start(self, network: PhaseNetwork, states: Mapping[str, State], *, generator: torch.Generator) -> None:
        """Start from both streams, or from another fusion network."""
        assert isinstance(network, FusionNetwork)
        streams = _by_stream(states)
        if streams:
            initialise_from_streams(network, *(streams[stream] for stream in STREAMS))
        else:
            super().start(network, states, generator=generator)

    def check_start(self, network: PhaseNetwork, states: Mapping[str, State]) -> None:
        """Check whether a network can start from streams, of which one may still be missing, or from another fusion network."""
        assert isinstance(network, FusionNetwork)
        streams = _by_stream(states)
        if streams:
            check_streams(network, **{f"{stream}_state": state for stream, state in streams.items()})
        else:
            super().check_start(network, states)


def _by_stream(states: Mapping[str, State]) -> dict[str, State]:
    """Return the weights of streams by their names; none if these are weights of other networks."""
    found: dict[str, State] = {stream: state for name, state in states.items() for stream in STREAMS if name.endswith(f"-{stream}")}
    return found if len(found) == len(states) else {}


def initial_kernel(channels: int, shares: tuple[float, float]) -> Tensor:
    """Return the weights from which the fusion starts: a share of each stream's own channel, smoothed over time and space.

    Parameters
    ----------
    channels : int
        C, the channels of each stream's maps.
    shares : tuple of 2 float
        The shares of appearance and motion.

    Returns
    -------
    float32 tensor, shape (C, 2C, 3, 3, 3)
        Entry (i, i) has the first share, entry (i, C + i) the second, times a Gaussian of sigma 1 that sums to 1; all else is 0.

    Examples
    --------
    >>> from flowkit.model.networks.fusion3d import initial_kernel
    >>> initial_kernel(2, (0.25, 0.75)).sum((2, 3, 4))
    tensor([[0.2500, 0.0000, 0.7500, 0.0000],
            [0.0000, 0.2500, 0.0000, 0.7500]])
    """
    taps = torch.exp(-(torch.arange(-(KERNEL // 2), KERNEL // 2 + 1, dtype=torch.float64) ** 2) / (2 * _SIGMA**2))
    taps /= taps.sum()
    box = taps[:, None, None] * taps[:, None] * taps
    mixing = torch.cat([share * torch.eye(channels, dtype=torch.float64) for share in shares], 1)
    return (mixing[:, :, None, None, None] * box).float()
