"""Forecast how many flow fields an extraction would compute, and how much disk space and time it would need.

Worker processes open the videos, as in an extraction, because a decoder may crash or hang on any of them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial

from flowkit.errors import VideoDecodeError
from flowkit.extraction.jobs import VideoJob
from flowkit.extraction.one_video import TimedSample, sample_video
from flowkit.extraction.plan import Plan
from flowkit.extraction.schedule import seconds_without_progress
from flowkit.extraction.solving import prepare_process
from flowkit.video.decode import probe
from flowkit.workers.processes import TaskLimits, num_cores, run_tasks
from flowkit.workers.progress import TaskProgress

_LEAST_BYTES_PER_FRAME = 4  # a header that promises more frames than that is wrong


@dataclass(frozen=True)
class Forecast:
    """The forecast of a run, from the headers of its videos and a few flow fields that were computed to measure them."""

    num_pairs: int
    num_bytes: int
    seconds: float
    jobs: int


@dataclass(frozen=True)
class _Task:
    """A video to look at, and how many of its frames to extract for the measurement."""

    video: VideoJob
    sample_frames: int = 0


def forecast(
    plan: Plan,
    *,
    jobs: int | None = None,
    sample_videos: int = 3,
    sample_frames: int = 6,
    time_limit: float | None = None,
    memory_limit: int | None = None,
) -> Forecast:
    """Estimate the flow fields, the disk space and the time of a plan.

    Parameters
    ----------
    plan : Plan
        What the run would do.
    jobs : int, optional
        Number of worker processes; by default one per core.
    sample_videos, sample_frames : int
        The first frames of a few videos, spread over the plan, are extracted to a temporary folder, which gives bytes and
        seconds per flow field: from how many videos, and how many frames of each.
    time_limit, memory_limit : float, int, optional
        The limits of the extraction, which hold here too. A video that exceeds one does not contribute to the forecast.
    """
    jobs = jobs or num_cores()
    if not plan.jobs:
        return Forecast(0, 0, 0.0, jobs)
    step = max(len(plan.jobs) // sample_videos, 1)
    tasks = deque(_Task(job) for job in plan.jobs)
    tasks.extend(_Task(job, sample_frames) for job in plan.jobs[::step][:sample_videos])
    limits = TaskLimits(None if time_limit == 0 else partial(_seconds_without_progress, limit=time_limit), memory_limit)
    known_pairs = known_bytes = 0
    samples: list[TimedSample] = []
    num_processes = min(jobs, -(-len(tasks) // 8))  # a process takes longer to start than to open several videos
    for outcome in run_tasks(_look, tasks, jobs=num_processes, prepare=partial(prepare_process, plan.settings), limits=limits):
        if isinstance(outcome.result, TimedSample):
            samples.append(outcome.result)
        elif outcome.result:
            known_pairs += outcome.result - 1
            known_bytes += outcome.task.video.source_bytes
    total_bytes = sum(job.source_bytes for job in plan.jobs)
    num_pairs = round(known_pairs * total_bytes / known_bytes) if known_bytes else 0
    if not samples:
        return Forecast(num_pairs, 0, 0.0, jobs)
    pairs = sum(sample.num_pairs for sample in samples)
    num_bytes = round(num_pairs * sum(sample.num_bytes for sample in samples) / pairs)
    return Forecast(num_pairs, num_bytes, num_pairs * sum(sample.seconds for sample in samples) / pairs / jobs, jobs)


def _look(task: _Task, progress: TaskProgress) -> int | TimedSample | None:
    """In a worker process: return how many frames the header of a video promises, or measure its first frames."""
    if task.sample_frames:
        return sample_video(task.video, task.sample_frames)
    try:
        num_frames = probe(task.video.path).header_frames
    except VideoDecodeError:
        return None
    return num_frames if num_frames * _LEAST_BYTES_PER_FRAME <= task.video.source_bytes else None


def _seconds_without_progress(task: _Task, *, limit: float | None) -> float:
    return seconds_without_progress(task.video, limit=limit)
