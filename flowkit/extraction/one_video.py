"""Extract one video in a worker process: decode, resize, solve the flow, quantise, and write the clip file.

Frames stream through in small batches, so memory does not grow with a video's length. With the process of a GPU, a few batches are
there while others are decoded, encoded and compressed here; what is written does not depend on it.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import DeviceError, SourceChangedError, VideoDecodeError
from flowkit.extraction.jobs import PieceJob, TaskResult, VideoJob, frames_promised, video_of
from flowkit.extraction.new_clip import NewClip, clip_attributes
from flowkit.extraction.pieces import (
    PieceReader,
    PieceWriter,
    drop_stale_pieces,
    find_pieces,
    missing_ranges,
    read_source,
    record_source,
    remove_pieces,
)
from flowkit.extraction.results import WRITTEN, VideoResult
from flowkit.extraction.solving import FlowQueue, solver_frames
from flowkit.extraction.source import Source
from flowkit.shards.writer import ClipWriter
from flowkit.temporary import temporary_folder
from flowkit.video.decode import FrameBatch, VideoInfo, probe, read_frames
from flowkit.workers.progress import StoppedError, TaskProgress

BATCH_SIZE = 16  # frames in memory at once, in each process
_DECODED_AT_ONCE, _USUAL_RATE = 1024, 60  # frames that are decoded between two signs of life, where few of them are chosen; frames/s
MIN_RESUMED = 300  # flow fields of a video whose finished part is worth keeping (about half a minute of work)
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}  # they would stop every later video too


@dataclass(frozen=True)
class TimedSample:
    """The size and the time of the first flow fields of a video, with their frames."""

    num_pairs: int  # of frames, if there is no flow between them
    num_bytes: int
    seconds: float


def extract_task(task: VideoJob | PieceJob, progress: TaskProgress) -> TaskResult:
    """Extract one video, or solve a piece of one.

    Parameters
    ----------
    task : VideoJob or PieceJob
        The video, or the piece.
    progress : TaskProgress
        Receives the number of flow fields that are done.

    Returns
    -------
    TaskResult
        Anything that is wrong with a video is a result, not an exception.

    Raises
    ------
    OSError
        If the disk is full or read-only: later videos would fail too.
    DeviceError
        If the device of the solver is unavailable.
    """
    started = time.monotonic()
    job = video_of(task)
    try:
        if isinstance(task, PieceJob):
            return TaskResult(num_pairs=_solve_piece(task, progress))
        result = _extract_video(task, progress)
    except StoppedError:
        return TaskResult(stopped=True)
    except Exception as error:  # one bad video never stops the others, and is reported
        result = failure(job, error)
        if isinstance(error, SourceChangedError):
            remove_pieces(job.piece_folder)
    num_pairs = 0 if job.pieces else result.num_steps
    return TaskResult(replace(result, seconds=round(time.monotonic() - started, 3)), num_pairs)


def failure(job: VideoJob, error: Exception) -> VideoResult:
    """Return the result of a video whose extraction raised an error; raise the error again if later videos would fail too."""
    failed = VideoResult(job.video_id, "failed", job.source_bytes, job.source_mtime_ns)
    if isinstance(error, DeviceError) or (isinstance(error, OSError) and error.errno in _DISK_ERRORS):
        raise error
    if isinstance(error, VideoDecodeError):
        return replace(failed, status="undecodable", error=str(error))
    if isinstance(error, SourceChangedError):
        return replace(failed, error=str(error))
    if isinstance(error, OSError):
        return replace(failed, error=f"{error.strerror}: {error.filename}" if error.filename else str(error))
    return replace(failed, error=f"{type(error).__name__}: {error}")


def _extract_video(job: VideoJob, progress: TaskProgress) -> VideoResult:
    """Extract one version of a video file: the one that its pieces are of, or else the present one, whatever it was when it was planned."""
    source = _piece_source(job) if job.pieces else Source(job.path)
    with source.unchanged():
        return _extract_source(job.with_version(source.version), source, progress)


def _piece_source(job: VideoJob) -> Source:
    """Return the version of a video file that its pieces are of, and record it with the first piece."""
    source = read_source(job.piece_folder, job.path)
    if source is None:
        source = Source(job.path, job.version)
        record_source(job.piece_folder, source)
    return source


def _extract_source(job: VideoJob, source: Source, progress: TaskProgress) -> VideoResult:
    check_frames(job, source)
    progress.alive()  # a large file on a slow disk may have taken minutes
    info = probe(job.path, stream=job.settings.reading.stream)
    expected = max(frames_promised(job, info) - 1, 0)
    if not job.pieces and expected >= MIN_RESUMED and job.settings.has_flow:
        drop_stale_pieces(job.piece_folder, job.path, source.version)
        record_source(job.piece_folder, source)
        for start, stop in missing_ranges(find_pieces(job.piece_folder), expected, 1):
            _solve_piece(PieceJob(job, start, stop, expected, 1), progress)
        job = replace(job, pieces=tuple(find_pieces(job.piece_folder)))
    with PieceReader(job.pieces) as stored, NewClip(job, info.frame_rate, sha256=source.sha256) as clip:
        batches, encode = _frames(job, progress), lambda batch: clip.add_frames(batch.frames, batch.times)
        report = None
        for batch, q in _with_stored_flow(batches, stored, encode) if job.pieces else _with_flow(batches, job, progress.alive, encode):
            clip.add_flow(q, batch.frames)
            report = batch.report
            if not job.pieces:
                progress.note(batch.start + len(batch.frames) - 1, expected)
        assert report is not None, "the last batch has the report"
        result = clip.result(report)
        if result.status in WRITTEN:
            progress.alive()
            source.confirm()
        return clip.finish(result)


def check_frames(job: VideoJob, source: Source) -> None:
    """Refuse to add flow to the frames of another file: raise `SourceChangedError` if the frames that are stored are not of this one."""
    if job.frames_sha256 not in ("", source.sha256):
        raise SourceChangedError(
            f"{str(job.path)!r} is not the file whose frames are stored (its SHA-256 differs), so no flow is added to them: put that "
            f"file back, delete the clip file {str(job.clip_path)!r} to extract the new one, or choose another data root"
        )


def _solve_piece(task: PieceJob, progress: TaskProgress) -> int:
    """Solve flow fields `start` to `stop` of a video, keeping those that are finished if the run is stopped; return how many."""
    num_done = 0
    source = _piece_source(task.video)
    check_frames(task.video, source)
    with source.unchanged(), closing(PieceWriter(task.video.piece_folder, task.start, source.check)) as writer:
        for _, q in _with_flow(_frames(task.video, progress), task.video, progress.alive, start=task.start, stop=task.stop):
            writer.append(q)
            num_done += len(q)
            progress.note(num_done, task.num_pairs)
    return num_done


def _frames(job: VideoJob, progress: TaskProgress) -> Iterator[FrameBatch]:
    """Yield the frames of a video in small batches; raise `StoppedError` once the run is to be stopped."""
    reading = job.settings.reading
    apart = reading.every if reading.rate is None else max(int(_USUAL_RATE / reading.rate), 1)
    batch_size = max(min(BATCH_SIZE, _DECODED_AT_ONCE // apart), 1)
    for batch in read_frames(job.path, short_side=job.settings.short_side, batch_size=batch_size, reading=reading):
        if progress.stopping:
            raise StoppedError
        progress.alive()
        yield batch


def _with_flow(
    batches: Iterable[FrameBatch],
    job: VideoJob,
    alive: Callable[[], None],
    encode: Callable[[FrameBatch], None] = lambda batch: None,
    *,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[tuple[FrameBatch, NDArray[np.uint8]]]:
    """Yield each batch with the quantised flow to each of its frames from the frame before: of the flow fields `start` to `stop`.

    While a GPU solves a batch, its frames are encoded, and the next batches are decoded. What is yielded is compressed meanwhile.
    """
    with FlowQueue(job.settings, job.service, alive=alive) as flows:

        def begun() -> Iterator[FrameBatch]:
            last: NDArray[np.uint8] | None = None
            for batch in batches:
                end = None if stop is None else max(stop + 1 - batch.start, 0)
                frames = solver_frames(batch.frames[max(start - batch.start, 0) : end], job.settings)
                if last is not None:
                    frames = np.concatenate([last, frames])
                last = frames[-1:]
                flows.begin(frames)
                encode(batch)
                yield batch
                if stop is not None and batch.start + len(batch.frames) > stop:
                    return

        for batch in flows.in_order(begun()):
            yield batch, flows.take()


def _with_stored_flow(
    batches: Iterable[FrameBatch], stored: PieceReader, encode: Callable[[FrameBatch], None]
) -> Iterator[tuple[FrameBatch, NDArray[np.uint8]]]:
    """Yield each batch as `_with_flow` does, with flow that was solved before."""
    for batch in batches:
        encode(batch)
        yield batch, stored.read(len(batch.frames) - (batch.start == 0), *batch.frames.shape[1:3])


def sample_video(job: VideoJob, num_frames: int) -> TimedSample | str:
    """Extract the first frames of a video into a temporary folder, to measure them; return why not if they cannot be decoded."""
    with temporary_folder("sample") as folder:
        try:
            info = probe(job.path, stream=job.settings.reading.stream)
            for _ in range(2):  # the first time compiles and warms caches
                started = time.monotonic()
                size, reading = job.settings.short_side, job.settings.reading
                batches = read_frames(job.path, short_side=size, batch_size=num_frames, reading=reading)
                batch, q = next(_with_flow(batches, job, lambda: None))
                frames = batch.frames
                if len(frames) < 2:
                    return "only 1 frame could be decoded; flow needs 2"
                num_bytes = _stored_bytes(job, info, frames, q, folder / "sample.h5")
                seconds = time.monotonic() - started
            if len(frames) > 2:  # a clip has one frame more than flow fields, which would count for much in a short one
                num_bytes -= _stored_bytes(job, info, frames[:2], q[:1], folder / "two.h5")
                num_pairs = len(frames) - 1
                return TimedSample(num_pairs - 1, max(num_bytes, 0), seconds * (num_pairs - 1) / num_pairs)
        except StopIteration:
            return "no frame could be decoded"
        except VideoDecodeError as error:
            return str(error)
    return TimedSample(1, num_bytes, seconds)


def _stored_bytes(job: VideoJob, info: VideoInfo, frames: NDArray[np.uint8], q: NDArray[np.uint8], path: Path) -> int:
    """Write a clip file of a few frames and return its size."""
    with ClipWriter(path, codec=job.settings.codec, height=frames.shape[1], width=frames.shape[2]) as writer:
        writer.append_frames(frames)
        if job.settings.has_flow:
            writer.append_flow(q)
        attributes = clip_attributes(job, info.frame_rate, VideoResult(job.video_id, "ok", 0, 0, len(frames)), sha256="0" * 64)
        return writer.finish(attributes)
