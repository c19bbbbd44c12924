"""VGG streams: VGG-M-2048 and VGG-16 over frames or stacks of flow, under torchvision's parameter names.

Frames are passed as (N, C, H, W). At the size of a training crop the head is fully connected; on larger frames it slides over the maps
as a convolution, and the logits of its positions are averaged.

References
----------
K. Simonyan, A. Zisserman, "Two-Stream Convolutional Networks for Action Recognition in Videos", NIPS 2014; K. Chatfield et al.,
"Return of the Devil in the Details", BMVC 2014 (VGG-M-2048).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from flowkit.errors import ParameterError
from flowkit.model.foreign.backbones import VGG, Naming
from flowkit.model.networks.family import PhaseNetwork
from flowkit.model.networks.layers.dropout import GroupedDropout
from flowkit.model.settings.network import NUM_CHANNELS, NUM_RGB_CHANNELS
from flowkit.model.settings.network_config import StreamName
from flowkit.model.settings.vgg import VggConfig

CLASSIFIER_STD = 0.01
IDENTITY_NOISE = 0.2
FLOW_GAIN = 6.0  # on generated videos, RGB has a root mean square of 0.53 in the units of the input, and flow one of 0.083


class VggStream(nn.Module):
    """One VGG network in two parts, convolutions and head, as the networks that join streams need it.

    Parameters
    ----------
    config : VggConfig
        The architecture.
    in_channels : int
        3 for RGB, 2L for a stack of L flow fields.
    second_lrn : bool
        Whether the second convolution of VGG-M is followed by a local response normalisation; the motion network of the two-stream paper
        has none there, to save memory.
    checkpoint_activations : bool
        Keep only the input of each block of convolutions for the backward pass and compute the rest again.

    Notes
    -----
    Pools round up, as Caffe's do, in both networks. VGG-M needs it, or its first fully connected layer would not fit; VGG-16 on crops of
    224 px has the same maps either way, which makes it torchvision's.
    """

    naming: Naming = VGG

    def __init__(self, config: VggConfig, in_channels: int, *, second_lrn: bool = True, checkpoint_activations: bool = False) -> None:
        super().__init__()
        self.config = config
        self.in_channels = in_channels
        self.checkpoint_activations = checkpoint_activations
        self.features = nn.Sequential(*_layers(config, in_channels, second_lrn=second_lrn))
        pools = [place for place, layer in enumerate(self.features, start=1) if isinstance(layer, nn.MaxPool2d)]
        # Every pool but the last ends a block.
        self._blocks = tuple(pairwise([0, *pools[:-1], len(self.features) - 1]))
        (first, second), window = config.hidden, config.head_window
        self.classifier = nn.Sequential(
            *(nn.Linear(config.channels * window**2, first), nn.ReLU(), GroupedDropout(config.dropout[0])),
            *(nn.Linear(first, second), nn.ReLU(), GroupedDropout(config.dropout[1])),
            nn.Linear(second, config.num_classes),
        )
        self.reset_parameters()

    @property
    def conv1(self) -> nn.Conv2d:
        """The first convolution."""
        return cast("nn.Conv2d", self.features[0])

    @property
    def fc(self) -> nn.Linear:
        """The last layer, which gives the logits."""
        return cast("nn.Linear", self.classifier[-1])

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new weights: as He et al. (normal, fan-in), N(0, 0.01^2) for the classifier, and zero biases.

        Notes
        -----
        There is no batch normalisation that would make up for a signal that is small or alike for all frames, hence two exceptions.
        He's weights keep the size of a signal that enters with about unit size, so the first convolution of a stream of flow is
        multiplied by `FLOW_GAIN`, and a convolution behind a local response normalisation by what that divides small values by. And the
        convolutions of VGG-16 that keep the number of channels begin as the identity plus `IDENTITY_NOISE` times He's weights: the
        network starts as a shallow one, which learns sooner. Simonyan and Zisserman trained a shallower network first, for the same
        reason; layers that begin as the identity are those of Chen et al., "Net2Net", ICLR 2016.
        """
        factor = 1.0 if self.in_channels == NUM_RGB_CHANNELS else FLOW_GAIN
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, nn.LocalResponseNorm):
                    factor = module.k**module.beta
                elif isinstance(module, (nn.Conv2d, nn.Linear)):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                    nn.init.zeros_(cast("Tensor", module.bias))
                    module.weight.mul_(factor)
                    factor = 1.0
                    if self.config.backbone == "vgg-16" and isinstance(module, nn.Conv2d) and module.in_channels == module.out_channels:
                        module.weight.mul_(IDENTITY_NOISE).add_(nn.init.dirac_(torch.empty_like(module.weight)))
        self.reset_classifier(generator)

    def reset_classifier(self, generator: torch.Generator | None = None) -> None:
        """Draw a new classifier: weights from N(0, 0.01^2), zero biases."""
        nn.init.normal_(self.fc.weight, std=CLASSIFIER_STD, generator=generator)
        nn.init.zeros_(self.fc.bias)

    def shifted(self, frames: Tensor) -> Tensor:
        """Return normalised frames without `rgb_offset`, or stacks of flow without their mean, as the first convolution sees them."""
        if self.in_channels != NUM_RGB_CHANNELS:
            return without_mean_flow(frames) if self.config.without_mean else frames
        return frames - frames.new_tensor(self.config.rgb_offset)[:, None, None] if any(self.config.rgb_offset) else frames

    def maps(self, frames: Tensor) -> Tensor:
        """Return the last maps before the last pool, after their ReLU: (N, C, H, W) to (N, channels, h, w)."""
        frames = self.shifted(frames)
        for start, end in self._blocks:
            if self.checkpoint_activations and torch.is_grad_enabled():
                run = partial(self._run, start, end)
                frames = checkpoint(run, frames, use_reentrant=False, preserve_rng_state=False)
            else:
                frames = self._run(start, end, frames)
        return frames

    def pool(self, maps: Tensor) -> Tensor:
        """Apply the last pool: (N, channels, h, w) to the maps that the head receives."""
        return cast("Tensor", self.features[-1](maps))

    def hidden(self, pooled: Tensor) -> Tensor:
        """Return the second fully connected layer, averaged over the positions of the head: (N, channels, h, w) to (N, D).

        The mean is taken before the classifier, which is linear: the logits are the same, for less work.
        """
        x = slide(cast("nn.Linear", self.classifier[0]), pooled, self.config.head_window)
        return cast("Tensor", self.classifier[1:6](x).mean(1))

    def forward(self, frames: Tensor) -> Tensor:
        """Classify frames (N, C, H, W), each side at least the training crop's: logits (N, num_classes)."""
        return cast("Tensor", self.fc(self.hidden(self.pool(self.maps(frames)))))

    def _run(self, start: int, end: int, x: Tensor) -> Tensor:
        for layer in self.features[start:end]:
            x = layer(x)
        return x


class VggSingleStream(PhaseNetwork):
    """A VGG network that classifies each frame, or each flow stack, of a clip separately.

    Its parameters are torchvision's after the stream's name: ``appearance.features.0.weight``, ``appearance.classifier.6.weight``.

    Parameters
    ----------
    config : VggConfig
        The architecture.
    stream : {"appearance", "motion"}
        Whether the network classifies frames or stacks of flow.
    checkpoint_activations : bool
        Trade computation for memory; see `VggStream`.

    Examples
    --------
    A narrow VGG-M on two clips of three frames:

    >>> import torch
    >>> from flowkit.model.networks.vgg import VggSingleStream
    >>> from flowkit.model.settings.vgg import VggConfig
    >>> network = VggSingleStream(VggConfig(num_classes=5, width=0.125, input_size=64), "appearance").eval()
    >>> with torch.inference_mode():
    ...     logits = network(torch.randn(2, 3, 3, 64, 64))
    >>> logits.shape
    torch.Size([2, 3, 5])
    """

    def __init__(self, config: VggConfig, stream: StreamName, *, checkpoint_activations: bool = False) -> None:
        super().__init__()
        if stream not in NUM_CHANNELS:
            raise ParameterError(f"stream must be appearance or motion, got {stream!r}")
        self.config = config
        self.stream_name: StreamName = stream
        self.add_module(stream, vgg_stream(config, stream, checkpoint_activations=checkpoint_activations))

    @property
    def streams(self) -> tuple[StreamName, ...]:
        """The streams whose logits the network returns."""
        return (self.stream_name,)

    @property
    def stream(self) -> VggStream:
        """The network itself."""
        return cast("VggStream", getattr(self, self.stream_name))

    @property
    def classifiers(self) -> dict[StreamName, nn.Linear]:
        """The last layer of each stream; its input are the stream's features."""
        return {self.stream_name: self.stream.fc}

    def forward(self, clips: Tensor) -> Tensor:
        """Classify every frame or stack of clips (B, T, 3 or 2L, H, W): logits (B, T, num_classes)."""
        check_clips(clips, self.stream_name, self.config.input_size)
        return cast("Tensor", self.stream(clips.flatten(0, 1)).unflatten(0, clips.shape[:2]))

    def stream_logits(self, rgb: Tensor | None, flow: Tensor | None) -> dict[str, Tensor]:
        """Return the logits of its stream, by the stream's name."""
        return {self.stream_name: self(rgb if self.stream_name == "appearance" else flow)}


def vgg_stream(config: VggConfig, stream: StreamName, *, checkpoint_activations: bool = False) -> VggStream:
    """Return the VGG network of a stream: the motion network has other input channels, and no second normalisation."""
    return VggStream(config, NUM_CHANNELS[stream], second_lrn=stream == "appearance", checkpoint_activations=checkpoint_activations)


def without_mean_flow(flow: Tensor) -> Tensor:
    """Subtract from each component of each field its mean over the pixels: float tensor (..., H, W), of the same shape.

    The two-stream networks of Simonyan and Zisserman see flow in this way, which removes a camera's translation. It is done with what the
    network sees, after cropping.
    """
    return flow - flow.mean((-2, -1), keepdim=True)


def slide(layer: nn.Linear, maps: Tensor, window: int) -> Tensor:
    """Apply a fully connected layer to each window of maps (N, C, h, w), as a convolution does: (N, positions, units)."""
    if maps.shape[2:] == (window, window):
        return cast("Tensor", layer(maps.flatten(1)))[:, None]
    filters = layer.weight.view(-1, maps.shape[1], window, window)
    return functional.conv2d(maps, filters, layer.bias).flatten(2).transpose(1, 2)


def check_clips(clips: Tensor, stream: StreamName, input_size: int) -> None:
    """Raise `ParameterError` unless clips are (B, T, C, H, W) with the stream's channels, and no smaller than a training crop."""
    channels = NUM_CHANNELS[stream]
    if clips.ndim != 5 or clips.shape[2] != channels or clips.shape[1] == 0 or min(clips.shape[3:]) < input_size:
        raise ParameterError(
            f"the {stream} stream takes clips of shape (B, T, {channels}, H, W) with T >= 1 and sides of at least {input_size} px, "
            f"got {tuple(clips.shape)}"
        )


def _layers(config: VggConfig, in_channels: int, *, second_lrn: bool) -> Iterator[nn.Module]:
    """Yield the layers before the head. A normalisation that is left out keeps its place, so that the names do not depend on it."""
    size, alpha, beta, k = config.lrn
    num_lrn = 0
    for layer in config.layers:
        if layer.kind == "conv":
            yield nn.Conv2d(in_channels, layer.channels, layer.kernel, layer.stride, layer.padding)
            yield nn.ReLU(inplace=True)
            in_channels = layer.channels
        elif layer.kind == "lrn":
            num_lrn += 1
            yield nn.LocalResponseNorm(size, alpha, beta, k) if second_lrn or num_lrn == 1 else nn.Identity()
        else:
            yield nn.MaxPool2d(layer.kernel, layer.stride, ceil_mode=True)
