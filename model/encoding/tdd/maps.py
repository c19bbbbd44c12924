"""Feature maps of a video for trajectory-pooled descriptors: dense maps of a VGG-M stream, and two ways to normalise them.

References
----------
L. Wang, Y. Qiao, X. Tang, "Action Recognition with Trajectory-Pooled Deep-Convolutional Descriptors", CVPR 2015; its code, wanglimin/TDD.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowkit.errors import ParameterError
from flowkit.model.networks.vgg import VggStream

MAP_STRIDE = 16  # px of the network's input per cell of a map, from the third convolution on
_CROP_SIDE, _MAP_SIDE = 224, 240  # px: frames at scale 1 have this short side for a network whose training crops have that side
_LEAST = 1e-12  # below this, a maximum is 0


def scaled_size(height: int, width: int, *, input_size: int, scale: float) -> tuple[int, int]:
    """Return height and width, in px, of a frame at a scale, for a network with training crops of `input_size`.

    Notes
    -----
    The authors' networks see crops of 224 px of frames whose short side is 256, and their maps are of frames of 240 x 320 at scale 1.
    Networks with smaller crops see the frame smaller in proportion.

    Examples
    --------
    >>> from flowkit.model.encoding.tdd.maps import scaled_size
    >>> [scaled_size(240, 320, input_size=224, scale=2 ** (half / 2)) for half in (2, 1, 0, -1, -2)]
    [(480, 640), (339, 453), (240, 320), (170, 226), (120, 160)]
    """
    factor = scale * _MAP_SIDE * input_size / (_CROP_SIDE * min(height, width))
    return max(round(height * factor), 1), max(round(width * factor), 1)


def dense_maps(stream: VggStream, frames: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """Return maps of a VGG-M stream that cover the whole of a frame.

    Parameters
    ----------
    stream : VggStream
        A VGG-M stream.
    frames : float tensor, shape (T, C, H, W)
        Normalised frames or stacks, of any size.
    layers : sequence of str
        Which convolutions, ``conv1`` to ``conv5``, after their ReLU.

    Returns
    -------
    dict from str to float tensor, shape (T, channels, h, w)
        Convolutions are padded by half their window, as in the authors' files for this purpose; pools are those of the network.

    Raises
    ------
    ParameterError
        If the network is no VGG-M, or has no such layer.
    """
    convs = [place for place, layer in enumerate(stream.features) if isinstance(layer, nn.Conv2d)]
    names = {place: f"conv{number}" for number, place in enumerate(convs, start=1)}
    unknown = [name for name in layers if name not in names.values()]
    if stream.config.kind != "vgg-m" or unknown:
        raise ParameterError(f"dense maps are those of conv1 to conv5 of a vgg-m, got {', '.join(unknown) or stream.config.kind}")
    x, found = stream.shifted(frames), {}
    for place, layer in enumerate(stream.features):
        if isinstance(layer, nn.Conv2d):
            half = layer.kernel_size[0] // 2
            x = functional.conv2d(x, layer.weight, layer.bias, stride=layer.stride, padding=half).relu()
            if names[place] in layers:
                found[names[place]] = x
            if len(found) == len(set(layers)):
                break
        elif not isinstance(layer, nn.ReLU):
            x = layer(x)
    return found


def map_channels(stream: VggStream, layer: str) -> int:
    """Return the number of channels of a convolution, ``conv1`` to ``conv5``."""
    convs = [conv for conv in stream.features if isinstance(conv, nn.Conv2d)]
    return convs[int(layer.removeprefix("conv")) - 1].out_channels


def spatiotemporal_normalised(maps: Tensor) -> Tensor:
    """Divide each channel by its maximum over the whole video, maps (T, C, h, w) of values of at least 0; a channel of zeros stays so."""
    return _divided(maps, maps.amax((0, 2, 3), keepdim=True))


def channel_normalised(maps: Tensor) -> Tensor:
    """Divide each position by its maximum over channels, maps (T, C, h, w) of values of at least 0; a position of zeros stays so."""
    return _divided(maps, maps.amax(1, keepdim=True))


def divisors(largest: Tensor) -> Tensor:
    """Return by what values are divided that have these maxima: 1 where the maximum is 0."""
    return torch.where(largest > _LEAST, largest, 1.0)


def _divided(maps: Tensor, largest: Tensor) -> Tensor:
    return maps / divisors(largest)
