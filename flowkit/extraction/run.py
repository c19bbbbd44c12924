"""The extract pipeline over a video tree: what is to do, who does it, what became of it; resumable and parallel.

One process per core takes whole videos. The parent alone writes the index, and only after a clip has its final name: what
the index names is on disk.
"""

from __future__ import annotations

import heapq
import json
import math
import time
from collections import Counter, deque
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from flowkit.dataset.paths import clip_path
from flowkit.dataset.root import check_apart, open_root
from flowkit.errors import ManifestError, ParameterError, ShardFormatError, VideoDecodeError
from flowkit.extraction.one_video import SegmentJob, VideoJob, extract_task
from flowkit.extraction.pieces import find_segments, missing_ranges, remove_segments
from flowkit.extraction.results import WRITTEN, ExtractReport, IndexWriter, VideoResult, read_index, with_status
from flowkit.files import exclusive_lock, file_sha256, write_atomically
from flowkit.flow.cuda.service import FlowService
from flowkit.workers.cluster import Cluster
from flowkit.workers.processes import TaskOutcome, num_cores, run_tasks
from flowkit.workers.stopping import GRACE_SECONDS, StopRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flowkit.dataset.settings import ExtractSettings
    from flowkit.flow.cuda.solver import CudaSolver

Task = VideoJob | SegmentJob

GRAIN = 1 / 8  # of one process's work: a video that would end later than this after an even end is cut into pieces of this
MAX_PIECES = 2  # for each process; a piece must decode what lies before it
MIN_SEGMENT = 24  # flow fields; decoding up to a segment's start must stay small beside solving it


@dataclass(frozen=True)
class Progress:
    """How far a run is; given to `extract`'s `on_progress`."""

    videos_done: int
    videos_total: int
    failed: int
    pairs_done: int
    fraction: float  # of the source bytes to do, in [0, 1]; what the ETA rests on


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
    elsewhere : tuple of str
        Videos of the other parts of ``--shard I/N``; what became of them, their runs have noted in the index.
    failed_elsewhere : tuple of VideoResult
        Files that cannot be tried, where the first part is the one to say so.
    """

    jobs: tuple[VideoJob, ...]
    skipped: tuple[VideoResult, ...]
    failed: tuple[VideoResult, ...]
    ignored: int
    elsewhere: tuple[str, ...] = ()
    failed_elsewhere: tuple[VideoResult, ...] = ()


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
        If there is no video, or two files would share a video id or a clip file, be it with a file of the folder that the root
        was made from.
    ParameterError
        If the root was made with other settings.
    """
    from flowkit.dataset.packing import packed_video_ids
    from flowkit.video.decode import VIDEO_SUFFIXES
    from flowkit.video.tree import scan_videos

    open_root(root, videos, settings, create=False)
    scan = scan_videos(videos, VIDEO_SUFFIXES, leave_out=root)
    if not scan.videos and not scan.unreadable:
        suffixes = ", ".join(sorted(VIDEO_SUFFIXES))
        raise ManifestError(f"no video found under {str(videos)!r} ({scan.ignored} files with other suffixes); videos end in {suffixes}")
    check_apart(root, (video.video_id for video in scan.videos))
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
    _check_one_source(root, videos, [job for job in jobs if job.video_id in packed or Path(job.clip_path).is_file()])
    unusable = tuple(VideoResult(name, "failed", 0, 0, error=why) for name, why in scan.unreadable)
    elsewhere = tuple(video.video_id for k, video in enumerate(scan.videos) if k % shard[1] != shard[0])
    failed, failed_elsewhere = (unusable, ()) if shard[0] == 0 else ((), unusable)
    largest_first = tuple(sorted(jobs, key=lambda job: -job.source_bytes))
    return Plan(largest_first, tuple(skipped), failed, scan.ignored, elsewhere, failed_elsewhere)


def _check_one_source(root: Path, videos: Path, replacing: Sequence[VideoJob]) -> None:
    """Refuse to replace the clips of a folder's videos by those of another folder's that have the same ids."""
    from flowkit.dataset.root import Dataset
    from flowkit.video.decode import VIDEO_SUFFIXES

    existing = Dataset.open_if_present(root) if replacing else None
    if existing is None:
        return
    source = Path(existing.source)
    if not existing.source or not source.is_dir() or source.samefile(videos):  # moved, or the same
        return
    for job in replacing:
        folder, _, name = job.video_id.rpartition("/")
        for other in sorted((source / folder).glob("*")):
            if other.stem == name and other.suffix.lower() in VIDEO_SUFFIXES:
                raise ManifestError(
                    f"{str(other)!r} and {job.path!r} would both be {job.video_id!r} in {str(root)!r}; extract the second folder into a "
                    "data root of its own with --data DIR, or rename one of the videos"
                )


def _done_before(job: VideoJob, earlier: VideoResult | None, packed: dict[str, Path]) -> VideoResult | None:
    """Return an earlier run's result if the video has not changed since and its clip, or its place in a shard, is there."""
    path = Path(job.clip_path)
    stored = path if path.is_file() else packed.get(job.video_id)
    if stored is None:
        return None
    unchanged = earlier is not None and (earlier.source_bytes, earlier.source_mtime_ns) == (job.source_bytes, job.source_mtime_ns)
    whole = stored != path or (earlier is not None and earlier.clip_bytes == path.stat().st_size)
    if earlier is not None and earlier.status in WRITTEN and unchanged and whole:
        return earlier
    # Killed between the clip's rename and the index's line, or the video was copied or touched: its bytes decide.
    from flowkit.shards.reader import ShardReader

    try:
        with ShardReader(stored) as reader:
            attributes = reader.clip(job.video_id).attributes
    except ShardFormatError:
        if stored == path:  # a damaged clip is replaced; a shard holds other videos too
            return None
        raise
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
    devices: Sequence[int] = (0,),
    cluster: str | None = None,
    shard: tuple[int, int] = (0, 1),
    stop: StopRequest | None = None,
    grace_seconds: float = GRACE_SECONDS,
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
        Worker processes; default one per core, or two with the cuda solver, whose workers wait for the GPU.
    devices : sequence of int
        GPUs of the cuda solver, one process each.
    cluster : str, optional
        Address of a Dask scheduler: its workers do the work instead of processes of this machine. They must see the videos and
        the root under the same paths.
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
        See `plan`; also if `cluster` is given with the cuda solver.
    DeviceError
        If the device of the settings' solver, or the cluster, is not to be had.
    BusyError
        If another process extracts the same part of the videos into the root.
    OSError
        If the disk is full or read-only.
    """
    started = time.monotonic()
    if cluster is not None:
        if settings.solver == "cuda":
            raise ParameterError("a cluster's workers solve on CPUs; for GPUs of several machines start `extract --shard I/N` on each")
        videos, root = videos.absolute(), root.absolute()
    todo = plan(videos, root, settings=settings, shard=shard)
    if on_plan is not None:
        on_plan(todo)
    with_gpu = settings.solver == "cuda" and bool(todo.jobs)
    if with_gpu:
        _check_gpus(devices)  # before the root is made, whose solver would be one that this machine lacks
    open_root(root, videos, settings)
    run = _Run(todo, on_progress)
    with ExitStack() as stack:
        lock = root / f".extract-{shard[0] + 1}-of-{shard[1]}.lock"
        stack.enter_context(exclusive_lock(lock, f"extracts the same videos into {str(root)!r} (several share the work with --shard I/N)"))
        stack.callback(lambda: run.save_report(root, time.monotonic() - started))
        index = stack.enter_context(closing(IndexWriter(root)))
        to_do: Sequence[VideoJob] = todo.jobs
        if cluster is not None and to_do:
            workers = stack.enter_context(Cluster(cluster, root))
            num_jobs, run_all = workers.num_processes, workers.run_tasks
        else:
            num_jobs = jobs or num_cores() * (2 if with_gpu else 1)
            run_all = partial(run_tasks, jobs=num_jobs)
        if with_gpu:
            service = stack.enter_context(FlowService([partial(_cuda_solver, settings, device) for device in devices]))
            to_do = [replace(job, service=service.addresses[k % len(devices)]) for k, job in enumerate(to_do)]
        run.tasks.extend(cut(to_do, num_jobs))
        for outcome in run_all(extract_task, run.tasks, stop=stop, grace_seconds=grace_seconds, on_tick=run.tick):
            result = run.take(outcome)
            if result is not None:
                index.append(result)
                run.tick([])
    return run.report(time.monotonic() - started)


def _check_gpus(devices: Sequence[int]) -> None:
    from flowkit.flow.cuda.device import check_index, list_devices

    count = len(list_devices())
    for index in devices:
        check_index(index, count)


def _cuda_solver(settings: ExtractSettings, device: int, height: int, width: int, *, on_batch: Callable[[], None]) -> CudaSolver:
    """Make the solver of a frame size, in the GPU's own process."""
    from flowkit.flow.cuda.solver import CudaSolver

    bound, mapping = settings.quantiser.bound, settings.quantiser.mapping
    return CudaSolver(height, width, settings.tvl1, device_index=device, bound=bound, mapping=mapping, on_batch=on_batch)


class _Run:
    """The books of a run: what is done, what failed, what is left, and how far all of it is."""

    def __init__(self, todo: Plan, on_progress: Callable[[Progress], None] | None) -> None:
        self.todo, self.on_progress = todo, on_progress
        self.tasks: deque[Task] = deque()
        self.done: list[VideoResult] = []
        self.failed = list(todo.failed)
        self.unfinished = {job.video_id for job in todo.jobs}
        self.segments_done = Counter[str]()
        self.total_bytes = sum(job.source_bytes for job in todo.jobs) or 1
        self.finished_bytes = 0.0
        self.finished_pairs = 0

    def take(self, outcome: TaskOutcome[Task, VideoResult | int | None]) -> VideoResult | None:
        """Book a task's outcome; return the video's result if that is settled now."""
        task, result = outcome.task, outcome.result
        job = task.video if isinstance(task, SegmentJob) else task
        if outcome.crash is not None:
            result = VideoResult(job.video_id, "undecodable", job.source_bytes, job.source_mtime_ns, error=outcome.crash)
        if result is None or job.video_id not in self.unfinished:  # stopped too early; or its video failed in another segment
            return None
        self.finished_bytes += _share_bytes(task)
        if isinstance(result, int):
            self.finished_pairs += result
            self.segments_done[job.video_id] += 1
            assert isinstance(task, SegmentJob)
            if self.segments_done[job.video_id] == task.num_pieces:  # its flow is complete: now its clip
                self.tasks.appendleft(replace(job, segments=tuple(find_segments(job.segment_folder))))
            return None
        self.unfinished.remove(job.video_id)
        if result.status in WRITTEN:
            self.done.append(result)
            self.finished_pairs += 0 if isinstance(task, VideoJob) and task.segments else result.num_frames - 1
        else:
            self.failed.append(result)
        if result.status != "failed":
            remove_segments(job.segment_folder)
        return result

    def tick(self, running: list[tuple[Task, int, int]]) -> None:
        """Tell how far the run is, counting what running tasks have noted."""
        if self.on_progress is None:
            return
        pairs = self.finished_pairs + sum(num_done for _, num_done, _ in running)
        in_part = sum(_share_bytes(task) * min(num_done / expected, 1) for task, num_done, expected in running if expected)
        fraction = min((self.finished_bytes + in_part) / self.total_bytes, 1)
        num_videos = len(self.todo.jobs) + len(self.todo.failed)
        self.on_progress(Progress(len(self.done) + len(self.failed), num_videos, len(self.failed), pairs, fraction))

    def report(self, seconds: float) -> ExtractReport:
        """Return the report of the run as far as it has come."""
        return ExtractReport(
            tuple(sorted(self.done, key=lambda result: result.video_id)),
            self.todo.skipped,
            tuple(sorted(self.failed, key=lambda result: result.video_id)),
            ignored=self.todo.ignored,
            pending=len(self.unfinished),
            seconds=seconds,
        )

    def save_report(self, root: Path, seconds: float) -> None:
        """Write ``extract-report.json``: of the whole tree, also where this run had only a part of it."""
        report = self.report(seconds)
        if self.todo.elsewhere:
            index = read_index(root)
            noted = [index[video_id] for video_id in self.todo.elsewhere if video_id in index]
            report = replace(
                report,
                skipped=(*report.skipped, *(result for result in noted if result.status in WRITTEN)),
                failed=(*report.failed, *self.todo.failed_elsewhere, *(result for result in noted if result.status not in WRITTEN)),
                pending=report.pending + len(self.todo.elsewhere) - len(noted),
            )
        text = json.dumps(report.to_dict(), indent=1, ensure_ascii=False)
        write_atomically(root / "extract-report.json", text.encode("utf-8", "surrogateescape") + b"\n")


def cut(jobs: Sequence[VideoJob], num_processes: int) -> deque[Task]:
    """Return the tasks of a run: whole videos, and segments of those that would keep the last processes at work alone.

    Whoever is free takes the next task. Played through with the sizes of the sources, this shows which videos would end late: one
    that is much of all the work, or the last few that are left for many processes. These are cut. The bytes of their clips
    are the same either way.
    """
    from flowkit.video.decode import probe

    even_end = sum(job.source_bytes for job in jobs) / num_processes
    free_at = [0.0] * num_processes  # a heap
    tasks: deque[Task] = deque()
    for job in jobs:
        num_pairs, num_pieces = 0, 1
        if free_at[0] + job.source_bytes > (1 + GRAIN) * even_end:
            try:
                num_pairs = probe(job.path).header_frames - 1
            except VideoDecodeError:  # found and reported when it is its turn
                num_pairs = 0
            num_pieces = min(math.ceil(job.source_bytes / (GRAIN * even_end)), MAX_PIECES * num_processes, num_pairs // MIN_SEGMENT)
        if num_pieces < 2:
            tasks.append(job)
            num_pieces = 1
        else:
            ranges = missing_ranges(find_segments(job.segment_folder), num_pairs, num_pieces)
            for start, stop in ranges:
                tasks.append(SegmentJob(job, start, stop, max((num_pairs if stop is None else stop) - start, 0), len(ranges)))
            num_pieces = len(ranges)
        for _ in range(num_pieces):
            heapq.heapreplace(free_at, free_at[0] + job.source_bytes / num_pieces)
    return tasks


def _share_bytes(task: Task) -> float:
    """Return how much of the work a task is, in bytes of its source."""
    if isinstance(task, SegmentJob):
        return task.video.source_bytes / task.num_pieces
    return 0 if task.segments else task.source_bytes
