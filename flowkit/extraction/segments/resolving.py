"""From a list of segments to segments of the videos of a folder: which video each row names, and which of its frames.

Worker processes look into the videos, because a decoder may crash or hang on any of them. Everything that is wrong with the list is
reported in one error before anything is extracted.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flowkit.dataset.settings import ExtractSettings
from flowkit.errors import ManifestError, VideoDecodeError
from flowkit.extraction.segments.lists import ListedSegment, faults_text, read_segment_list
from flowkit.video.decode import probe
from flowkit.video.ids import check_video_id, first_few, name_ends, without_suffix
from flowkit.video.reading import Reading
from flowkit.video.segments.segment import Segment
from flowkit.video.segments.time_line import TimeLine, time_line
from flowkit.video.tree import Scan, VideoFile
from flowkit.words import counted
from flowkit.workers.processes import TaskLimits, num_cores, run_tasks
from flowkit.workers.progress import TaskProgress, patience_with


@dataclass(frozen=True)
class ResolvedSegment:
    """A segment of a video of the folder.

    Parameters
    ----------
    video : VideoFile
        The video.
    segment : Segment
        The part of it.
    class_name : str
        The class, by the list, or else by the folder of the video.
    share : float
        The share of the video that it is.
    """

    video: VideoFile
    segment: Segment
    class_name: str
    share: float


@dataclass(frozen=True)
class ResolvedList:
    """A list of segments, resolved.

    Parameters
    ----------
    segments : tuple of ResolvedSegment
        Those that can be extracted, sorted by video and id.
    unreadable : tuple of (str, str)
        Videos that cannot be read, by id, and why.
    num_unlisted : int
        How many videos of the folder the list does not name.
    """

    segments: tuple[ResolvedSegment, ...]
    unreadable: tuple[tuple[str, str], ...]
    num_unlisted: int


@dataclass(frozen=True)
class _Look:
    """A video to look into, with the rows that name it."""

    video: VideoFile
    rows: tuple[ListedSegment, ...]
    reading: Reading


@dataclass(frozen=True)
class _Seen:
    """What was seen: the number of frames, and the frames of each row or what is wrong with it; or why the video cannot be read."""

    num_frames: int = 0
    ranges: tuple[tuple[int, int] | str, ...] = ()
    unreadable: str = ""


def resolve_segments(listed: Path, scan: Scan, settings: ExtractSettings, *, jobs: int | None = None) -> ResolvedList:
    """Find the videos and the frames of a list of segments.

    Parameters
    ----------
    listed : Path
        The list, a CSV file.
    scan : Scan
        The videos of the folder.
    settings : ExtractSettings
        The settings of the extraction, for the stream that is read.
    jobs : int, optional
        Number of worker processes; by default one per core.

    Raises
    ------
    ManifestError
        If a row cannot be understood, or its video is not in the folder; if a segment is empty, not within its video, or listed twice;
        or if it would have the id of another video. Names all such rows.
    """
    rows, faults = read_segment_list(listed)
    by_video: dict[str, list[ListedSegment]] = defaultdict(list)
    finder = _Finder(scan)
    for row in rows:
        try:
            by_video[finder.find(row.name)].append(row)
        except ManifestError as error:
            faults[row.line] = str(error)
    videos = {video.video_id: video for video in scan.videos}
    looks = deque(_Look(videos[name], tuple(same), settings.reading) for name, same in sorted(by_video.items()))
    num_processes = min(jobs or num_cores(), max(-(-len(looks) // 4), 1))  # a process takes longer to start than to look into a few
    limits = TaskLimits(_patience)
    segments: list[tuple[int, ResolvedSegment]] = []
    unreadable = []
    for outcome in run_tasks(_look, looks, jobs=num_processes, prepare=_prepare, limits=limits):
        video, seen = outcome.task.video, outcome.result or _Seen(unreadable=outcome.crash or "")
        if seen.unreadable:
            left_out = f"{counted(len(outcome.task.rows), 'segment')} of it cannot be extracted"
            unreadable.append((video.video_id, f"{seen.unreadable}; {left_out}"))
            continue
        for row, found in zip(outcome.task.rows, seen.ranges, strict=True):
            if isinstance(found, str):
                faults[row.line] = f"the segment of {row.name!r} {found}"
            else:
                times = (row.start, row.end) if row.in_seconds else (None, None)
                segment = Segment(video.video_id, *found, *times)
                share = segment.num_frames / max(seen.num_frames, segment.num_frames)
                segments.append((row.line, ResolvedSegment(video, segment, row.class_name or video.class_name, share)))
    faults |= _clashes(segments, videos)
    if faults:
        raise ManifestError(faults_text(listed, faults))
    in_order = sorted((resolved for _, resolved in segments), key=lambda each: (each.video.video_id, each.segment.start_frame))
    return ResolvedList(tuple(in_order), tuple(sorted(unreadable)), len(videos) - len(by_video))


class _Finder:
    """Finds the video that a list names: by its id, with or without the suffix of the file, or by the end of its id."""

    def __init__(self, scan: Scan) -> None:
        self._ids = {video.video_id for video in scan.videos}
        self._unreadable = {without_suffix(name): why for name, why in scan.unreadable}
        self._by_end: dict[str, list[str]] = defaultdict(list)
        for name in sorted(self._ids):
            for end in name_ends(name)[1:]:
                self._by_end[end].append(name)

    def find(self, name: str) -> str:
        """Return the id of the video; `ManifestError` says why there is none."""
        for spelled in (name, without_suffix(name)):
            if spelled in self._ids:
                return spelled
            if spelled in self._unreadable:
                raise ManifestError(f"the video {name!r} cannot be used: {self._unreadable[spelled]}")
            ends = self._by_end.get(spelled, [])
            if len(ends) == 1:
                return ends[0]
            if ends:
                raise ManifestError(f"{name!r} may be {first_few(map(repr, ends), last='or')}; write the folder too")
        raise ManifestError(f"there is no video {name!r} in the folder")


def _clashes(segments: Sequence[tuple[int, ResolvedSegment]], videos: Mapping[str, VideoFile]) -> dict[int, str]:
    """Return what is wrong with the ids of segments, by line."""
    faults: dict[int, str] = {}
    line_of: dict[str, int] = {}
    for line, resolved in sorted(segments, key=lambda each: each[0]):
        segment_id = resolved.segment.segment_id
        try:
            check_video_id(segment_id)
        except ManifestError as error:
            faults[line] = str(error)
        if segment_id in videos:
            faults[line] = f"the segment would have the id of the video {segment_id!r}; rename the file of that video"
        elif segment_id in line_of:
            faults[line] = f"the segment {segment_id!r} is the same as that of line {line_of[segment_id]}"
        line_of.setdefault(segment_id, line)
    return faults


def _prepare() -> None:
    """Load what a worker process needs, before its first video."""
    import av  # noqa: F401


def _look(look: _Look, progress: TaskProgress) -> _Seen:
    """In a worker process: find out which frames of a video the rows mean."""
    path = look.video.path
    try:
        info = probe(path, stream=look.reading.stream)
        last = max(row.end for row in look.rows)
        is_known = not look.rows[0].in_seconds and (last <= info.header_frames or path.is_dir())
        line = None if is_known else time_line(path, look.reading, alive=progress.alive)
    except (VideoDecodeError, OSError) as error:
        return _Seen(unreadable=str(error))
    num_frames = max(0 if line is None else len(line.times), info.header_frames)
    return _Seen(num_frames, tuple(_range(row, line, num_frames) for row in look.rows))


def _range(row: ListedSegment, line: TimeLine | None, num_frames: int) -> tuple[int, int] | str:
    """Return the frames of a row, or what is wrong with it; without times if it is given by frames."""
    if line is None or not row.in_seconds:
        return (
            (int(row.start), int(row.end)) if row.end <= num_frames else f"ends after its video, which has {counted(num_frames, 'frame')}"
        )
    try:
        return line.frames_between(row.start, row.end)
    except ManifestError as error:
        return str(error)


def _patience(look: _Look) -> float:
    return patience_with(look.video.path)
