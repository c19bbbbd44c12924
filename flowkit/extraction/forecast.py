"""What an extract run would take: pairs, disk, time; for ``--dry-run``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowkit.errors import VideoDecodeError
from flowkit.extraction.one_video import sample_video
from flowkit.workers.processes import num_cores

if TYPE_CHECKING:
    from flowkit.extraction.run import Plan


@dataclass(frozen=True)
class Forecast:
    """What a run would take: from the headers of the videos and a few pairs really computed."""

    num_pairs: int
    num_bytes: int
    seconds: float
    jobs: int


def forecast(todo: Plan, *, jobs: int | None = None, sample_videos: int = 3, sample_frames: int = 6) -> Forecast:
    """Estimate pairs, disk and time of a plan.

    Parameters
    ----------
    todo : Plan
    jobs : int, optional
        Worker processes; default one per core.
    sample_videos, sample_frames : int
        How much is really extracted (to a temporary folder) to learn bytes and seconds a pair: the first frames of
        videos spread over the plan.
    """
    from flowkit.video.decode import probe

    jobs = jobs or num_cores()
    if not todo.jobs:
        return Forecast(0, 0, 0.0, jobs)
    known_pairs = known_bytes = 0
    for job in todo.jobs:
        try:
            header_frames = probe(job.path).header_frames
        except VideoDecodeError:
            continue
        if header_frames:
            known_pairs += max(header_frames - 1, 0)
            known_bytes += job.source_bytes
    total_bytes = sum(job.source_bytes for job in todo.jobs)
    num_pairs = round(known_pairs * total_bytes / known_bytes) if known_bytes else 0
    step = max(len(todo.jobs) // sample_videos, 1)
    samples = [sample for job in todo.jobs[::step][:sample_videos] if (sample := sample_video(job, sample_frames)) is not None]
    if not samples:
        return Forecast(num_pairs, 0, 0.0, jobs)
    pairs = sum(s.num_pairs for s in samples)
    return Forecast(
        num_pairs,
        round(num_pairs * sum(s.num_bytes for s in samples) / pairs),
        num_pairs * sum(s.seconds for s in samples) / pairs / jobs,
        jobs,
    )
