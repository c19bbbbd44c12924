"""Forecast how many flow fields an extraction would compute, and how much disk space and time it would need."""

from __future__ import annotations

from dataclasses import dataclass

from flowkit.errors import VideoDecodeError
from flowkit.extraction.one_video import sample_video
from flowkit.extraction.plan import Plan
from flowkit.video.decode import probe
from flowkit.workers.processes import num_cores


@dataclass(frozen=True)
class Forecast:
    """The forecast of a run, from the headers of its videos and a few flow fields that were computed to measure them."""

    num_pairs: int
    num_bytes: int
    seconds: float
    jobs: int


def forecast(plan: Plan, *, jobs: int | None = None, sample_videos: int = 3, sample_frames: int = 6) -> Forecast:
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
    """
    jobs = jobs or num_cores()
    if not plan.jobs:
        return Forecast(0, 0, 0.0, jobs)
    known_pairs = known_bytes = 0
    for job in plan.jobs:
        try:
            header_frames = probe(job.path).header_frames
        except VideoDecodeError:
            continue
        if header_frames:
            known_pairs += max(header_frames - 1, 0)
            known_bytes += job.source_bytes
    total_bytes = sum(job.source_bytes for job in plan.jobs)
    num_pairs = round(known_pairs * total_bytes / known_bytes) if known_bytes else 0
    step = max(len(plan.jobs) // sample_videos, 1)
    samples = [sample for job in plan.jobs[::step][:sample_videos] if (sample := sample_video(job, sample_frames)) is not None]
    if not samples:
        return Forecast(num_pairs, 0, 0.0, jobs)
    pairs = sum(sample.num_pairs for sample in samples)
    num_bytes = round(num_pairs * sum(sample.num_bytes for sample in samples) / pairs)
    return Forecast(num_pairs, num_bytes, num_pairs * sum(sample.seconds for sample in samples) / pairs / jobs, jobs)
