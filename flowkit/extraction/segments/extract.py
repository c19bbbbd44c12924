"""Extract the segments of one video in a worker process: the file is decoded once, and the flow between two frames is solved once.

Each segment's clip file is written as soon as its last frame has been reached, so a run that is stopped continues with the others.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
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
from flowkit.extraction.solving import FlowQueue, solver_frames
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
        flows = stack.enter_context(FlowQueue(settings, task.video.service, alive=progress.alive))
        for begun in flows.in_order(_begun(batches, clips, task.video, flows, progress)):
            num_done += _add_flow(begun, clips, flows)
            progress.note(num_done, expected)
            for index, report in begun.batch.ended.items():
                clip = clips[index]
                result = clip.new.result(report)
                if result.status in WRITTEN:
                    source.check()
                seconds = round(time.monotonic() - clip.begun, 3) if clip.begun else 0.0
                results[todo[index].video_id] = replace(clip.new.finish(result), seconds=seconds)
                clip.new.close()


@dataclass
class _SegmentClip:
    """The clip file of a segment in the making, and the last frame that it has so far."""

    new: NewClip
    last: _Numbered | None = None
    begun: float = 0.0


@dataclass(frozen=True)
class _BegunBatch:
    """A batch whose frames are in the clip files, and whose flow is being solved: in runs of frames that follow one another."""

    batch: SegmentBatch
    chains: dict[int, list[int]]  # the numbers of the frames of each segment in this batch, after that of its last frame before
    runs: list[list[int]]


def _begun(
    batches: Iterable[SegmentBatch], clips: Sequence[_SegmentClip], video: VideoJob, flows: FlowQueue, progress: TaskProgress
) -> Iterator[_BegunBatch]:
    """Begin to solve the flow of each batch, and add its frames to the clip of each segment that has some of them."""
    for batch in batches:
        if progress.stopping:
            raise StoppedError
        progress.alive()
        frames = solver_frames(batch.frames, video.settings) if batch.numbers else batch.frames
        held = {number: (number, frames[k].copy()) for k, number in enumerate(batch.numbers)}  # not views, which would hold the whole batch
        chains: dict[int, list[_Numbered]] = {}
        for index, places in batch.places.items():
            clip = clips[index]
            clip.begun = clip.begun or time.monotonic()
            chains[index] = [*([] if clip.last is None else [clip.last]), *(held[batch.numbers[place]] for place in places)]
            clip.last = chains[index][-1]
        for index in batch.ended:
            clips[index].last = None
        runs = _runs(chains.values()) if video.settings.has_flow else []
        for run in runs:
            flows.begin(np.stack([frame for _, frame in run]))
        for index, places in batch.places.items():
            clips[index].new.add_frames(batch.frames[places], batch.times[places])
        yield _BegunBatch(batch, {index: _numbers(chain) for index, chain in chains.items()}, [*map(_numbers, runs)])


def _numbers(chain: Iterable[_Numbered]) -> list[int]:
    return [number for number, _ in chain]


def _runs(chains: Iterable[Sequence[_Numbered]]) -> list[list[_Numbered]]:
    """Return the frames of these segments in runs, in which each pair of frames that follow one another in a segment occurs once."""
    seen: set[tuple[int, int]] = set()
    runs: list[list[_Numbered]] = []
    for chain in chains:
        run: list[_Numbered] = []
        for a, b in pairwise(chain):
            if (a[0], b[0]) in seen:
                run = []
                continue
            seen.add((a[0], b[0]))
            if not run:
                run = [a]
                runs.append(run)
            run.append(b)
    return runs


def _add_flow(begun: _BegunBatch, clips: Sequence[_SegmentClip], flows: FlowQueue) -> int:
    """Add flow to the clip of each segment that has frames in a batch; return how many flow fields, or frames, were added."""
    solved: dict[tuple[int, int], NDArray[np.uint8]] = {}
    for run in begun.runs:
        solved.update(zip(pairwise(run), flows.take(), strict=True))
    num_steps = 0
    for index, places in begun.batch.places.items():
        new, frames = clips[index].new, begun.batch.frames
        if new.job.settings.has_flow:
            fields = [solved[pair] for pair in pairwise(begun.chains[index])]
            new.add_flow(np.stack(fields) if fields else np.empty((0, 2, *frames.shape[1:3]), np.uint8), frames[places[-2:]])
            num_steps += len(fields)
        else:
            num_steps += len(places)
    return num_steps


def _segment_of(job: VideoJob) -> Segment:
    assert job.segment is not None, "the jobs of this task are segments"
    return job.segment
