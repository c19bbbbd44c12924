"""The maps of a video by trained networks, some frames at a time, so that a long video does not have to fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowkit.errors import CheckpointError
from flowkit.model.compute.execution import Execution
from flowkit.model.data.clips import read_fields
from flowkit.model.data.transforms import normalise_flow, normalise_rgb, resized_flow, resized_rgb
from flowkit.model.encoding.tdd.maps import dense_maps, divisors, scaled_size
from flowkit.model.networks.vgg import VggSingleStream
from flowkit.model.runs.checkpoint import load_checkpoint
from flowkit.model.runs.trained_network import trained_network
from flowkit.model.settings.network import NUM_FLOW_FIELDS
from flowkit.shards.reader import Clip

BLOCK = 8  # frames whose maps are computed together
MOST_KEPT_BYTES = 1 << 28  # of the maps of a whole video; those of a longer one are computed twice
_MOST_PIXELS = 1 << 20  # that pass through a network at once


class MapName(NamedTuple):
    """Which map: the network's phase, the layer, and the number of the scale."""

    phase: str
    layer: str
    scale: int


Maps = dict[MapName, NDArray[np.float32]]


@dataclass(frozen=True)
class MapNetwork:
    """A trained VGG-M network and the layers whose maps are used. It can be pickled.

    Parameters
    ----------
    phase : str
        The phase that trained it.
    stream : {"appearance", "motion"}
        What it sees.
    path : Path
        Its weights.
    digest : str
        Their digest, as `Checkpoint.digest` gives it.
    layers : tuple of str
        Which convolutions, such as ``conv4``.
    channels : tuple of int
        How many channels each of them has.
    input_size : int, px
        The side of its training crops.
    """

    phase: str
    stream: str
    path: Path
    digest: str
    layers: tuple[str, ...]
    channels: tuple[int, ...]
    input_size: int


class VideoMaps:
    """The maps of one stored clip, block by block of `BLOCK` frames.

    Parameters
    ----------
    clip : Clip
        The stored clip, which is open.
    networks : sequence of MapNetwork
        The networks.
    scales : sequence of float
        The scales of their inputs.
    device : str
        Where they compute, such as ``cpu`` or ``cuda:0``.
    check : callable
        Called before each block; may raise an exception to stop.

    Notes
    -----
    The motion map of frame t is that of the stack of fields t to t + 9; at the end of the video the last field is repeated. Maps have
    the shape (frames, h, w, channels), with values of at least 0.
    """

    def __init__(
        self, clip: Clip, networks: tuple[MapNetwork, ...], scales: tuple[float, ...], *, device: str, check: Callable[[], None]
    ) -> None:
        self._clip, self._networks, self._scales, self._device, self._check = clip, networks, scales, device, check
        self._kept: dict[int, Maps] = {}

    @property
    def num_blocks(self) -> int:
        """The number of blocks."""
        return -(-self._clip.num_frames // BLOCK)

    def input_size(self, name: MapName) -> tuple[int, int]:
        """Return height and width, in px, of the frames of which a map is."""
        (network,) = (one for one in self._networks if one.phase == name.phase)
        return scaled_size(self._clip.height, self._clip.width, input_size=network.input_size, scale=self._scales[name.scale])

    def largest(self) -> Maps:
        """Return the divisors of the spatiotemporal normalisation: the maximum of each channel over the video, (C,), or 1 where it is 0.

        The maps are kept for `block` if they are few.
        """
        found: Maps = {}
        num_bytes = 0
        for number in range(self.num_blocks):
            maps = self.block(number)
            for name, values in maps.items():
                peaks = values.max((0, 1, 2))
                found[name] = np.maximum(found[name], peaks) if name in found else peaks
            num_bytes += sum(values.nbytes for values in maps.values())
            if num_bytes <= MOST_KEPT_BYTES:
                self._kept[number] = maps
            else:
                self._kept.clear()
        return {name: divisors(torch.from_numpy(peaks)).numpy() for name, peaks in found.items()}

    def block(self, number: int) -> Maps:
        """Return the maps of a block of frames."""
        if number in self._kept:
            return self._kept[number]
        self._check()
        first, stop = number * BLOCK, min((number + 1) * BLOCK, self._clip.num_frames)
        found: Maps = {}
        for network in self._networks:
            inputs = self._frames(first, stop) if network.stream == "appearance" else self._stacks(first, stop)
            for scale in range(len(self._scales)):
                size = self.input_size(MapName(network.phase, network.layers[0], scale))
                for layer, values in self._maps(network, inputs(size)).items():
                    found[MapName(network.phase, layer, scale)] = values
        return found

    def _frames(self, first: int, stop: int) -> Callable[[tuple[int, int]], Tensor]:
        frames = self._clip.frames(slice(first, stop))
        return lambda size: normalise_rgb(torch.from_numpy(resized_rgb(frames, size)).to(self._device))

    def _stacks(self, first: int, stop: int) -> Callable[[tuple[int, int]], Tensor]:
        last = self._clip.num_frames - 2
        wanted = np.minimum(np.arange(first, stop)[:, None] + np.arange(NUM_FLOW_FIELDS), last)
        places, where = np.unique(wanted, return_inverse=True)
        fields = read_fields(self._clip, places)
        index = torch.from_numpy(where.reshape(wanted.shape)).to(self._device)

        def stacks(size: tuple[int, int]) -> Tensor:
            return normalise_flow(torch.from_numpy(resized_flow(fields, size)).to(self._device))[index].flatten(1, 2)

        return stacks

    def _maps(self, network: MapNetwork, inputs: Tensor) -> dict[str, NDArray[np.float32]]:
        """Return the maps of a network, few frames at a time."""
        most = max(1, _MOST_PIXELS // (inputs.shape[2] * inputs.shape[3]))
        parts = list(self._parts(network, inputs, most))
        return {layer: np.concatenate([part[layer] for part in parts]) for layer in network.layers}

    def _parts(self, network: MapNetwork, inputs: Tensor, most: int) -> Iterator[dict[str, NDArray[np.float32]]]:
        stream = _loaded(network, self._device).stream
        execution = Execution(device=self._device)
        with torch.inference_mode(), execution.arithmetic(torch.device(self._device)):
            for first in range(0, len(inputs), most):
                maps = dense_maps(stream, inputs[first : first + most], network.layers)
                yield {layer: maps[layer].permute(0, 2, 3, 1).contiguous().cpu().numpy() for layer in network.layers}


@lru_cache(maxsize=4)
def _loaded(network: MapNetwork, device: str) -> VggSingleStream:
    """Read a network, once in each process."""
    checkpoint = load_checkpoint(network.path)
    if checkpoint.digest() != network.digest:
        raise CheckpointError(f"{network.path} was replaced while it was in use; run the same command again")
    found = trained_network(checkpoint, str(network.path))
    assert isinstance(found, VggSingleStream)
    return found.to(device)
