"""The clip file of a video that is being extracted: what is added to it batch by batch, and the result of the video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from flowkit.extraction.flow_range import VideoRange
from flowkit.extraction.jobs import VideoJob
from flowkit.extraction.results import WRITTEN, VideoResult, unstated_losses, with_report, with_scenes
from flowkit.scenes.measures import PairScan
from flowkit.scenes.rule import scene_changes
from flowkit.shards.schema import ClipAttributes
from flowkit.shards.writer import ClipWriter
from flowkit.video.damage import DecodeReport


class NewClip:
    """Takes the frames and the flow of one video as they come, the flow perhaps later, and writes its clip file. A context manager.

    Parameters
    ----------
    job : VideoJob
        The video, or the segment of one.
    frame_rate : Fraction, frames/s
        Of the video; 0 if it is not known.
    sha256 : str
        The SHA-256 of the video file.
    """

    def __init__(self, job: VideoJob, frame_rate: Fraction, *, sha256: str) -> None:
        self.job = job
        self.num_frames = 0
        self._frame_rate, self._sha256 = frame_rate, sha256
        self._times: list[NDArray[np.float64] | None] = []
        self._used, self._scenes = VideoRange(job.settings), PairScan()
        self._writer: ClipWriter | None = None

    def __enter__(self) -> NewClip:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def add_frames(self, frames: NDArray[np.uint8], times: NDArray[np.float64] | None) -> None:
        """Add the next RGB frames (n, H, W, 3), and their times in s."""
        if self._writer is None:
            height, width = frames.shape[1:3]
            self._writer = ClipWriter(self.job.clip_path, codec=self.job.settings.codec, height=height, width=width)
        self._scenes.add(self._writer.append_frames(frames), frames.shape[1:3])
        self.num_frames += len(frames)
        self._times.append(times)

    def add_flow(self, q: NDArray[np.uint8], frames: NDArray[np.uint8]) -> None:
        """Add the next quantised flow (m, 2, H, W), if the settings store flow; of the frames that it leads to, the last two suffice."""
        if self.job.settings.has_flow:
            assert self._writer is not None, "the frames were added before"
            self._writer.append_flow(q)
            self._used.add(frames, q)

    def result(self, report: DecodeReport) -> VideoResult:
        """Return what became of the video, with its status, before its clip file is written."""
        job = self.job
        begun = VideoResult(job.video_id, "undecodable", job.source_bytes, job.source_mtime_ns, source_ctime_ns=job.source_ctime_ns)
        return with_report(replace(begun, num_frames=self.num_frames, has_flow=job.settings.has_flow), report)

    def finish(self, result: VideoResult) -> VideoResult:
        """Write the clip file, if there is something to write; return the result with what is known then."""
        if self._writer is None or result.status not in WRITTEN:
            return result
        attributes = clip_attributes(self.job, self._frame_rate, result, sha256=self._sha256)
        clip_bytes = self._writer.finish(attributes, times=all_times(self._times))
        result = replace(result, clip_bytes=clip_bytes, source_sha256=self._sha256, clip_sha256=self._writer.sha256)
        return self._used.into(with_scenes(result, scene_changes(self._scenes.measures())))

    def close(self) -> None:
        """Delete what was not finished."""
        if self._writer is not None:
            self._writer.close()


def clip_attributes(job: VideoJob, frame_rate: Fraction, result: VideoResult, *, sha256: str) -> ClipAttributes:
    """Return the attributes that are stored with a clip."""
    settings = job.settings
    rate = settings.reading.rate_of_chosen(frame_rate)
    return ClipAttributes(
        video_id=job.video_id,
        class_name=job.class_name,
        source_name=job.path.name,
        source_sha256=sha256,
        frame_rate=f"{rate.numerator}/{rate.denominator}",
        num_frames=result.num_frames,
        header_frames=result.header_frames,
        decode_errors=result.decode_errors,
        codec=settings.codec,
        quantiser=settings.quantiser.to_dict(),
        tvl1=settings.stored_tvl1(),
        solver=settings.solver,
        method=settings.stored_method(),
        camera_motion=settings.stored_camera_motion(),
        losses=unstated_losses(result),
        notes=result.notes,
        reading=settings.reading.to_dict(),
        source_frames=result.source_frames,
        segment={} if job.segment is None else job.segment.to_dict(),
    )


def all_times(batches: Sequence[NDArray[np.float64] | None]) -> NDArray[np.float64] | None:
    """Return the times of the frames of a video in one array; None unless all are known."""
    known = [times for times in batches if times is not None]
    times = np.concatenate(known) if known and len(known) == len(batches) else np.full(1, np.nan)
    return times if np.isfinite(times).all() else None
