"""Extract one video, in a worker process: decode, resize, flow, quantise, write its clip file.

Frames stream through in small batches, so memory does not grow with a video's length.
"""

from __future__ import annotations

import errno
import tempfile
import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from flowkit.errors import DeviceError, VideoDecodeError
from flowkit.extraction.pieces import Segment, SegmentReader, SegmentWriter, find_segments, missing_ranges, segment_folder
from flowkit.extraction.results import WRITTEN, VideoResult, with_status
from flowkit.files import file_sha256
from flowkit.flow.cuda.service import FlowClient, ServiceAddress

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from flowkit.dataset.settings import ExtractSettings
    from flowkit.shards.schema import ClipAttributes
    from flowkit.video.decode import VideoInfo
    from flowkit.workers.progress import TaskProgress

BATCH_SIZE = 16  # frames in memory at once, in each process
MIN_RESUMED = 300  # flow fields of a video whose finished part is worth keeping (about half a minute of work)
_DISK_TROUBLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}  # no later video would fare better


@dataclass(frozen=True)
class VideoJob:
    """One video to extract: what a worker process needs to know."""

    video_id: str
    path: str
    class_name: str
    clip_path: str
    settings: ExtractSettings
    source_bytes: int
    source_mtime_ns: int
    segments: tuple[Segment, ...] = ()  # its flow, where that was solved before
    service: ServiceAddress | None = None  # of the GPU's process, with the cuda solver

    @property
    def segment_folder(self) -> Path:
        """Where the segments of this version of the video lie."""
        clips = Path(self.clip_path).parents[self.video_id.count("/")]
        return segment_folder(clips, self.video_id, self.source_bytes, self.source_mtime_ns)


@dataclass(frozen=True)
class SegmentJob:
    """A range of one video's flow fields to solve; `stop` None is to the end."""

    video: VideoJob
    start: int
    stop: int | None
    num_pairs: int  # expected in this range
    num_pieces: int  # ranges the video's missing flow was cut into


@dataclass(frozen=True)
class Sample:
    """What the first pairs of a video took."""

    num_pairs: int
    num_bytes: int
    seconds: float


class _StoppedError(Exception):
    """The parent asked the workers to stop."""


def extract_task(task: VideoJob | SegmentJob, progress: TaskProgress) -> VideoResult | int | None:
    """Extract one video, or solve a segment of one.

    Parameters
    ----------
    task : VideoJob or SegmentJob
    progress : TaskProgress
        Receives the number of flow fields that are done.

    Returns
    -------
    VideoResult
        Of a video; of a segment only if its video failed.
    int
        Of a segment: how many flow fields were solved.
    None
        If the run was stopped before the task was finished. Finished flow fields of a segment are kept.

    Raises
    ------
    OSError
        If the disk is full or read-only: later videos would not fare better.
    DeviceError
        If the device of the solver is not to be had.
    """
    started = time.monotonic()
    job = task.video if isinstance(task, SegmentJob) else task
    failed = VideoResult(job.video_id, "failed", job.source_bytes, job.source_mtime_ns)
    try:
        if isinstance(task, SegmentJob):
            return _solve_segment(task, progress)
        result = _extract_video(task, progress)
    except _StoppedError:
        return None
    except DeviceError:
        raise
    except VideoDecodeError as error:
        result = replace(failed, status="undecodable", error=str(error))
    except OSError as error:
        if error.errno in _DISK_TROUBLE:
            raise
        result = replace(failed, error=f"{error.strerror}: {error.filename}" if error.filename else str(error))
    except Exception as error:  # one bad video never stops the rest, and is not hidden
        result = replace(failed, error=f"{type(error).__name__}: {error}")
    return replace(result, seconds=round(time.monotonic() - started, 3))


def _extract_video(job: VideoJob, progress: TaskProgress) -> VideoResult:
    from flowkit.shards.writer import ClipWriter
    from flowkit.video.decode import probe

    info = probe(Path(job.path))
    expected = max(info.header_frames - 1, 0)
    if not job.segments and expected >= MIN_RESUMED:
        for start, stop in missing_ranges(find_segments(job.segment_folder), expected, 1):
            _solve_segment(SegmentJob(job, start, stop, expected, 1), progress)
        job = replace(job, segments=tuple(find_segments(job.segment_folder)))
    num_frames = decode_errors = 0
    writer: ClipWriter | None = None
    with SegmentReader(job.segments) as solved:
        try:
            for frames, q, errors_so_far in _frames_and_flow(job, solved if job.segments else None):
                decode_errors = errors_so_far
                if progress.stopping:
                    raise _StoppedError
                if writer is None:
                    path = Path(job.clip_path)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    writer = ClipWriter(path, codec=job.settings.codec, height=frames.shape[1], width=frames.shape[2])
                writer.append_frames(frames)
                writer.append_flow(q)
                num_frames += len(frames)
                if not job.segments:
                    progress.note(num_frames - 1, expected)
            counts = VideoResult(job.video_id, "ok", job.source_bytes, job.source_mtime_ns, num_frames, info.header_frames, decode_errors)
            result = with_status(counts)
            if writer is None or result.status not in WRITTEN:
                return result
            return replace(result, clip_bytes=writer.finish(_attributes(job, info, result)))
        finally:
            if writer is not None:
                writer.close()


def _frames_and_flow(
    job: VideoJob, solved: SegmentReader | None = None, *, batch_size: int = BATCH_SIZE
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8], int]]:
    """Yield (frames, quantised flow to each from the frame before, decode errors so far); the first frame has no flow."""
    import numpy as np

    from flowkit.flow import to_grey
    from flowkit.video.decode import read_frames

    last_grey: NDArray[np.uint8] | None = None
    for batch in read_frames(Path(job.path), short_side=job.settings.short_side, batch_size=batch_size):
        if solved is not None:
            q = solved.read(len(batch.frames) - (batch.start == 0), *batch.frames.shape[1:3])
        else:
            grey = to_grey(batch.frames)
            if last_grey is not None:
                grey = np.concatenate([last_grey[None], grey])
            last_grey = grey[-1]
            q = _quantised_flow(grey, job)
        yield batch.frames, q, batch.decode_errors


def _quantised_flow(grey: NDArray[np.uint8], job: VideoJob) -> NDArray[np.uint8]:
    """Return the quantised flow between consecutive grey frames (n, H, W): uint8 (n - 1, 2, H, W)."""
    import numpy as np

    from flowkit.flow import compute_flow

    if len(grey) < 2:
        return np.empty((0, 2, *grey.shape[1:]), np.uint8)
    if job.service is not None:
        return _client(job.service).solve(grey)
    device = "cuda" if job.settings.solver == "cuda" else "cpu"
    mode = "fast" if job.settings.solver == "fast" else "strict"
    return job.settings.quantiser.encode(compute_flow(grey, params=job.settings.tvl1, device=device, mode=mode))


@cache
def _client(address: ServiceAddress) -> FlowClient:
    """Return this worker's connection to a GPU's process: one each, whichever the worker's next video goes to."""
    return FlowClient(address)


def _solve_segment(task: SegmentJob, progress: TaskProgress) -> int:
    """Solve flow fields `start` to `stop` of a video, keeping what is finished when a stop comes; return how many."""
    import numpy as np

    from flowkit.flow import to_grey
    from flowkit.video.decode import read_frames

    writer = SegmentWriter(task.video.segment_folder, task.start)
    num_done = 0
    last_grey: NDArray[np.uint8] | None = None
    try:
        for batch in read_frames(Path(task.video.path), short_side=task.video.settings.short_side, batch_size=BATCH_SIZE):
            if progress.stopping:
                raise _StoppedError
            wanted = batch.frames[max(task.start - batch.start, 0) : None if task.stop is None else max(task.stop + 1 - batch.start, 0)]
            if len(wanted):
                grey = to_grey(wanted)
                if last_grey is not None:
                    grey = np.concatenate([last_grey[None], grey])
                last_grey = grey[-1]
                q = _quantised_flow(grey, task.video)
                writer.append(q)
                num_done += len(q)
                progress.note(num_done, task.num_pairs)
            if task.stop is not None and batch.start + len(batch.frames) > task.stop:
                break
        return num_done
    finally:
        writer.close()


def _attributes(job: VideoJob, info: VideoInfo, result: VideoResult) -> ClipAttributes:
    """Return what is stored beside a clip's data."""
    from flowkit.shards.schema import ClipAttributes

    settings = job.settings
    return ClipAttributes(
        video_id=job.video_id,
        class_name=job.class_name,
        source_name=Path(job.path).name,
        source_sha256=file_sha256(Path(job.path)),
        frame_rate=f"{info.frame_rate.numerator}/{info.frame_rate.denominator}",
        num_frames=result.num_frames,
        header_frames=result.header_frames,
        decode_errors=result.decode_errors,
        codec=settings.codec,
        quantiser=settings.quantiser.to_dict(),
        tvl1=settings.tvl1.to_dict(),
        solver=settings.solver,
    )


def sample_video(job: VideoJob, num_frames: int) -> Sample | None:
    """Extract a video's first frames to a temporary folder, to learn what a pair takes; None if they cannot be decoded."""
    from flowkit.shards.writer import ClipWriter
    from flowkit.video.decode import probe

    with tempfile.TemporaryDirectory(prefix="flowkit-sample-") as folder:
        try:
            info = probe(Path(job.path))
            for _ in range(2):  # the first time compiles and warms caches
                started = time.monotonic()
                frames, q, _errors = next(_frames_and_flow(job, batch_size=num_frames))
                if len(frames) < 2:
                    return None
                with ClipWriter(
                    Path(folder) / "sample.h5", codec=job.settings.codec, height=frames.shape[1], width=frames.shape[2]
                ) as writer:
                    writer.append_frames(frames)
                    writer.append_flow(q)
                    counts = VideoResult(job.video_id, "ok", 0, 0, len(frames))
                    num_bytes = writer.finish(_attributes(job, info, counts))
                seconds = time.monotonic() - started
        except (VideoDecodeError, StopIteration):
            return None
    return Sample(len(q), num_bytes, seconds)
