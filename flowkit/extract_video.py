"""Extract one video, in a worker process: decode, resize, flow, quantise, write its clip file.

Frames stream through in small batches, so memory does not grow with a video's length.
"""

from __future__ import annotations

import errno
import hashlib
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from flowkit.errors import DeviceError, VideoDecodeError
from flowkit.ledger import WRITTEN, VideoResult, with_status

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from flowkit.config import ExtractSettings
    from flowkit.parallel import Board
    from flowkit.shards.schema import ClipAttributes
    from flowkit.video import VideoInfo

BATCH_SIZE = 16  # frames in memory at once, in each process
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


@dataclass(frozen=True)
class Sample:
    """What the first pairs of a video took."""

    num_pairs: int
    num_bytes: int
    seconds: float


class _StoppedError(Exception):
    """The parent asked the workers to stop."""


def extract_video(job: VideoJob, board: Board, slot: int) -> VideoResult | None:
    """Extract one video.

    Parameters
    ----------
    job : VideoJob
    board : Board
        Where the number of pairs done is noted, in `slot`.

    Returns
    -------
    VideoResult, or None if the run was stopped before the video was finished.

    Raises
    ------
    OSError
        If the disk is full or read-only: later videos would not fare better.
    DeviceError
        If the device of the solver is not to be had.
    """
    started = time.monotonic()
    failed = VideoResult(job.video_id, "failed", job.source_bytes, job.source_mtime_ns)
    try:
        result = _extract_video(job, board, slot)
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


def _extract_video(job: VideoJob, board: Board, slot: int) -> VideoResult:
    from flowkit.shards.writer import ClipWriter
    from flowkit.video import probe

    info = probe(Path(job.path))
    expected = max(info.header_frames - 1, 0)
    num_frames = num_pairs = decode_errors = 0
    writer: ClipWriter | None = None
    try:
        for frames, q, errors_so_far in _frames_and_flow(Path(job.path), job.settings):
            decode_errors = errors_so_far
            if board.stopping:
                raise _StoppedError
            if writer is None and len(frames):
                path = Path(job.clip_path)
                path.parent.mkdir(parents=True, exist_ok=True)
                writer = ClipWriter(path, codec=job.settings.codec, height=frames.shape[1], width=frames.shape[2])
            if writer is not None:
                writer.append_frames(frames)
                writer.append_flow(q)
            num_frames += len(frames)
            num_pairs += len(q)
            board.write(slot, num_pairs, expected)
        counts = VideoResult(job.video_id, "ok", job.source_bytes, job.source_mtime_ns, num_frames, info.header_frames, decode_errors)
        result = with_status(counts)
        if writer is None or result.status not in WRITTEN:
            return result
        return replace(result, clip_bytes=writer.finish(_attributes(job, info, result)))
    finally:
        if writer is not None:
            writer.close()


def _frames_and_flow(
    path: Path, settings: ExtractSettings, *, batch_size: int = BATCH_SIZE
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8], int]]:
    """Yield (frames, quantised flow to them from the frames before, decode errors so far); the first frame has no flow."""
    import numpy as np

    from flowkit.flow import compute_flow, to_grey
    from flowkit.video import read_frames

    device = "cuda" if settings.solver == "cuda" else "cpu"
    mode = "fast" if settings.solver == "fast" else "strict"
    last_grey: NDArray[np.uint8] | None = None
    for batch in read_frames(path, short_side=settings.short_side, batch_size=batch_size):
        if not len(batch.frames):  # only news of decode errors
            yield batch.frames, np.empty((0, 2, *batch.frames.shape[1:3]), np.uint8), batch.decode_errors
            continue
        grey = to_grey(batch.frames)
        if last_grey is not None:
            grey = np.concatenate([last_grey[None], grey])
        last_grey = grey[-1]
        flow = compute_flow(grey, params=settings.tvl1, device=device, mode=mode)
        yield batch.frames, settings.quantiser.encode(flow), batch.decode_errors


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
    from flowkit.video import probe

    with tempfile.TemporaryDirectory(prefix="flowkit-sample-") as folder:
        try:
            info = probe(Path(job.path))
            for _ in range(2):  # the first time compiles and warms caches
                started = time.monotonic()
                frames, q, _errors = next(_frames_and_flow(Path(job.path), job.settings, batch_size=num_frames))
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


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
