"""Forecast how many flow fields an extraction would compute, and how much disk space and time it would need.

Worker processes open the videos, as in an extraction, because a decoder may crash or hang on any of them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial

from flowkit.errors import VideoDecodeError
from flowkit.extraction.jobs import VideoJob, frames_promised
from flowkit.extraction.one_video import TimedSample, sample_video
from flowkit.extraction.plan import Plan
from flowkit.extraction.schedule import seconds_without_progress
from flowkit.extraction.solving import prepare_process
from flowkit.video.decode import probe
from flowkit.workers.processes import TaskLimits, num_cores, run_tasks
from flowkit.workers.progress import TaskProgress


@dataclass(frozen=True)
class Forecast:
    """The forecast of a run, from the headers of its videos and a few flow fields that were computed to measure them.

    Parameters
    ----------
    num_pairs, num_bytes, seconds : int, int, float
        How many flow fields, how much disk space and how much time the run needs.
    jobs : int
        Number of processes for which that holds.
    faults : tuple of (str, str)
        Videos that cannot be opened or extracted, and why; of the latter only those whose first frames were to be measured.
    is_measured : bool
        False if there is no video whose first frames could be measured, so that space and time are unknown (and 0).
    """

    num_pairs: int
    num_bytes: int
    seconds: float
    jobs: int
    faults: tuple[tuple[str, str], ...] = ()
    is_measured: bool = True


@dataclass(frozen=True)
class _Sample:
    """The first frames of a video, whose extraction is measured."""

    video: VideoJob
    num_frames: int


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
        The limits of the extraction, which hold here too. A video that exceeds one does not contribute to the forecast, and is one of its
        faults.
    """
    jobs = jobs or num_cores()
    if not plan.jobs:
        return Forecast(0, 0, 0.0, jobs)
    limits = TaskLimits(None if time_limit == 0 else partial(_seconds_without_progress, limit=time_limit), memory_limit)
    prepare = partial(prepare_process, plan.settings)
    num_processes = min(jobs, -(-len(plan.jobs) // 8))  # a process takes longer to start than to open several videos
    known_pairs, known_bytes = 0, 0.0
    readable: set[str] = set()
    faults: dict[str, str] = {}
    for opened in run_tasks(_open, deque(plan.jobs), jobs=num_processes, prepare=prepare, limits=limits):
        if not isinstance(opened.result, int):
            faults[opened.task.video_id] = opened.result or str(opened.crash)
            continue
        readable.add(opened.task.video_id)
        if opened.result:
            known_pairs += opened.result - 1
            known_bytes += opened.task.work_bytes
    sampled = [job for job in plan.jobs if job.video_id in readable]
    tasks = deque(_Sample(job, sample_frames) for job in sampled[:: max(len(sampled) // sample_videos, 1)][:sample_videos])
    # One at a time, as the other processes would disturb the measurement.
    outcomes = list(run_tasks(_measure, tasks, jobs=1, prepare=prepare, limits=limits))
    samples = [outcome.result for outcome in outcomes if isinstance(outcome.result, TimedSample)]
    faults |= {each.task.video.video_id: each.result or str(each.crash) for each in outcomes if not isinstance(each.result, TimedSample)}
    total_bytes = sum(job.work_bytes for job in plan.jobs)
    num_pairs = round(known_pairs * total_bytes / known_bytes) if known_bytes else 0
    why = tuple(sorted(faults.items()))
    if not samples:
        return Forecast(num_pairs, 0, 0.0, jobs, why, is_measured=False)
    pairs = sum(sample.num_pairs for sample in samples)
    num_bytes = round(num_pairs * sum(sample.num_bytes for sample in samples) / pairs)
    return Forecast(num_pairs, num_bytes, num_pairs * sum(sample.seconds for sample in samples) / pairs / jobs, jobs, why)


def _open(job: VideoJob, progress: TaskProgress) -> int | str:
    """In a worker process: return how many frames a video promises, 0 if it does not say; a text if it cannot be opened, why."""
    try:
        info = probe(job.path, stream=job.settings.reading.stream)
    except VideoDecodeError as error:
        return str(error)
    if job.segment is not None:
        return job.settings.reading.num_chosen(job.segment.num_frames, info.frame_rate)
    return frames_promised(job, info)


def _measure(task: _Sample, progress: TaskProgress) -> TimedSample | str:
    return sample_video(task.video, task.num_frames)


def _seconds_without_progress(task: VideoJob | _Sample, *, limit: float | None) -> float:
    return seconds_without_progress(task.video if isinstance(task, _Sample) else task, limit=limit)
