"""Which tasks the processes of an extraction take: long videos are divided so that all processes finish at about the same time."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from flowkit.errors import VideoDecodeError
from flowkit.extraction.jobs import CutJob, PieceJob, SegmentsJob, Task, TaskResult, VideoJob, frames_promised, video_of
from flowkit.extraction.one_video import extract_task
from flowkit.extraction.pieces import find_pieces, missing_ranges
from flowkit.extraction.segments.extract import extract_segments
from flowkit.video.decode import probe
from flowkit.workers.progress import TaskProgress, patience_seconds

GRAIN = 1 / 8  # of one process's share of the work: a video that would finish later than this after an even end is divided
MAX_PIECES = 2  # for each process; to solve a piece, all that lies before it must be decoded
MAX_OVERLAPPING = 64  # segments of one file that are written at once; each keeps two temporary files open
MIN_PIECE = 24  # flow fields; decoding up to the start of a piece must stay small beside solving it


def make_tasks(jobs: Sequence[VideoJob], num_processes: int) -> deque[Task]:
    """Return the tasks of a run: complete videos, and the division of those that would otherwise finish late.

    Each process takes the next task when it is free. Simulated with the sizes of the sources, this shows which videos would
    finish late: one that is a large share of all the work, or the last few that are left for many processes. These are divided
    into pieces by `run_task`. The bytes of their clips are the same either way. Segments of one file are one task.
    """
    even_end = sum(job.work_bytes for job in jobs) / num_processes
    free_at = [0.0] * num_processes  # a heap
    tasks: deque[Task] = deque(_segment_tasks([job for job in jobs if job.segment is not None]))
    for task in tasks:
        heapq.heapreplace(free_at, free_at[0] + work_bytes(task))
    for job in jobs:
        if job.segment is not None:
            continue
        num_pieces = 1
        if job.settings.has_flow and free_at[0] + job.source_bytes > (1 + GRAIN) * even_end:
            num_pieces = min(math.ceil(job.source_bytes / (GRAIN * even_end)), MAX_PIECES * num_processes)
        tasks.append(job if num_pieces < 2 else CutJob(job, num_pieces))
        for _ in range(num_pieces):
            heapq.heapreplace(free_at, free_at[0] + job.source_bytes / num_pieces)
    return tasks


def _segment_tasks(jobs: Sequence[VideoJob]) -> list[SegmentsJob]:
    """Return a task for the segments of each file, the largest first; several if too many of them overlap to be written at once."""
    by_file: dict[Path, list[VideoJob]] = defaultdict(list)
    for job in jobs:
        by_file[job.path].append(job)
    return sorted(chain.from_iterable(map(_tasks_of_file, by_file.values())), key=lambda task: -work_bytes(task))


def _tasks_of_file(jobs: Sequence[VideoJob]) -> Iterator[SegmentsJob]:
    groups: list[tuple[list[VideoJob], list[int]]] = []  # with the ends of the segments that are open at a frame
    for job in sorted(jobs, key=lambda job: job.segment.start_frame if job.segment else 0):
        assert job.segment is not None
        for _, ends in groups:
            ends[:] = [end for end in ends if end > job.segment.start_frame]
        free = next((group for group in groups if len(group[1]) < MAX_OVERLAPPING), None)
        if free is None:
            free = ([], [])
            groups.append(free)
        free[0].append(job)
        free[1].append(job.segment.end_frame)
    for group, _ in groups:
        first = group[0]
        assert first.segment is not None
        video = replace(first, video_id=first.segment.video_id, segment=None, share=sum(job.share for job in group))
        yield SegmentsJob(video, tuple(group))


def run_task(task: Task, progress: TaskProgress) -> TaskResult:
    """Do a task in a worker process: divide a video, or what `extract_task` does."""
    if isinstance(task, SegmentsJob):
        return extract_segments(task, progress)
    if isinstance(task, CutJob):
        return TaskResult(tasks=tuple(_pieces(task)))
    return extract_task(task, progress)


def _pieces(cut: CutJob) -> list[Task]:
    """Return the pieces of a video, or the video itself if it is too short to be divided."""
    job = cut.video
    try:
        num_pairs = frames_promised(job, probe(job.path, stream=job.settings.reading.stream)) - 1
    except VideoDecodeError:  # found again and reported when it is its turn
        return [job]
    num_pieces = min(cut.num_pieces, num_pairs // MIN_PIECE)
    if num_pieces < 2:
        return [job]
    ranges = missing_ranges(find_pieces(job.piece_folder), num_pairs, num_pieces)
    return [PieceJob(job, start, stop, max((num_pairs if stop is None else stop) - start, 0), len(ranges)) for start, stop in ranges]


def seconds_without_progress(task: Task, *, limit: float | None) -> float:
    """Return how long a task may go on without any progress: the user's limit, or what `patience_seconds` says."""
    return patience_seconds(video_of(task).source_bytes) if limit is None else limit


def work_bytes(task: Task) -> float:
    """Return the share of a task in all the work, in bytes of its source."""
    if isinstance(task, PieceJob):
        return task.video.source_bytes / task.num_pieces
    if isinstance(task, SegmentsJob):
        return task.video.work_bytes
    return 0 if isinstance(task, CutJob) or task.pieces else task.work_bytes
