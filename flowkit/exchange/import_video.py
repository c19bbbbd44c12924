"""Import one video of a tree of images: its frames and flow into a clip file, the bytes of JPEGs kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from flowkit.dataset.settings import ExtractSettings, ForeignTool
from flowkit.errors import FlowkitError, ShardFormatError
from flowkit.exchange.foreign_trees import ImageRun, TreeVideo, align, read_image, read_runs
from flowkit.extraction.results import VideoResult
from flowkit.shards.schema import ClipAttributes
from flowkit.shards.writer import ClipWriter
from flowkit.workers.progress import TaskProgress

Trim = Literal["none", "first", "last"]

_AT_ONCE = 64  # images in memory


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


def import_task(job: ImportJob, progress: TaskProgress) -> VideoResult | None:
    """Import one video in a worker process; None if the run is being stopped."""
    return None if progress.stopping else import_video(job)


def import_video(job: ImportJob) -> VideoResult:
    """Import one video; any fault of its images becomes part of the result instead of an exception.

    Raises
    ------
    OSError
        If the clip cannot be written.
    """
    started = time.monotonic()
    try:
        runs = read_runs(job.video, job.tool)
        *aligned, dropped = align(*runs, job.tool, trim=job.trim)
        frames, u, v = aligned
        num_source_bytes, num_clip_bytes = _write_clip(job, frames, u, v)
    except FlowkitError as error:
        return VideoResult(job.video.video_id, "failed", 0, 0, seconds=time.monotonic() - started, error=str(error))
    seconds = time.monotonic() - started
    num_frames = len(frames.paths)
    return VideoResult(job.video.video_id, "ok", num_source_bytes, 0, num_frames, clip_bytes=num_clip_bytes, seconds=seconds, error=dropped)


def _write_clip(job: ImportJob, frames: ImageRun, u: ImageRun, v: ImageRun) -> tuple[int, int]:
    """Write the clip file of a video; return the numbers of bytes that were read and written."""
    codec = job.settings.codec
    if u.is_png == (codec == "jpeg") or u.is_png != v.is_png:
        kinds = f"{u.paths[0].suffix} and {v.paths[0].suffix}"
        raise ShardFormatError(f"flow images are {kinds}, where the data root has codec {codec}; import them into another root")
    _, (height, width) = read_image(u.paths[0])
    with ClipWriter(Path(job.clip_path), codec=codec, height=height, width=width) as writer:
        num_bytes = 0
        for start in range(0, len(frames.paths), _AT_ONCE):
            images = _read_images(frames.paths[start : start + _AT_ONCE], height, width)
            num_bytes += sum(map(len, images))
            if frames.is_png:
                writer.append_frames(np.stack([_pixels(image, height, width, channels=3) for image in images]))
            else:
                writer.append_encoded_frames(images)
        planes = [path for pair in zip(u.paths, v.paths, strict=True) for path in pair]
        for start in range(0, len(planes), _AT_ONCE):  # an even number: pairs stay together
            images = _read_images(planes[start : start + _AT_ONCE], height, width)
            num_bytes += sum(map(len, images))
            if u.is_png:
                pixels = np.stack([_pixels(image, height, width, channels=1) for image in images])
                writer.append_flow(pixels.reshape(-1, 2, height, width))
            else:
                writer.append_encoded_flow(images)
        return num_bytes, writer.finish(_attributes(job, len(frames.paths)))


def _read_images(paths: Sequence[Path], height: int, width: int) -> list[bytes]:
    images = []
    for path in paths:
        data, size = read_image(path)
        if size != (height, width):
            raise ShardFormatError(
                f"{path.parent.name}/{path.name} has {size[1]}x{size[0]} px, but the first flow image has {width}x{height} px; "
                "frames and flow must have the same size, since flow is in px of that size"
            )
        images.append(data)
    return images


def _pixels(data: bytes, height: int, width: int, *, channels: int) -> NDArray[np.uint8]:
    """Decode a PNG of 8 bits to (H, W) grey or (H, W, 3) RGB."""
    import cv2

    image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint8 or image.shape[:2] != (height, width):
        raise ShardFormatError("has a PNG that cannot be decoded or does not have 8 bits")
    num_channels = 1 if image.ndim == 2 else image.shape[2]
    if num_channels != channels:
        raise ShardFormatError(f"has a PNG with {num_channels} channels instead of {channels}")
    return np.asarray(image if channels == 1 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


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
