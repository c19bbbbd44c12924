"""Import one video of a tree of images: its frames and flow into a clip file, the bytes of JPEGs kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from flowkit.dataset.settings import ExtractSettings, ForeignTool
from flowkit.errors import FlowkitError, ShardFormatError, SourceChangedError
from flowkit.exchange.foreign_images import check_grey, check_step, decode_frame, decode_plane, read_image, resized
from flowkit.exchange.foreign_trees import TreeVideo
from flowkit.exchange.image_runs import ImageRun, align, read_runs
from flowkit.extraction.results import VideoResult
from flowkit.file_versions import FileVersion, versions_in
from flowkit.shards.schema import ClipAttributes
from flowkit.shards.writer import ClipWriter
from flowkit.workers.progress import TaskProgress

Trim = Literal["none", "first", "last"]


@dataclass(frozen=True)
class ImportJob:
    """One video to import, in a worker process."""

    video: TreeVideo
    tool: ForeignTool
    settings: ExtractSettings
    clip_path: str
    trim: Trim
    frame_rate: str
    known: ClipAttributes | None  # the attributes in the record of an export
    times: tuple[float, ...] | None  # and the time stamps
    resize: bool = False


def import_task(job: ImportJob, progress: TaskProgress) -> VideoResult | None:
    """Import one video in a worker process; None if the run is being stopped."""
    return None if progress.stopping else import_video(job, progress.alive)


def prepare_process() -> None:
    """Load what a worker process needs, before its first video."""
    import cv2

    cv2.setNumThreads(1)


def import_video(job: ImportJob, alive: Callable[[], None]) -> VideoResult:
    """Import one video; any fault of its images becomes part of the result instead of an exception.

    `alive` is called before each image is read.

    Raises
    ------
    OSError
        If the clip cannot be written.
    """
    started = time.monotonic()
    try:
        versions = _versions(job.video)
        runs = read_runs(job.video)
        *aligned, remark = align(*runs, job.tool, trim=job.trim)
        frames, u, v = aligned
        if job.known is None:
            check_grey(u, v)
            if num_dropped := len(runs[0].paths) - len(frames.paths):
                bound_px = job.settings.quantiser.bound
                check_step(runs[0].paths, u, v, bound_px=bound_px, num_dropped=num_dropped, trim=job.trim)
        num_source_bytes, num_clip_bytes, resized_from = _write_clip(job, frames, u, v, versions, alive)
    except FlowkitError as error:
        return VideoResult(job.video.video_id, "failed", 0, 0, seconds=time.monotonic() - started, error=str(error))
    remark = "; ".join(filter(None, (remark, resized_from)))
    seconds = time.monotonic() - started
    num_frames = len(frames.paths)
    return VideoResult(job.video.video_id, "ok", num_source_bytes, 0, num_frames, clip_bytes=num_clip_bytes, seconds=seconds, error=remark)


def _versions(video: TreeVideo) -> dict[Path, FileVersion | None]:
    """Return the versions of all files of a video, by which it is seen that all that was read fits together."""
    return versions_in({video.frames, video.u, video.v})


def _write_clip(
    job: ImportJob, frames: ImageRun, u: ImageRun, v: ImageRun, versions: dict[Path, FileVersion | None], alive: Callable[[], None]
) -> tuple[int, int, str]:
    """Write the clip file of a video; return the numbers of bytes that were read and written, and how frames were resized.

    Raises
    ------
    SourceChangedError
        If the files of the video no longer have these versions.
    """
    codec = job.settings.codec
    if u.is_png == (codec == "jpeg") or u.is_png != v.is_png:
        kinds = f"{u.paths[0].suffix} and {v.paths[0].suffix}"
        raise ShardFormatError(f"flow images are {kinds}, where the data root has codec {codec}; import them into another root")
    _, (height, width) = read_image(u.paths[0])
    with ClipWriter(Path(job.clip_path), codec=codec, height=height, width=width) as writer:
        num_bytes, resized_from = 0, ""
        for path in frames.paths:
            alive()
            data, size = read_image(path)
            num_bytes += len(data)
            if size != (height, width):
                _check_size(path, size, (height, width), may_resize=job.resize)
                resized_from = resized_from or f"frames resized from {size[1]}x{size[0]} to {width}x{height} px"
                writer.append_frames(resized(decode_frame(data, path.name), height, width)[np.newaxis])
            elif frames.is_png:
                writer.append_frames(decode_frame(data, path.name)[np.newaxis])
            else:
                writer.append_encoded_frames([data])
        for pair in zip(u.paths, v.paths, strict=True):
            alive()
            images = []
            for path in pair:
                data, size = read_image(path)
                _check_size(path, size, (height, width), may_resize=False)
                images.append(data)
            num_bytes += sum(map(len, images))
            if u.is_png:
                planes = [decode_plane(data, path.name) for data, path in zip(images, pair, strict=True)]
                writer.append_flow(np.stack(planes)[np.newaxis])
            else:
                writer.append_encoded_flow(images)
        if _versions(job.video) != versions:
            raise SourceChangedError("its images were replaced, added or removed while they were imported; run the same line again")
        times = None if job.times is None else np.array(job.times, np.float64)
        return num_bytes, writer.finish(_attributes(job, len(frames.paths)), times=times), resized_from


def _check_size(path: Path, size: tuple[int, int], expected: tuple[int, int], *, may_resize: bool) -> None:
    if size != expected and not may_resize:
        raise ShardFormatError(
            f"{path.parent.name}/{path.name} has {size[1]}x{size[0]} px, but the first flow image has {expected[1]}x{expected[0]} px; "
            "frames and flow must have the same size, since flow is in px of that size (--resize brings frames to the size of flow)"
        )


def _attributes(job: ImportJob, num_frames: int) -> ClipAttributes:
    settings = job.settings
    if job.known is not None:
        if job.known.num_frames != num_frames:
            raise ShardFormatError(f"has {num_frames} frames, but the record of the export says {job.known.num_frames}")
        return replace(job.known, codec=settings.codec, quantiser=settings.quantiser.to_dict())
    return ClipAttributes(
        video_id=job.video.video_id,
        class_name=job.video.class_name,
        source_name=job.video.folder.rpartition("/")[2],
        source_sha256="",
        frame_rate=job.frame_rate,
        num_frames=num_frames,
        header_frames=0,
        decode_errors=0,
        codec=settings.codec,
        quantiser=settings.quantiser.to_dict(),
        tvl1=settings.stored_tvl1(),
        solver=settings.solver,
    )
