"""Extract the segments of one video in a worker process: the file is decoded once, and the flow between two frames is solved once.

Each segment's clip file is written as soon as its last frame has been reached, so a run that is stopped continues with the others.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import SourceChangedError
from flowkit.extraction.jobs import SegmentsJob, TaskResult, VideoJob
from flowkit.extraction.new_clip import NewClip
from flowkit.extraction.one_video import BATCH_SIZE, check_frames, failure
from flowkit.extraction.plan import SourceDigests, done_before
from flowkit.extraction.results import WRITTEN, VideoResult
from flowkit.extraction.solving import quantised_flow, solver_frames
from flowkit.extraction.source import Source
from flowkit.video.decode import probe
from flowkit.video.segments.frames import SegmentBatch, read_segments
from flowkit.video.segments.segment import Segment
from flowkit.workers.progress import StoppedError, TaskProgress

_Numbered = tuple[int, NDArray[np.uint8]]  # a frame as the solver takes it, after its number


def extract_segments(task: SegmentsJob, progress: TaskProgress) -> TaskResult:
    """Extract the segments of one video.

    Parameters
    ----------
    task : SegmentsJob
        The video and its segments.
    progress : TaskProgress
        Receives the number of flow fields that are done.

    Returns
    -------
    TaskResult
        The results of those that are finished. Anything that is wrong with the video is the result of all that are not.

    Raises
    ------
    OSError
        If the disk is full or read-only: later videos would fail too.
    DeviceError
        If the device of the solver is unavailable.
    """
    results: dict[str, VideoResult] = {}
    stopped = False
    try:
        source = Source(task.video.path)
        with source.unchanged():
            _extract(task, source, results, progress)
            source.confirm()
    except StoppedError:
        stopped = True
    except Exception as error:  # one bad video never stops the others, and is reported
        if isinstance(error, SourceChangedError):  # nobody knows what the clips are of that were written before that was seen
            for job in task.segments:
                before = results.pop(job.video_id, None)
                if before is not None and before.status in WRITTEN:
                    job.clip_path.unlink(missing_ok=True)
        for job in task.segments:
            if job.video_id not in results:
                results[job.video_id] = failure(job, error)
    num_pairs = sum(result.num_steps for result in results.values())
    return TaskResult(num_pairs=num_pairs, stopped=stopped, segments=tuple(results.values()))


def _extract(task: SegmentsJob, source: Source, results: dict[str, VideoResult], progress: TaskProgress) -> None:
    """Write the clip files of the segments that have none; add the result of each to `results` as soon as it is known."""
    sha256 = source.sha256
    progress.alive()  # a large file on a slow disk may have taken minutes
    digests = SourceDigests()
    todo: list[VideoJob] = []
    for job in (job.with_version(source.version) for job in task.segments):
        before = done_before(job, None, {}, digests)  # by this task, if its process was killed
        if before is None:
            try:
                check_frames(job, source)
                todo.append(job)
            except SourceChangedError as error:
                before = failure(job, error)
        if before is not None:
            results[job.video_id] = before
    if not todo:
        return
    settings = task.video.settings
    rate = probe(task.video.path, stream=settings.reading.stream).frame_rate
    expected = sum(settings.reading.num_chosen(_segment_of(job).num_frames, rate) - 1 for job in todo)
    num_done = 0
    with ExitStack() as stack:
        clips = [_SegmentClip(stack.enter_context(NewClip(job, rate, sha256=sha256))) for job in todo]
        batches = read_segments(
            task.video.path, list(map(_segment_of, todo)), short_side=settings.short_side, batch_size=BATCH_SIZE, reading=settings.reading
        )
        for batch in batches:
            if progress.stopping:
                raise StoppedError
            progress.alive()
            num_done += _append(batch, clips, task.video, progress)
            progress.note(num_done, expected)
            for index, report in batch.ended.items():
                clip = clips[index]
                result = clip.new.result(report)
                if result.status in WRITTEN:
                    source.check()
                seconds = round(time.monotonic() - clip.begun, 3) if clip.begun else 0.0
                results[todo[index].video_id] = replace(clip.new.finish(result), seconds=seconds)
                clip.new.close()
                clip.last = None


@dataclass
class _SegmentClip:
    """The clip file of a segment in the making, and the last frame that it has so far."""

    new: NewClip
    last: _Numbered | None = None
    begun: float = 0.0


def _append(batch: SegmentBatch, clips: Sequence[_SegmentClip], video: VideoJob, progress: TaskProgress) -> int:
    """Add frames and flow to the clip of each segment that has some of this batch; return how many flow fields, or frames, were added."""
    if not batch.numbers:
        return 0
    frames = solver_frames(batch.frames, video.settings)
    solved: dict[tuple[int, int], NDArray[np.uint8]] = {}
    held = {number: (number, frames[k].copy()) for k, number in enumerate(batch.numbers)}  # not views, which would hold the whole batch
    num_steps = 0
    for index, places in batch.places.items():
        clip = clips[index]
        clip.begun = clip.begun or time.monotonic()
        chain = [*([] if clip.last is None else [clip.last]), *(held[batch.numbers[place]] for place in places)]
        if video.settings.has_flow:
            _solve(chain, solved, video, progress)
        fields = [solved[a[0], b[0]] for a, b in pairwise(chain)] if video.settings.has_flow else []
        q = np.stack(fields) if fields else np.empty((0, 2, *batch.frames.shape[1:3]), np.uint8)
        clip.new.append(batch.frames[places], q, batch.times[places])
        clip.last = chain[-1]
        num_steps += len(fields) if video.settings.has_flow else len(places)
    return num_steps


def _solve(chain: Sequence[_Numbered], solved: dict[tuple[int, int], NDArray[np.uint8]], video: VideoJob, progress: TaskProgress) -> None:
    """Solve the flow between consecutive frames of a segment that no other segment has had in this batch."""
    missing: list[_Numbered] = []

    def solve_missing() -> None:
        if len(missing) > 1:
            q = quantised_flow(np.stack([frame for _, frame in missing]), video.settings, video.service, alive=progress.alive)
            solved.update(zip(((a[0], b[0]) for a, b in pairwise(missing)), q, strict=True))
        missing.clear()

    for a, b in pairwise(chain):
        if (a[0], b[0]) in solved:
            solve_missing()
            continue
        if not missing:
            missing.append(a)
        missing.append(b)
    solve_missing()


def _segment_of(job: VideoJob) -> Segment:
    assert job.segment is not None, "the jobs of this task are segments"
    return job.segment
