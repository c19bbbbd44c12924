"""The descriptors of improved dense trajectories: their shape, HOG, HOF, MBHx and MBHy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flowkit.model.encoding.descriptors.source import Block, DescriptorSource, VideoFrames
from flowkit.model.encoding.trajectory_settings import TRAJECTORIES
from flowkit.model.encoding.trajectory_videos import TrajectoryVideo
from flowkit.trajectories.improved import iterate_trajectories

DESCRIPTORS = {"shape": 30, "hog": 96, "hof": 108, "mbh_x": 96, "mbh_y": 96}  # in the order of their Fisher vectors, with their lengths


@dataclass(frozen=True)
class ImprovedDescriptors(DescriptorSource):
    """The five descriptors of improved trajectories.

    Parameters
    ----------
    camera_motion : {"sift", "flow", "none"}
        How the motion of the camera is found; see `flowkit.improved_trajectories`.

    Examples
    --------
    >>> from flowkit.model.encoding.descriptors.improved import ImprovedDescriptors
    >>> ImprovedDescriptors("none").sizes["hog"]
    96
    """

    camera_motion: str
    name = TRAJECTORIES
    words = "trajectories"

    @property
    def sizes(self) -> Mapping[str, int]:
        """The five types with their lengths."""
        return DESCRIPTORS

    def recorded(self) -> dict[str, Any]:
        """Return how the motion of the camera is found."""
        return {"camera_motion": self.camera_motion}

    def blocks(self, video: TrajectoryVideo, frames: VideoFrames) -> Iterator[Block]:
        """Yield the descriptors frame by frame."""
        for trajectories in iterate_trajectories(frames, None, camera_motion=self.camera_motion):
            if len(trajectories):
                yield {name: getattr(trajectories, name) for name in DESCRIPTORS}
