"""What worker processes do: compute the descriptors of a video's trajectories and draw a sample of them, or encode them; and fit a type.

Descriptors stream through, so memory does not grow with a video's length, and raw descriptors are never stored. Processes whose descriptors
need no network need no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import CheckpointError, FlowkitError
from flowkit.model.encoding.descriptor_sample import VideoSample
from flowkit.model.encoding.descriptors.source import DescriptorSource, VideoFrames
from flowkit.model.encoding.encoder import Encoder
from flowkit.model.encoding.encoder_files import load_encoder
from flowkit.model.encoding.fitting import fit_type
from flowkit.model.encoding.trajectory_videos import TrajectoryVideo
from flowkit.trajectories.improved import improved_trajectories
from flowkit.video.decode import probe
from flowkit.workers.progress import StoppedError, TaskProgress, patience_seconds

NUM_FRAMES, FRAME_RATE = "num_frames", "frame_rate"  # arrays of a video that is in no data root

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
    """One video, what is computed along its trajectories, and what becomes of that."""

    video: TrajectoryVideo
    source: DescriptorSource
    purpose: Sampling | Encoding


@dataclass(frozen=True)
class FitTask:
    """One type of descriptors, a sample of them (n, D), and what is fitted to it; see `fit_type`."""

    name: str
    sample: NDArray[np.float32]
    num_components: int
    seed: int
    num_outputs: int | None = None
    whiten: bool = False


@dataclass(frozen=True)
class TrajectoryResult:
    """What became of a task: its arrays, or the reason why there are none; neither if the run is to be stopped."""

    arrays: Arrays | None = None
    error: str = ""


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
            return TrajectoryResult(_fit(task))
        if task.source.one_thread:
            import torch

            torch.set_num_threads(1)
        if isinstance(task.purpose, Sampling):
            return TrajectoryResult(_sample(task, task.purpose, progress))
        return TrajectoryResult(_encode(task, task.purpose, progress))
    except StoppedError:
        return TrajectoryResult()
    except CheckpointError:  # the encoder is gone: no other video can be encoded either
        raise
    except FlowkitError as error:
        return TrajectoryResult(error=str(error))
    except OSError as error:
        return TrajectoryResult(error=f"{error.strerror}: {error.filename}" if error.filename else str(error))
    except Exception as error:  # one bad video never stops the others, and is reported
        return TrajectoryResult(error=f"{type(error).__name__}: {error}")


def _fit(task: FitTask) -> Arrays:
    fitted = fit_type(task.name, task.sample, task.num_components, seed=task.seed, num_outputs=task.num_outputs, whiten=task.whiten)
    return fitted.arrays()


def _sample(task: TrajectoryTask, sampling: Sampling, progress: TaskProgress) -> Arrays:
    sample = VideoSample(task.video.about.video_id, sampling.most, seed=sampling.seed)
    for block in task.source.blocks(task.video, VideoFrames(task.video, progress)):
        sample.add(block)
    return dict(sample.rows())


def _encode(task: TrajectoryTask, encoding: Encoding, progress: TaskProgress) -> Arrays:
    frames = VideoFrames(task.video, progress)
    vector = _encoder(encoding.path, encoding.digest).encode(task.source.blocks(task.video, frames))
    found: Arrays = {task.source.name: vector[None]}
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
