"""Trajectory-pooled descriptors of a video: trajectories and maps, frame by frame side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flowkit.errors import ParameterError
from flowkit.model.encoding.descriptors.source import Block, DescriptorSource, VideoFrames, the_clip
from flowkit.model.encoding.tdd.maps import MAP_STRIDE, divisors
from flowkit.model.encoding.tdd.pooling import cells_of, frames_of, summed
from flowkit.model.encoding.tdd.video_maps import BLOCK, MapName, MapNetwork, VideoMaps
from flowkit.model.encoding.trajectory_videos import TrajectoryVideo
from flowkit.model.systems.tdd import PHASE
from flowkit.shards.reader import ShardReader
from flowkit.trajectories.improved import iterate_trajectories
from flowkit.trajectories.tracks import TRACK_STEPS
from flowkit.trajectories.trajectories import Trajectories

NUM_OUTPUTS = 64  # principal components of a descriptor; of narrow networks, half of its length
NORMS = ("spatiotemporal", "channel")
_SLOTS = 3  # blocks of frames that 15 frames can touch


@dataclass(frozen=True)
class PooledDescriptors(DescriptorSource):
    """Maps of networks, in two normalisations, added up along trajectories at the scale of the full-size frame.

    The type ``appearance_conv4_channel`` has the maps of the network for frames, after its fourth convolution, each position divided by
    its maximum over the channels. Descriptors of all scales of a network's input belong to the same type.

    Parameters
    ----------
    networks : tuple of MapNetwork
        The networks.
    scales : tuple of float
        The scales of their inputs.
    camera_motion : {"sift", "flow", "none"}
        How trajectories find the motion of the camera.
    device : str
        Where the networks compute.
    """

    networks: tuple[MapNetwork, ...]
    scales: tuple[float, ...]
    camera_motion: str
    device: str
    name = PHASE.name
    words = "trajectory-pooled descriptors"
    whiten = True

    @property
    def sizes(self) -> Mapping[str, int]:
        """The types: of each network each layer, in each normalisation."""
        return {
            type_name(network.stream, layer, norm): channels
            for network in self.networks
            for layer, channels in zip(network.layers, network.channels, strict=True)
            for norm in NORMS
        }

    def num_outputs(self, size: int) -> int:
        """Return 64, or half of the channels of a narrow network."""
        return min(NUM_OUTPUTS, max(size // 2, 1))

    def recorded(self) -> dict[str, Any]:
        """Return the networks by their digests, the scales, and how the motion of the camera is found."""
        networks = {one.phase: {"weights_sha256": one.digest, "layers": list(one.layers)} for one in self.networks}
        return {"camera_motion": self.camera_motion, "networks": networks, "scales": list(self.scales)}

    @property
    def one_thread(self) -> bool:  # type: ignore[override]  # it is read only
        """Whether the networks compute on the CPU."""
        return self.device == "cpu"

    def blocks(self, video: TrajectoryVideo, frames: VideoFrames) -> Iterator[Block]:
        """Yield the descriptors of the trajectories that end in the same frame, for all scales of the networks' inputs.

        Notes
        -----
        The spatiotemporal normalisation divides a channel by its maximum over the video. Because it is the same everywhere, the sum
        along a trajectory is divided by it in the place of each value.
        """
        if video.stored is None:
            raise ParameterError("trajectory-pooled descriptors need stored flow: extract the video into a data root")
        if video.about.num_frames <= TRACK_STEPS:
            return
        with ShardReader(video.stored) as reader:
            clip = the_clip(reader, video)
            maps = VideoMaps(clip, self.networks, self.scales, device=self.device, check=frames.check)
            largest = maps.largest()
            recent = _RecentMaps(maps)
            sized = _Sized(frames)
            for found in iterate_trajectories(sized, None, camera_motion=self.camera_motion, num_scales=1):
                if len(found):
                    recent.advance(min(int(found.end_frame[0]), clip.num_frames - 1) // BLOCK)
                    yield from self._pooled(found, recent, largest, sized.size, clip.num_frames)

    def _pooled(
        self,
        found: Trajectories,
        recent: _RecentMaps,
        largest: Mapping[MapName, NDArray[np.float32]],
        frame_size: tuple[int, int],
        num_frames: int,
    ) -> Iterator[Block]:
        """Yield the descriptors of trajectories, one scale of the networks' inputs after the other."""
        times = np.minimum(frames_of(found), num_frames - 1) % (_SLOTS * BLOCK)
        for scale in range(len(self.scales)):
            block: Block = {}
            for network in self.networks:
                for layer in network.layers:
                    name = MapName(network.phase, layer, scale)
                    values, peaks = recent.values[name], recent.peaks[name]
                    rows, columns = cells_of(
                        found, values.shape[1:3], frame_size=frame_size, input_size=recent.input_size(name), stride=MAP_STRIDE
                    )
                    block[type_name(network.stream, layer, NORMS[0])] = summed(values, times, rows, columns) / largest[name]
                    block[type_name(network.stream, layer, NORMS[1])] = summed(values, times, rows, columns, peaks)
            yield block


class _RecentMaps:
    """The maps of the last blocks of frames, in arrays whose place for frame t is t modulo their length."""

    def __init__(self, maps: VideoMaps) -> None:
        self._maps = maps
        self._next = 0  # the first block that is not there yet
        self.values: dict[MapName, NDArray[np.float32]] = {}
        self.peaks: dict[MapName, NDArray[np.float32]] = {}  # by what the channel normalisation divides each position

    def input_size(self, name: MapName) -> tuple[int, int]:
        """Return height and width, in px, of the frames of which a map is."""
        return self._maps.input_size(name)

    def advance(self, number: int) -> None:
        """Compute the blocks up to one; those that are more than two blocks before it are skipped."""
        for block in range(max(self._next, number - _SLOTS + 1), number + 1):
            start = (block % _SLOTS) * BLOCK
            for name, values in self._maps.block(block).items():
                if name not in self.values:
                    self.values[name] = np.zeros((_SLOTS * BLOCK, *values.shape[1:]), np.float32)
                    self.peaks[name] = np.ones((_SLOTS * BLOCK, *values.shape[1:3]), np.float32)
                self.values[name][start : start + len(values)] = values
                self.peaks[name][start : start + len(values)] = divisors(torch.from_numpy(values.max(3))).numpy()
        self._next = max(self._next, number + 1)


class _Sized:
    """Frames that pass by, and their height and width."""

    def __init__(self, frames: VideoFrames) -> None:
        self._frames = frames
        self.size = (0, 0)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        for frame in self._frames:
            self.size = frame.shape[0], frame.shape[1]
            yield frame


def type_name(stream: str, layer: str, norm: str) -> str:
    """Return the name of a type of descriptors, such as ``motion_conv3_channel``."""
    return f"{stream}_{layer}_{norm}"
