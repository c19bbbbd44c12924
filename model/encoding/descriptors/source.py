"""What can be computed along the trajectories of a video, in a worker process; and the frames that it is computed from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import SourceChangedError
from flowkit.extraction.source import Source
from flowkit.model.encoding.trajectory_videos import TrajectoryVideo
from flowkit.shards.reader import Clip, ShardReader
from flowkit.video.decode import read_frames
from flowkit.workers.progress import StoppedError, TaskProgress

FRAMES_AT_ONCE = 8

Block = dict[str, NDArray[np.float32]]


class DescriptorSource(ABC):
    """One kind of descriptors of trajectories. It can be pickled, and is small: each process loads what it needs.

    Attributes
    ----------
    name : str
        The phase, and the stream of features, of their Fisher vectors.
    words : str
        What progress bars call them.
    whiten : bool
        Whether the principal components are divided by their standard deviations.
    one_thread : bool
        Whether they are computed by torch on the CPU: on one core, since there is a process for each, and so that sums do not depend on
        the number of cores.
    """

    name: str
    words: str
    whiten: bool = False
    one_thread: bool = False

    @property
    @abstractmethod
    def sizes(self) -> Mapping[str, int]:
        """The types of descriptors, in the order of their Fisher vectors, with the length of one descriptor."""

    @abstractmethod
    def recorded(self) -> dict[str, Any]:
        """Return on what the descriptors depend besides the videos, as built-in types."""

    @abstractmethod
    def blocks(self, video: TrajectoryVideo, frames: VideoFrames) -> Iterator[Block]:
        """Yield the descriptors of a video some at a time: of each type an array (n, D), with the same n. Only few are in memory.

        Raises
        ------
        FlowkitError
            If the video, or what is computed from it, cannot be read.
        """

    def num_outputs(self, size: int) -> int:
        """Return the number of principal components of descriptors of a length."""
        return max(size // 2, 1)


class VideoFrames:
    """The frames (H, W, 3) of a video, read one after the other, with a sign of progress after each.

    Parameters
    ----------
    video : TrajectoryVideo
        The video.
    progress : TaskProgress
        Receives the signs of progress, and says whether the task must stop, which raises `StoppedError`.

    Attributes
    ----------
    num_read : int
        How many frames were read.
    """

    def __init__(self, video: TrajectoryVideo, progress: TaskProgress) -> None:
        self._video, self._progress = video, progress
        self.num_read = 0

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        video = self._video
        for batch in self._stored_frames() if video.source is None else self._source_frames(Source(video.source)):
            for frame in batch:
                self.check()
                self.num_read += 1
                self._progress.note(self.num_read, video.about.num_frames)
                yield frame

    def check(self) -> None:
        """Give a sign of life, and raise `StoppedError` if the task must stop."""
        if self._progress.stopping:
            raise StoppedError
        self._progress.alive()

    def _source_frames(self, source: Source) -> Iterator[NDArray[np.uint8]]:
        """Yield the frames of the video file at their own size, after checking that it is the one that is meant."""
        if source.sha256 != self._video.about.source_sha256:
            raise SourceChangedError(
                f"{str(self._video.source)!r} is not the file that its clip was made from (its SHA-256 is another): extract it again, or "
                "put the old file back"
            )
        self._progress.alive()  # a large file on a slow disk may have taken minutes
        assert self._video.source is not None
        with source.unchanged():
            for batch in read_frames(self._video.source, short_side=None, batch_size=FRAMES_AT_ONCE, reading=self._video.reading):
                yield batch.frames

    def _stored_frames(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the frames of the clip, after checking that it is the one that is meant."""
        assert self._video.stored is not None
        with ShardReader(self._video.stored) as reader:
            clip = the_clip(reader, self._video)
            for first in range(0, clip.num_frames, FRAMES_AT_ONCE):
                yield clip.frames(slice(first, first + FRAMES_AT_ONCE))


def the_clip(reader: ShardReader, video: TrajectoryVideo) -> Clip:
    """Return the stored clip of a video, after checking that it is the one that is meant."""
    clip = reader.clip(video.about.video_id)
    if clip.sha256 != video.about.sha256:
        raise SourceChangedError(f"the clip of {video.about.video_id!r} was replaced while it was in use; run the same command again")
    return clip
