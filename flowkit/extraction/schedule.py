"""Which tasks the processes of an extraction take: long videos are divided so that all processes finish at about the same time."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence

from flowkit.errors import VideoDecodeError
from flowkit.extraction.jobs import PieceJob, Task, VideoJob
from flowkit.extraction.pieces import find_pieces, missing_ranges
from flowkit.video.decode import probe

GRAIN = 1 / 8  # of one process's share of the work: a video that would finish later than this after an even end is divided
MAX_PIECES = 2  # for each process; to solve a piece, all that lies before it must be decoded
MIN_PIECE = 24  # flow fields; decoding up to the start of a piece must stay small beside solving it


def make_tasks(jobs: Sequence[VideoJob], num_processes: int) -> deque[Task]:
    """Return the tasks of a run: complete videos, and pieces of those that would otherwise finish late.

    Each process takes the next task when it is free. Simulated with the sizes of the sources, this shows which videos would
    finish late: one that is a large share of all the work, or the last few that are left for many processes. These are divided
    into pieces. The bytes of their clips are the same either way.
    """
    even_end = sum(job.source_bytes for job in jobs) / num_processes
    free_at = [0.0] * num_processes  # a heap
    tasks: deque[Task] = deque()
    for job in jobs:
        num_pairs, num_pieces = 0, 1
        if free_at[0] + job.source_bytes > (1 + GRAIN) * even_end:
            try:
                num_pairs = probe(job.path).header_frames - 1
            except VideoDecodeError:  # found again and reported when it is its turn
                num_pairs = 0
            num_pieces = min(math.ceil(job.source_bytes / (GRAIN * even_end)), MAX_PIECES * num_processes, num_pairs // MIN_PIECE)
        if num_pieces < 2:
            tasks.append(job)
            num_pieces = 1
        else:
            ranges = missing_ranges(find_pieces(job.piece_folder), num_pairs, num_pieces)
            for start, stop in ranges:
                tasks.append(PieceJob(job, start, stop, max((num_pairs if stop is None else stop) - start, 0), len(ranges)))
            num_pieces = len(ranges)
        for _ in range(num_pieces):
            heapq.heapreplace(free_at, free_at[0] + job.source_bytes / num_pieces)
    return tasks


def work_bytes(task: Task) -> float:
    """Return the share of a task in all the work, in bytes of its source."""
    if isinstance(task, PieceJob):
        return task.video.source_bytes / task.num_pieces
    return 0 if task.pieces else task.source_bytes
