"""Clip files of video files that are in no data root: made one after the other in a data root of their own, and deleted once they are used.

The bytes of frames and flow are those that `flowkit.extract` would store of the same file. What a run that was killed had made is found
again by the next one, as in any data root.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from flowkit.dataset.progress import ProgressBar
from flowkit.dataset.root import RECORD_NAME, Dataset, check_apart, open_root
from flowkit.dataset.settings import ExtractSettings
from flowkit.errors import ManifestError
from flowkit.extraction.jobs import VideoJob
from flowkit.extraction.plan import Plan, done_before
from flowkit.extraction.results import VideoResult, read_index
from flowkit.extraction.run import ExtractProgress, PlannedRun, check_gpus, extracted
from flowkit.extraction.schedule import seconds_without_progress
from flowkit.file_versions import FileVersion
from flowkit.video.ids import MOST_CLASHES, check_video_id, first_few, without_suffix
from flowkit.video.tree import VideoFile
from flowkit.words import counted
from flowkit.workers.processes import TaskLimits
from flowkit.workers.stopping import StopRequest


def loose_videos(paths: Iterable[Path]) -> list[VideoFile]:
    """Return video files with their ids, which are their names without the suffix, sorted by id.

    Raises
    ------
    ManifestError
        If there is no such file, it is a folder, its name cannot be an id, or two files have the same id; names all that have.
    """
    files: dict[str, list[Path]] = {}
    for path in paths:
        if path.is_dir():
            raise ManifestError(
                f"{str(path)!r} is a folder: name its video files, or extract it with `flowkit extract`; `flowkit features` without files "
                "then takes all videos of the data root"
            )
        if not path.is_file():
            raise ManifestError(f"there is no video file {str(path)!r}")
        video_id = without_suffix(path.name)
        check_video_id(video_id)
        files.setdefault(video_id, []).append(path)
    if not files:
        raise ManifestError("name at least one video file")
    clashes = [f"{name!r}: {first_few(map(repr, map(str, same)), last='and')}" for name, same in files.items() if len(same) > 1]
    if clashes:
        raise ManifestError(
            f"files of the same name would share a video id; rename all but one of each, or compute them into separate files. "
            f"{counted(len(clashes), 'id')}: {first_few(sorted(clashes), most=MOST_CLASHES)}"
        )
    return [VideoFile(video_id, path, "") for video_id, (path,) in sorted(files.items())]


def loose_clips(
    videos: Sequence[VideoFile],
    folder: Path,
    *,
    settings: ExtractSettings,
    jobs: int | None = None,
    device_index: int = 0,
    stop: StopRequest | None = None,
    on_progress: Callable[[ExtractProgress], None] | None = None,
) -> Iterator[VideoResult]:
    """Make the clip files of videos; yield the result of each as soon as its clip file is there.

    Parameters
    ----------
    videos : sequence of VideoFile
        The videos.
    folder : Path
        The data root of the clips, which nothing else may use. One of other settings is replaced. The consumer deletes each clip file
        that it has used, so that few of them exist at any time, and the folder at the end.
    settings : ExtractSettings
        How the clips are made.
    jobs : int, optional
        Number of worker processes; by default one per core.
    device_index : int
        The GPU to use, with the cuda solver.
    stop : StopRequest, optional
        Ends the work once a stop is requested; what is finished is kept for the next call.
    on_progress : callable, optional
        Receives an `ExtractProgress` about five times a second.

    Raises
    ------
    DeviceError
        If the device of the solver is unavailable.
    OSError
        If the disk is full or read-only.
    """
    if settings.solver == "cuda":
        check_gpus((device_index,))
    if settings.method is not None:
        settings.method.solver()  # it must be installed
    _make_root(folder, settings)
    check_apart(folder, (video.video_id for video in videos))
    index, todo = read_index(folder), []
    for video in videos:
        try:
            version = FileVersion.of(video.path)
        except OSError as cause:
            yield VideoResult(video.video_id, "failed", 0, 0, error=f"{cause.strerror}: {str(video.path)!r}")
            continue
        job = VideoJob(video.video_id, video.path, video.class_name, folder, settings, 0, 0).with_version(version)
        done = done_before(job, index.get(video.video_id), {})
        if done is None:
            todo.append(job)
        else:
            yield done
    largest_first = tuple(sorted(todo, key=lambda job: -job.source_bytes))
    run = PlannedRun(Plan(settings, largest_first, (), (), {}), ProgressBar("", unit="", progress=False), on_progress)
    limits = TaskLimits(partial(seconds_without_progress, limit=None))
    yield from extracted(run, folder, jobs=jobs, devices=(device_index,), limits=limits, stop=stop, grace_seconds=0)


def _make_root(folder: Path, settings: ExtractSettings) -> None:
    try:
        existing = Dataset.open_if_present(folder)
        other = existing is not None and bool(existing.settings.differences(settings))
    except ManifestError:
        other = True
    if other and (folder / RECORD_NAME).is_file():
        shutil.rmtree(folder)
    open_root(folder, folder, settings)
