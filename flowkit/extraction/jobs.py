"""What the processes of an extraction receive and return: jobs for a video, its segments, a piece of one or dividing one; and results."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from flowkit.dataset.paths import clip_path
from flowkit.dataset.settings import ExtractSettings
from flowkit.extraction.pieces import Piece, piece_folder
from flowkit.extraction.results import VideoResult
from flowkit.file_versions import FileVersion
from flowkit.flow.cuda.client import ServiceAddress
from flowkit.flow.cuda.remote import RemoteAddress
from flowkit.video.decode import VideoInfo
from flowkit.video.segments.segment import Segment

_LEAST_BYTES_PER_FRAME = 4


@dataclass(frozen=True)
class VideoJob:
    """One video to extract: all that a worker process needs to know."""

    video_id: str
    path: Path
    class_name: str
    root: Path  # the data root
    settings: ExtractSettings
    source_bytes: int
    source_mtime_ns: int
    source_ctime_ns: int = 0  # 0: not known
    pieces: tuple[Piece, ...] = ()  # its flow, if that was solved before
    service: ServiceAddress | RemoteAddress | None = None  # the GPU's process, with the cuda solver
    segment: Segment | None = None  # the part of the file that is the video, if it is not all
    share: float = 1.0  # of the work that the complete file would be
    frames_sha256: str = ""  # the digest that the file must have, because its frames are stored already and get their flow now

    @property
    def version(self) -> FileVersion:
        """The version of the video file."""
        return FileVersion(self.source_bytes, self.source_mtime_ns, self.source_ctime_ns)

    def with_version(self, version: FileVersion) -> VideoJob:
        """Return this job for another version of the video file."""
        return replace(self, source_bytes=version.num_bytes, source_mtime_ns=version.mtime_ns, source_ctime_ns=version.ctime_ns)

    @property
    def work_bytes(self) -> float:
        """How much work the video is, in bytes of its source."""
        return self.source_bytes * self.share

    @property
    def clip_path(self) -> Path:
        """The clip file to write."""
        return clip_path(self.root, self.video_id)

    @property
    def piece_folder(self) -> Path:
        """The folder for pieces of this version of the video."""
        return piece_folder(self.root / "clips", self.video_id, self.source_bytes, self.source_mtime_ns)


@dataclass(frozen=True)
class PieceJob:
    """A piece of one video to solve: flow fields `start` to `stop`; `stop` None means to the end."""

    video: VideoJob
    start: int
    stop: int | None
    num_pairs: int  # expected in this piece
    num_pieces: int  # in which the missing flow of the video is solved


@dataclass(frozen=True)
class CutJob:
    """A video to divide into pieces: a worker process looks how long it is, because a decoder may crash or hang even then."""

    video: VideoJob
    num_pieces: int  # at most


@dataclass(frozen=True)
class SegmentsJob:
    """Segments of one video file, which is decoded once for all of them."""

    video: VideoJob  # the file as a whole
    segments: tuple[VideoJob, ...]


def frames_promised(job: VideoJob, info: VideoInfo) -> int:
    """Return how many frames a complete video promises, of those that are chosen: by its header, or else by its duration and frame rate.

    0 if it promises nothing, or far more than its file can hold.
    """
    num_frames = info.header_frames or round((info.duration_seconds or 0) * info.frame_rate)
    if num_frames * _LEAST_BYTES_PER_FRAME > job.source_bytes:
        return 0
    return job.settings.reading.num_chosen(num_frames, info.frame_rate)


Task = VideoJob | PieceJob | CutJob | SegmentsJob


def video_of(task: Task) -> VideoJob:
    """Return the job of the video that a task is part of."""
    return task if isinstance(task, VideoJob) else task.video


def with_service(task: Task, service: ServiceAddress | RemoteAddress) -> Task:
    """Return a task whose flow a certain process of a GPU solves."""
    if isinstance(task, VideoJob):
        return replace(task, service=service)
    video = replace(task.video, service=service)
    if isinstance(task, SegmentsJob):
        return SegmentsJob(video, tuple(replace(segment, service=service) for segment in task.segments))
    return replace(task, video=video)


@dataclass(frozen=True)
class TaskResult:
    """The result of a task.

    Parameters
    ----------
    video : VideoResult, optional
        The result of the video. None after a piece that was solved, whose video still needs its clip file, after a division, and
        after a stop.
    num_pairs : int
        Number of flow fields that the task solved, or of frames that it stored without flow.
    stopped : bool
        Whether the run was stopped before the task was finished. The pieces that were finished are kept.
    tasks : tuple of VideoJob or PieceJob
        What a division gives to do.
    segments : tuple of VideoResult
        The results of the segments of a video.
    """

    video: VideoResult | None = None
    num_pairs: int = 0
    stopped: bool = False
    tasks: tuple[Task, ...] = ()
    segments: tuple[VideoResult, ...] = ()
