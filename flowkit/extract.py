"""The extract pipeline over a video tree: what is to do, who does it, what became of it; resumable and parallel.

One process per core takes whole videos. The parent alone writes the index, and only after a clip has its final name: what
the index names is on disk.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections import Counter, deque
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import flowkit
from flowkit.config import ExtractSettings
from flowkit.errors import ManifestError, ParameterError, VideoDecodeError
from flowkit.extract_video import SegmentJob, VideoJob, extract_task, file_sha256, sample_video
from flowkit.files import write_atomically
from flowkit.ledger import WRITTEN, ExtractReport, IndexWriter, VideoResult, read_index, with_status
from flowkit.parallel import StopRequest, num_cores, run_tasks
from flowkit.segments import find_segments, missing_ranges, remove_segments

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Task = VideoJob | SegmentJob

MAX_SHARE = 0.5  # of one process's work, above which a video is cut into segments
MIN_SEGMENT = 24  # flow fields; decoding up to a segment's start must stay small beside solving it

DATASET_FORMAT, DATASET_FORMAT_VERSION = "flowkit-dataset", 1


@dataclass(frozen=True)
class Progress:
    """How far a run is; given to `extract`'s `on_progress`."""

    videos_done: int
    videos_total: int
    failed: int
    pairs_done: int
    fraction: float  # of the source bytes to do, in [0, 1]; what the ETA rests on


def clip_path(root: Path, video_id: str) -> Path:
    """Return where the clip of a video lies in a data root."""
    return root / "clips" / (video_id + ".h5")


def software_versions() -> dict[str, str]:
    """Return the versions of what shapes the data: flowkit, Python and the libraries that decode, solve and pack."""
    versions = {"flowkit": flowkit.__version__, "python": platform.python_version()}
    for name in ("av", "h5py", "hdf5plugin", "numba", "numpy", "opencv-contrib-python-headless", "opencv-contrib-python"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def open_root(root: Path, videos: Path, settings: ExtractSettings, *, create: bool = True) -> None:
    """Make a data root with these settings, or check that an existing one has the same.

    Raises
    ------
    ParameterError
        If the root was made with other settings; names those that differ.
    ManifestError
        If ``dataset.json`` is not flowkit's.
    """
    existing = root_settings(root)
    if existing is None:
        if create:
            record = {
                "format": DATASET_FORMAT,
                "format_version": DATASET_FORMAT_VERSION,
                "source": os.path.abspath(videos),
                "settings": settings.to_dict(),
                "versions": software_versions(),
            }
            root.mkdir(parents=True, exist_ok=True)
            write_atomically(root / "dataset.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        return
    differing = existing.differences(settings)
    if differing:
        raise ParameterError(
            f"the data root {str(root)!r} was made with other settings ({'; '.join(differing)}); "
            "one root never mixes settings: use the same options, or another root with --data DIR"
        )


def root_settings(root: Path) -> ExtractSettings | None:
    """Return the extraction settings of a data root, or None if there is no root yet."""
    path = root / "dataset.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as cause:
        raise ManifestError(f"{path} is not valid JSON ({cause}); restore it, or choose another root with --data DIR") from cause
    if not isinstance(record, dict) or record.get("format") != DATASET_FORMAT:
        raise ManifestError(f"{path} is not a flowkit data root's; choose another root with --data DIR")
    if record.get("format_version") != DATASET_FORMAT_VERSION:
        raise ManifestError(f"{path} has format version {record.get('format_version')!r}; this flowkit reads {DATASET_FORMAT_VERSION}")
    return ExtractSettings.from_dict(record.get("settings"))


@dataclass(frozen=True)
class Plan:
    """What an extract run will do: found by `plan`, before anything is written.

    Parameters
    ----------
    jobs : tuple of VideoJob
        Videos to extract, largest first, so that no process is left alone with a long one at the end.
    skipped : tuple of VideoResult
        Videos that are done.
    failed : tuple of VideoResult
        Files that cannot even be tried, such as those whose name is not UTF-8.
    ignored : int
        Files without a video's suffix.
    """

    jobs: tuple[VideoJob, ...]
    skipped: tuple[VideoResult, ...]
    failed: tuple[VideoResult, ...]
    ignored: int


def plan(videos: Path, root: Path, *, settings: ExtractSettings, shard: tuple[int, int] = (0, 1)) -> Plan:
    """Find what there is to extract and what is done already.

    Parameters
    ----------
    videos : Path
        The video tree.
    root : Path
        The data root; need not exist yet.
    settings : ExtractSettings
    shard : (int, int)
        (i, n): only every n-th video, from the i-th; for runs on n machines that share the root.

    Raises
    ------
    ManifestError
        If there is no video, or two files would share a video id.
    ParameterError
        If the root was made with other settings.
    """
    from flowkit.manifest import scan_videos
    from flowkit.pack import packed_video_ids
    from flowkit.video import VIDEO_SUFFIXES

    open_root(root, videos, settings, create=False)
    scan = scan_videos(videos, VIDEO_SUFFIXES)
    if not scan.videos and not scan.unreadable:
        suffixes = ", ".join(sorted(VIDEO_SUFFIXES))
        raise ManifestError(f"no video found under {str(videos)!r} ({scan.ignored} files with other suffixes); videos end in {suffixes}")
    index = read_index(root)
    packed = packed_video_ids(root)
    jobs, skipped = [], []
    for video in scan.videos[shard[0] :: shard[1]]:
        status = video.path.stat()
        job = VideoJob(
            video.video_id,
            str(video.path),
            video.class_name,
            str(clip_path(root, video.video_id)),
            settings,
            status.st_size,
            status.st_mtime_ns,
        )
        done = _done_before(job, index.get(video.video_id), packed)
        if done is None:
            jobs.append(job)
        else:
            skipped.append(done)
    failed = tuple(VideoResult(name, "failed", 0, 0, error=why) for name, why in (scan.unreadable if shard[0] == 0 else ()))
    return Plan(tuple(sorted(jobs, key=lambda job: -job.source_bytes)), tuple(skipped), failed, scan.ignored)


def _done_before(job: VideoJob, earlier: VideoResult | None, packed: dict[str, Path]) -> VideoResult | None:
    """Return an earlier run's result if the video has not changed since and its clip, or its place in a shard, is there."""
    path = Path(job.clip_path)
    stored = path if path.is_file() else packed.get(job.video_id)
    if stored is None:
        return None
    unchanged = earlier is not None and (earlier.source_bytes, earlier.source_mtime_ns) == (job.source_bytes, job.source_mtime_ns)
    if earlier is not None and earlier.status in WRITTEN and unchanged:
        return earlier
    # Killed between the clip's rename and the index's line, or the video was copied or touched: its bytes decide.
    from flowkit.shards.reader import ShardReader

    with ShardReader(stored) as reader:
        attributes = reader.clip(job.video_id).attributes
    if attributes.source_sha256 != file_sha256(Path(job.path)):
        return None
    result = VideoResult(
        job.video_id,
        "ok",
        job.source_bytes,
        job.source_mtime_ns,
        attributes.num_frames,
        attributes.header_frames,
        attributes.decode_errors,
        clip_bytes=stored.stat().st_size if stored == path else 0,
    )
    return with_status(result)


def extract(
    videos: Path,
    root: Path,
    *,
    settings: ExtractSettings,
    jobs: int | None = None,
    shard: tuple[int, int] = (0, 1),
    stop: StopRequest | None = None,
    grace_seconds: float = 20.0,
    on_plan: Callable[[Plan], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> ExtractReport:
    """Extract every video of a tree that is not done yet.

    Parameters
    ----------
    videos : Path
        The video tree: ``<class>/<video>``, or flat.
    root : Path
        The data root, made if need be.
    settings : ExtractSettings
        What all clips of the root share.
    jobs : int, optional
        Worker processes; default one per core.
    shard : (int, int)
        (i, n): only every n-th video, from the i-th.
    stop : StopRequest, optional
        Ends the run in good order once requested.
    grace_seconds : float
        How long what is in flight may go on after that.
    on_plan, on_progress : callable, optional
        Told what will be done, and how far it is.

    Returns
    -------
    ExtractReport
        Also saved as ``extract-report.json`` in the root.

    Raises
    ------
    ManifestError, ParameterError
        See `plan`.
    DeviceError
        If the device of the settings' solver is not to be had.
    OSError
        If the disk is full or read-only.
    """
    from flowkit.shards.writer import ClipWriter

    started = time.monotonic()
    todo = plan(videos, root, settings=settings, shard=shard)
    if on_plan is not None:
        on_plan(todo)
    open_root(root, videos, settings)
    done: list[VideoResult] = []
    failed = list(todo.failed)
    unfinished = {job.video_id: job for job in todo.jobs}
    total_bytes = sum(job.source_bytes for job in todo.jobs) or 1
    finished_bytes = 0.0
    finished_pairs = 0

    def tick(running: list[tuple[Task, int, int]]) -> None:
        if on_progress is not None:
            pairs = finished_pairs + sum(num_done for _, num_done, _ in running)
            in_part = sum(_share_bytes(task) * min(num_done / expected, 1) for task, num_done, expected in running if expected)
            fraction = min((finished_bytes + in_part) / total_bytes, 1)
            on_progress(Progress(len(done) + len(failed), len(todo.jobs) + len(todo.failed), len(failed), pairs, fraction))

    index = IndexWriter(root)
    num_jobs = jobs or num_cores()
    tasks = cut(todo.jobs, num_jobs)
    open_segments = Counter(task.video.video_id for task in tasks if isinstance(task, SegmentJob))
    try:
        for outcome in run_tasks(extract_task, tasks, jobs=num_jobs, stop=stop, grace_seconds=grace_seconds, on_tick=tick):
            task, result = outcome.task, outcome.result
            job = task.video if isinstance(task, SegmentJob) else task
            if outcome.crash is not None:
                result = VideoResult(job.video_id, "undecodable", job.source_bytes, job.source_mtime_ns, error=outcome.crash)
            if isinstance(task, SegmentJob):
                open_segments[job.video_id] -= 1
            if result is None or job.video_id not in unfinished:  # stopped too early; or its video failed in another segment
                continue
            finished_bytes += _share_bytes(task)
            if isinstance(result, int):
                finished_pairs += result
                if open_segments[job.video_id] == 0:
                    tasks.appendleft(replace(job, segments=tuple(find_segments(job.segment_folder))))
                continue
            index.append(result)
            del unfinished[job.video_id]
            (done if result.status in WRITTEN else failed).append(result)
            if result.status in WRITTEN and not job.segments:
                finished_pairs += result.num_frames - 1
            if result.status != "failed":
                remove_segments(job.segment_folder)
            tick([])
    finally:
        index.close()
        for job in unfinished.values():
            ClipWriter.remove_leftovers(Path(job.clip_path))
        report = ExtractReport(
            tuple(sorted(done, key=lambda r: r.video_id)),
            todo.skipped,
            tuple(sorted(failed, key=lambda r: r.video_id)),
            ignored=todo.ignored,
            pending=len(unfinished),
            seconds=time.monotonic() - started,
        )
        write_atomically(root / "extract-report.json", json.dumps(report.to_dict(), indent=1, ensure_ascii=False) + "\n")
    return report


def cut(jobs: Sequence[VideoJob], num_processes: int) -> deque[Task]:
    """Return the tasks of a run: whole videos, and segments of those too long for one process.

    A video is cut when it is so large a share of the work that processes would be left idle beside it. The bytes of its clip
    are the same either way.
    """
    from flowkit.video import probe

    total_bytes = sum(job.source_bytes for job in jobs) or 1
    tasks: deque[Task] = deque()
    for job in jobs:
        share = job.source_bytes / total_bytes * num_processes  # of one process's work
        num_pairs = 0
        if share > MAX_SHARE:
            try:
                num_pairs = probe(job.path).header_frames - 1
            except VideoDecodeError:  # found and reported when it is its turn
                num_pairs = 0
        num_pieces = min(math.ceil(share / MAX_SHARE), num_pairs // MIN_SEGMENT)
        if num_pieces < 2:
            tasks.append(job)
            continue
        ranges = missing_ranges(find_segments(job.segment_folder), num_pairs, num_pieces)
        for start, stop in ranges:
            tasks.append(SegmentJob(job, start, stop, max((num_pairs if stop is None else stop) - start, 0), len(ranges)))
    return tasks


def _share_bytes(task: Task) -> float:
    """Return how much of the work a task is, in bytes of its source."""
    if isinstance(task, SegmentJob):
        return task.video.source_bytes / task.num_pieces
    return 0 if task.segments else task.source_bytes


@dataclass(frozen=True)
class Forecast:
    """What a run would take: from the headers of the videos and a few pairs really computed."""

    num_pairs: int
    num_bytes: int
    seconds: float
    jobs: int


def forecast(todo: Plan, *, jobs: int | None = None, sample_videos: int = 3, sample_frames: int = 6) -> Forecast:
    """Estimate pairs, disk and time of a plan.

    Parameters
    ----------
    todo : Plan
    jobs : int, optional
        Worker processes; default one per core.
    sample_videos, sample_frames : int
        How much is really extracted (to a temporary folder) to learn bytes and seconds a pair: the first frames of
        videos spread over the plan.
    """
    from flowkit.video import probe

    jobs = jobs or num_cores()
    if not todo.jobs:
        return Forecast(0, 0, 0.0, jobs)
    known_pairs = known_bytes = 0
    for job in todo.jobs:
        try:
            header_frames = probe(job.path).header_frames
        except VideoDecodeError:
            continue
        if header_frames:
            known_pairs += max(header_frames - 1, 0)
            known_bytes += job.source_bytes
    total_bytes = sum(job.source_bytes for job in todo.jobs)
    num_pairs = round(known_pairs * total_bytes / known_bytes) if known_bytes else 0
    step = max(len(todo.jobs) // sample_videos, 1)
    samples = [sample for job in todo.jobs[::step][:sample_videos] if (sample := sample_video(job, sample_frames)) is not None]
    if not samples:
        return Forecast(num_pairs, 0, 0.0, jobs)
    pairs = sum(s.num_pairs for s in samples)
    return Forecast(
        num_pairs,
        round(num_pairs * sum(s.num_bytes for s in samples) / pairs),
        num_pairs * sum(s.seconds for s in samples) / pairs / jobs,
        jobs,
    )
