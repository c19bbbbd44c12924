"""What worker processes do: compute the trajectories of a video and draw a sample of their descriptors, or encode them; and fit a type.

Trajectories stream through, so memory does not grow with a video's length, and raw descriptors are never stored. These processes need
no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import CheckpointError, FlowkitError, SourceChangedError
from flowkit.extraction.schedule import patience_seconds
from flowkit.extraction.source import Source
from flowkit.model.encoding.descriptor_sample import VideoSample
from flowkit.model.encoding.encoder import Encoder
from flowkit.model.encoding.encoder_files import load_encoder
from flowkit.model.encoding.fitting import fit_type
from flowkit.model.encoding.trajectory_settings import TRAJECTORIES
from flowkit.model.encoding.trajectory_videos import TrajectoryVideo
from flowkit.shards.reader import ShardReader
from flowkit.trajectories.improved import improved_trajectories, iterate_trajectories
from flowkit.video.decode import probe, read_frames
from flowkit.workers.progress import TaskProgress

DESCRIPTORS = {"shape": 30, "hog": 96, "hof": 108, "mbh_x": 96, "mbh_y": 96}  # in the order of their Fisher vectors, with their lengths
NUM_FRAMES, FRAME_RATE = "num_frames", "frame_rate"  # arrays of a video that is in no data root
FRAMES_AT_ONCE = 8

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Sampling:
    """Draw a sample of descriptors: at most so many of each video, by a seed."""

    most: int
    seed: int


@dataclass(frozen=True)
class Encoding:
    """Encode all descriptors by the encoder of a file, which has a certain digest."""

    path: Path
    digest: str


@dataclass(frozen=True)
class TrajectoryTask:
    """One video, how its camera's motion is found, and what becomes of its descriptors."""

    video: TrajectoryVideo
    camera_motion: str
    purpose: Sampling | Encoding


@dataclass(frozen=True)
class FitTask:
    """One type of descriptors, a sample of them (n, D), and what is fitted to it."""

    name: str
    sample: NDArray[np.float32]
    num_components: int
    seed: int


@dataclass(frozen=True)
class TrajectoryResult:
    """What became of a task: its arrays, or the reason why there are none; neither if the run is to be stopped."""

    arrays: Arrays | None = None
    error: str = ""


class _StoppedError(Exception):
    """The parent process asked the running tasks to stop."""


def prepare_process() -> None:
    """Load and compile what the tasks need, before the first: no time limit includes it."""
    import av  # noqa: F401 - loaded here rather than with the first video
    import cv2

    cv2.setNumThreads(1)
    texture = np.random.default_rng(0).integers(0, 256, (12, 24), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    improved_trajectories(np.stack([texture[:, 40 - 2 * t : 88 - 2 * t] for t in range(18)]), camera_motion="none")


def patience(task: TrajectoryTask | FitTask) -> float | None:
    """Return how many seconds a task may go on without progress; None if there is no limit."""
    if isinstance(task, FitTask):
        return None
    source = task.video.source
    return patience_seconds(source.stat().st_size if source is not None and source.is_file() else 0)


def run_trajectory_task(task: TrajectoryTask | FitTask, progress: TaskProgress) -> TrajectoryResult:
    """Do a task in a worker process. Anything that is wrong with a video, or with a sample, is a result, not an exception."""
    try:
        if isinstance(task, FitTask):
            return TrajectoryResult(fit_type(task.name, task.sample, task.num_components, seed=task.seed).arrays())
        if isinstance(task.purpose, Sampling):
            return TrajectoryResult(_sample(task, task.purpose, progress))
        return TrajectoryResult(_encode(task, task.purpose, progress))
    except _StoppedError:
        return TrajectoryResult()
    except CheckpointError:  # the encoder is gone: no other video can be encoded either
        raise
    except FlowkitError as error:
        return TrajectoryResult(error=str(error))
    except OSError as error:
        return TrajectoryResult(error=f"{error.strerror}: {error.filename}" if error.filename else str(error))
    except Exception as error:  # one bad video never stops the others, and is reported
        return TrajectoryResult(error=f"{type(error).__name__}: {error}")


def _sample(task: TrajectoryTask, sampling: Sampling, progress: TaskProgress) -> Arrays:
    sample = VideoSample(task.video.about.video_id, sampling.most, seed=sampling.seed)
    for block in _descriptors(_Frames(task.video, progress), task.camera_motion):
        sample.add(block)
    return dict(sample.rows())


def _encode(task: TrajectoryTask, encoding: Encoding, progress: TaskProgress) -> Arrays:
    frames = _Frames(task.video, progress)
    vector = _encoder(encoding.path, encoding.digest).encode(_descriptors(frames, task.camera_motion))
    found: Arrays = {TRAJECTORIES: vector[None]}
    if task.video.stored is None:  # no clip says how long it is
        assert task.video.source is not None
        found |= {
            NUM_FRAMES: np.array([frames.num_read]),
            FRAME_RATE: np.array(probe(task.video.source, stream=task.video.reading.stream).frame_rate.as_integer_ratio()),
        }
    return found


@lru_cache(maxsize=1)
def _encoder(path: Path, digest: str) -> Encoder:
    """Read the encoder, once in each process."""
    encoder = load_encoder(path)
    if encoder.digest() != digest:
        raise CheckpointError(f"{path} was replaced while it was in use; run the same command again")
    return encoder


def _descriptors(frames: _Frames, camera_motion: str) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Yield the descriptors of a video, frame by frame."""
    for trajectories in iterate_trajectories(frames, None, camera_motion=camera_motion):
        if len(trajectories):
            yield {name: getattr(trajectories, name) for name in DESCRIPTORS}


class _Frames:
    """The frames (H, W, 3) of a video, read one after the other, with a sign of progress after each."""

    def __init__(self, video: TrajectoryVideo, progress: TaskProgress) -> None:
        self._video, self._progress = video, progress
        self.num_read = 0

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        batches = _stored_frames(self._video) if self._video.source is None else self._source_frames(self._video.source)
        for batch in batches:
            for frame in batch:
                if self._progress.stopping:
                    raise _StoppedError
                self.num_read += 1
                self._progress.note(self.num_read, self._video.about.num_frames)
                yield frame

    def _source_frames(self, path: Path) -> Iterator[NDArray[np.uint8]]:
        """Yield the frames of the video file at their own size, after checking that it is the one that is meant."""
        source = Source(path)
        if source.sha256 != self._video.about.source_sha256:
            raise SourceChangedError(
                f"{str(path)!r} is not the file that its clip was made from (its SHA-256 is another): extract it again, or put the old "
                "file back"
            )
        self._progress.alive()  # a large file on a slow disk may have taken minutes
        with source.unchanged():
            for batch in read_frames(path, short_side=None, batch_size=FRAMES_AT_ONCE, reading=self._video.reading):
                yield batch.frames


def _stored_frames(video: TrajectoryVideo) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of the clip, after checking that it is the one that is meant."""
    assert video.stored is not None
    with ShardReader(video.stored) as reader:
        clip = reader.clip(video.about.video_id)
        if clip.sha256 != video.about.sha256:
            raise SourceChangedError(f"the clip of {video.about.video_id!r} was replaced while it was in use; run the same command again")
        for first in range(0, clip.num_frames, FRAMES_AT_ONCE):
            yield clip.frames(slice(first, first + FRAMES_AT_ONCE))
