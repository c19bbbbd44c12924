"""Extract a video tree: plan, run the tasks in processes or on a cluster, and record the results. Resumable and parallel.

The parent process alone writes the index, and only after a clip has its final name: every clip that the index names is on disk.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from flowkit.dataset.progress import ProgressBar, is_shown, print_line
from flowkit.dataset.root import Dataset, open_root
from flowkit.dataset.root_locks import extracting
from flowkit.dataset.settings import ExtractSettings
from flowkit.errors import ParameterError
from flowkit.extraction.jobs import PieceJob, SegmentsJob, Task, TaskResult, VideoJob, video_of, with_service
from flowkit.extraction.pieces import drop_stale_pieces, find_pieces, remove_old_pieces, remove_pieces
from flowkit.extraction.plan import Plan, done_before, make_plan
from flowkit.extraction.results import WRITTEN, ExtractReport, IndexWriter, Status, VideoResult, read_index
from flowkit.extraction.schedule import make_tasks, run_task, seconds_without_progress, work_bytes
from flowkit.extraction.solving import prepare_process
from flowkit.files import write_atomically
from flowkit.flow.cuda.remote import GatewayGoneError
from flowkit.flow.cuda.service import FlowService
from flowkit.flow.cuda.solver import CudaSolver
from flowkit.locks import exclusive_lock
from flowkit.words import printable_name
from flowkit.workers.addresses import parse_address
from flowkit.workers.cluster import Cluster
from flowkit.workers.gpu_services import GpuServices, check_for_gpus
from flowkit.workers.processes import KILLED_TWICE, TaskLimits, TaskOutcome, check_memory_limit, num_cores, run_tasks
from flowkit.workers.scheduler import check_scheduler
from flowkit.workers.stopping import GRACE_SECONDS, StopRequest

MAX_JOBS = 1024  # worker processes; a mistyped number must not start thousands
LEAST_MEMORY = 256 << 20  # bytes; what a worker process may use cannot be limited to less


@dataclass(frozen=True)
class ExtractProgress:
    """How far an extraction is."""

    videos_done: int
    videos_total: int
    failed: int
    pairs_done: int
    fraction: float  # of the source bytes to do, in [0, 1]; the estimate of the time left rests on it


def extract(
    videos: str | os.PathLike[str],
    root: str | os.PathLike[str] = "flowkit-data",
    *,
    settings: ExtractSettings | None = None,
    jobs: int | None = None,
    devices: Sequence[int] = (0,),
    cluster: str | None = None,
    part: tuple[int, int] = (0, 1),
    segments: str | os.PathLike[str] | None = None,
    time_limit: float | None = None,
    memory_limit: int | None = None,
    progress: bool | None = None,
    stop: StopRequest | None = None,
    grace_seconds: float = GRACE_SECONDS,
    on_plan: Callable[[Plan], None] | None = None,
    on_progress: Callable[[ExtractProgress], None] | None = None,
) -> ExtractReport:
    """Decode every video of a folder that is not done yet, compute its flow, and write its clip file.

    A video that is done is skipped, so the same call resumes an extraction that was stopped. One bad video never stops the
    others: it is listed in the report. The videos are worked on in processes of their own.

    Parameters
    ----------
    videos : path
        The folder of the videos: ``<class>/<video>``, or flat. Or a video file, or a text file with the path of a video in each line,
        relative to its own folder or to the working folder; ids are then relative to the innermost folder that contains all of them, or
        to that of the data root's other videos if they lie in it.
    root : path
        The data root; it is made if it does not exist.
    settings : ExtractSettings, optional
        The settings that all clips of the root share: solver, size, quantiser, codec. By default those of the root, or
        ``ExtractSettings()`` for a new root. With ``ExtractSettings().frames_only()`` frames are stored without flow; settings of the
        same frames with flow add the flow later, and give the bytes of a single pass. Each file is decoded again for that, and must
        be the same, or its video fails.
    jobs : int, optional
        Number of worker processes; by default one per core, or two with the cuda solver, whose workers wait for the GPU. A method
        that uses a GPU by itself, such as RAFT, may need fewer.
    devices : sequence of int
        GPUs for the cuda solver; each has one process.
    cluster : str, optional
        Address of a Dask scheduler, such as ``tcp://10.0.0.1:8786`` or ``tcp://[fd00::1]:8786``, whose workers do the work instead of
        processes of this machine. They must see the videos and the root under the same paths. With the cuda solver, the GPUs are those
        of workers with the resource ``GPU``.
    part : (int, int)
        (i, n): only every n-th video, from the i-th (0-based); for runs on n machines that share the root.
    segments : path, optional
        A CSV file with the columns ``video_id``, then ``start_seconds,end_seconds`` or ``start_frame,end_frame`` (the end excluded), and
        perhaps ``class_name``. These parts of the videos are extracted, each with the id ``<video>_<start frame>_<end frame>``, and no
        other video. They may overlap; each file is decoded once.
    time_limit : float, s, optional
        How long a video may go on without any progress, which is a frame that was decoded or a flow field that was solved, before
        its process is ended and the video fails. By default ten minutes, and one second more for each MB of the video file; 0 is
        no limit. A video that makes progress may take as long as it needs.
    memory_limit : int, bytes, optional
        How much memory each worker process may use, about 200 MB of which it needs for itself. The process of a video that needs
        more is ended, and the video fails. By default there is no limit. Only Linux can keep one.
    progress : bool, optional
        Whether to show progress on stderr; by default on a terminal and in a notebook.
    stop : StopRequest, optional
        Ends the run once a stop is requested; the clips that are finished are kept.
    grace_seconds : float, s
        How long the videos in flight may take to finish after that.
    on_plan, on_progress : callable, optional
        Receive the `Plan` before the work starts, and an `ExtractProgress` about five times a second.

    Returns
    -------
    ExtractReport
        The result of each video. It is also saved in the root, as ``extract-report.json``.

    Raises
    ------
    ManifestError
        If there is no video, or if two files would share a video id or a clip file; or if the list of segments has mistakes, all of
        which are named.
    ParameterError
        If the root was made with other settings or by an import, or has flow and `settings` have none; if `cluster` is no address or
        is given with numbers of GPUs, or if a number is out of range.
    DeviceError
        If the device of the solver, or the cluster, is unavailable.
    BusyError
        If another process changes the root, unless it extracts another part of the same `n`.
    OSError
        If the disk is full or read-only.

    Examples
    --------
    >>> import flowkit, tempfile
    >>> import numpy as np
    >>> from pathlib import Path
    >>> from flowkit.demo_videos import write_video
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "videos" / "noise").mkdir(parents=True)
    >>> frames = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
    >>> for name in ("first", "second"):
    ...     write_video(folder / "videos" / "noise" / f"{name}.avi", frames, frame_rate=25)
    >>> settings = flowkit.ExtractSettings(short_side=32)
    >>> flowkit.extract(folder / "videos", folder / "data", settings=settings, jobs=1, progress=False)
    ExtractReport(2 done, 0 skipped, 0 failed, 0 damaged)
    >>> report = flowkit.extract(folder / "videos", folder / "data", progress=False)  # both are done
    >>> [result.video_id for result in report.skipped]
    ['noise/first', 'noise/second']
    """
    started = time.monotonic()
    videos, root = Path(videos), Path(root)
    if not 0 <= part[0] < part[1]:
        raise ParameterError(f"part must be (i, n) with 0 <= i < n, got {part!r}")
    if (jobs is not None and not 1 <= jobs <= MAX_JOBS) or not devices:
        raise ParameterError(f"extract needs 1 to {MAX_JOBS} processes and at least one device, got jobs={jobs!r} and devices={devices!r}")
    if time_limit is not None and not 0 <= time_limit < math.inf:
        raise ParameterError(f"time_limit must be at least 0 s (0 is no limit), got {time_limit!r}")
    if memory_limit is not None and memory_limit < LEAST_MEMORY:
        raise ParameterError(
            f"a worker process needs some memory for itself: memory_limit must be at least {LEAST_MEMORY // 2**20} MiB, "
            f"got {memory_limit / 2**20:.4g} MiB"
        )
    check_memory_limit(memory_limit)
    if cluster is not None:
        cluster = str(parse_address(cluster))
        videos, root = videos.absolute(), root.absolute()
    limits = TaskLimits(None if time_limit == 0 else partial(seconds_without_progress, limit=time_limit), memory_limit)
    with ExitStack() as stack:
        is_new = Dataset.open_if_present(root) is None
        if not is_new:  # what is done is found out when nobody changes it
            stack.enter_context(extracting(root, part))
        plan = make_plan(videos, root, settings=settings, part=part, segments=None if segments is None else Path(segments), jobs=jobs)
        settings = plan.settings
        if cluster is not None and tuple(devices) != (0,):
            raise ParameterError("on a cluster, the workers say which GPUs there are: with --cluster, write --device cuda without numbers")
        if on_plan is not None:
            on_plan(plan)
        elif is_shown(progress):
            for warning in plan.warnings:
                print_line(f"extract: warning: {printable_name(warning)}")
        if settings.solver == "cuda" and plan.jobs and cluster is None:
            check_gpus(devices)  # before the root is made, which would record a solver that this machine lacks
        if cluster is not None and plan.jobs:
            check_scheduler(cluster)
            if settings.solver == "cuda":
                check_for_gpus(cluster)
        open_root(root, plan.source, settings)
        if is_new:
            stack.enter_context(extracting(root, part))
        unit = "flow fields" if settings.has_flow else "frames"
        bar = stack.enter_context(ProgressBar("extract", unit=unit, progress=progress if plan.jobs else False))
        run = PlannedRun(plan, bar, on_progress)
        stack.callback(lambda: run.save_report(root, time.monotonic() - started))
        deque(extracted(run, root, jobs=jobs, devices=devices, cluster=cluster, limits=limits, stop=stop, grace_seconds=grace_seconds), 0)
    return run.report(time.monotonic() - started)


def extracted(
    run: PlannedRun,
    root: Path,
    *,
    jobs: int | None = None,
    devices: Sequence[int] = (0,),
    cluster: str | None = None,
    limits: TaskLimits,
    stop: StopRequest | None = None,
    grace_seconds: float = GRACE_SECONDS,
) -> Iterator[VideoResult]:
    """Make the clip files of a plan; note the result of each video in the index of its data root, and yield it.

    As long as the consumer keeps a result, no process begins another video, so at most `jobs` clip files are ahead of it.
    """
    plan, settings = run.plan, run.plan.settings
    with ExitStack() as stack:
        index = stack.enter_context(closing(IndexWriter(root)))
        for confirmed in plan.confirmed:
            index.append(confirmed)
        remove_old_pieces(root / "clips")
        jobs_left: Sequence[VideoJob] = plan.jobs
        for job in (job for job in jobs_left if job.segment is None):
            drop_stale_pieces(job.piece_folder, job.path, job.version)
        with_gpu = settings.solver == "cuda" and bool(jobs_left)
        if cluster is not None and jobs_left:
            workers = stack.enter_context(Cluster(cluster, root))
            num_jobs, run_all = workers.num_processes, partial(workers.run_tasks)
            if with_gpu:
                gpus = stack.enter_context(workers.gpu_services(partial(_cuda_solver, settings, 0)))
                run_all = partial(workers.run_tasks, complete=partial(_for_next_gpu, gpus), again_after=GatewayGoneError)
        else:
            num_jobs = jobs or _num_processes(settings, with_gpu=with_gpu)
            run_all = partial(run_tasks, jobs=num_jobs)
        if with_gpu and cluster is None:
            service = stack.enter_context(FlowService([partial(_cuda_solver, settings, device) for device in devices]))
            jobs_left = [replace(job, service=service.addresses[k % len(devices)]) for k, job in enumerate(jobs_left)]
        run.tasks.extend(make_tasks(jobs_left, num_jobs))
        prepare = partial(prepare_process, settings)
        outcomes = run_all(run_task, run.tasks, prepare=prepare, limits=limits, stop=stop, grace_seconds=grace_seconds, on_tick=run.tick)
        for outcome in outcomes:
            for result in run.record(outcome):
                index.append(result)
                run.tick([])
                yield result


def _num_processes(settings: ExtractSettings, *, with_gpu: bool) -> int:
    """Return the number of worker processes where nobody has chosen one."""
    enough = None if settings.method is None else settings.method.num_processes()
    return num_cores() * (2 if with_gpu else 1) if enough is None else min(enough, num_cores())


def _for_next_gpu(gpus: GpuServices, task: Task) -> Task | None:
    """Return a task for the next GPU of a cluster; None while there is none."""
    address = gpus.next_address()
    return None if address is None else with_service(task, address)


def check_gpus(devices: Sequence[int]) -> None:
    """Raise `DeviceError` if one of these GPUs is not there."""
    from flowkit.flow.cuda.device import check_index, list_devices

    count = len(list_devices())
    for index in devices:
        check_index(index, count)


def _cuda_solver(settings: ExtractSettings, device: int, height: int, width: int, *, on_batch: Callable[[], None]) -> CudaSolver:
    """Make the solver for a frame size, in the GPU's own process."""
    bound, mapping = settings.quantiser.bound, settings.quantiser.mapping
    return CudaSolver(height, width, settings.tvl1, device_index=device, bound=bound, mapping=mapping, on_batch=on_batch)


def _crashed(job: VideoJob, crash: str | None) -> VideoResult:
    """Return the result of a video whose process was ended."""
    status: Status = "undecodable" if crash == KILLED_TWICE else "failed"
    return VideoResult(job.video_id, status, job.source_bytes, job.source_mtime_ns, error=crash or "")


class PlannedRun:
    """The records of a run: what is done, what failed, what is left, and how far the run is."""

    def __init__(self, plan: Plan, bar: ProgressBar, on_progress: Callable[[ExtractProgress], None] | None) -> None:
        self.plan, self.bar, self.on_progress = plan, bar, on_progress
        self.tasks: deque[Task] = deque()
        self.done: list[VideoResult] = []
        self.failed = list(plan.failed)
        self.unfinished = {job.video_id for job in plan.jobs}
        self.pieces_done = Counter[str]()
        self.total_bytes = sum(job.work_bytes for job in plan.jobs) or 1
        self.finished_bytes = 0.0
        self.finished_pairs = 0

    def record(self, outcome: TaskOutcome[Task, TaskResult]) -> list[VideoResult]:
        """Record the outcome of a task; return the results of the videos that are settled now."""
        if isinstance(outcome.task, SegmentsJob):
            return self._record_segments(outcome.task, outcome)
        result = self._record_video(outcome)
        return [] if result is None else [result]

    def _record_segments(self, task: SegmentsJob, outcome: TaskOutcome[Task, TaskResult]) -> list[VideoResult]:
        """Record the results of the segments of a video; if its process was ended, those that have a clip file are done."""
        if outcome.result is None:
            done = [done_before(job, None, {}) or _crashed(job, outcome.crash) for job in task.segments]
            self.finished_pairs += sum(result.num_steps for result in done)
        else:
            done = list(outcome.result.segments)
            self.finished_pairs += outcome.result.num_pairs
        shares = {job.video_id: job.work_bytes for job in task.segments}
        for result in done:
            self.unfinished.remove(result.video_id)
            self.finished_bytes += shares[result.video_id]
            (self.done if result.status in WRITTEN else self.failed).append(result)
        return done

    def _record_video(self, outcome: TaskOutcome[Task, TaskResult]) -> VideoResult | None:
        """Record the outcome of a task of a video; return the result of the video if that is settled now."""
        task, result = outcome.task, outcome.result
        job = video_of(task)
        if result is None:
            result = TaskResult(_crashed(job, outcome.crash))
        if result.stopped or job.video_id not in self.unfinished:  # the latter if its video failed in another piece
            return None
        if result.tasks:
            self.tasks.extendleft(reversed(result.tasks))
            return None
        self.finished_bytes += work_bytes(task)
        self.finished_pairs += result.num_pairs
        if result.video is None:
            assert isinstance(task, PieceJob)
            self.pieces_done[job.video_id] += 1
            if self.pieces_done[job.video_id] == task.num_pieces:  # its flow is complete: its clip file comes next
                self.tasks.appendleft(replace(job, pieces=tuple(find_pieces(job.piece_folder))))
            return None
        self.unfinished.remove(job.video_id)
        if isinstance(task, PieceJob):  # a piece failed: the others would crash or hang too
            others = [other for other in self.tasks if video_of(other).video_id != job.video_id]
            self.tasks.clear()
            self.tasks.extend(others)
        (self.done if result.video.status in WRITTEN else self.failed).append(result.video)
        if result.video.status != "failed":
            remove_pieces(job.piece_folder)
        return result.video

    def tick(self, running: list[tuple[Task, int, int]]) -> None:
        """Report how far the run is, with what the running tasks have noted."""
        pairs = self.finished_pairs + sum(num_done for _, num_done, _ in running)
        in_progress = sum(work_bytes(task) * min(num_done / expected, 1) for task, num_done, expected in running if expected)
        fraction = min((self.finished_bytes + in_progress) / self.total_bytes, 1)
        num_done, num_videos = len(self.done) + len(self.failed), len(self.plan.jobs) + len(self.plan.failed)
        failed = f", {len(self.failed)} failed" if self.failed else ""
        self.bar.update(pairs, fraction=fraction, note=f"{num_done}/{num_videos} videos{failed}")
        if self.on_progress is not None:
            self.on_progress(ExtractProgress(num_done, num_videos, len(self.failed), pairs, fraction))

    def report(self, seconds: float) -> ExtractReport:
        """Return the report of what the run has done so far."""
        return ExtractReport(
            tuple(sorted(self.done, key=lambda result: result.video_id)),
            self.plan.skipped,
            tuple(sorted(self.failed, key=lambda result: result.video_id)),
            ignored=sum(self.plan.ignored.values()),
            pending=len(self.unfinished),
            seconds=seconds,
            ignored_by_suffix=self.plan.ignored,
        )

    def save_report(self, root: Path, seconds: float) -> None:
        """Write ``extract-report.json``, which covers all videos of the tree, even if this run had only a part of them.

        Parts write it one after the other, so the last one notes the results of all others.
        """
        with exclusive_lock(root / ".report.lock", f"writes the report of {str(root)!r}", on_wait=lambda _: None):
            text = json.dumps(self._whole_report(root, seconds).to_dict(), indent=1, ensure_ascii=False)
            write_atomically(root / "extract-report.json", text.encode("utf-8", "surrogateescape") + b"\n")

    def _whole_report(self, root: Path, seconds: float) -> ExtractReport:
        report = self.report(seconds)
        if not self.plan.elsewhere:
            return report
        index = read_index(root)
        noted = [index[video_id] for video_id in self.plan.elsewhere if video_id in index]
        return replace(
            report,
            skipped=(*report.skipped, *(result for result in noted if result.status in WRITTEN)),
            failed=(*report.failed, *self.plan.failed_elsewhere, *(result for result in noted if result.status not in WRITTEN)),
            pending=report.pending + len(self.plan.elsewhere) - len(noted),
        )
