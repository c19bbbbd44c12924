"""What can only be found by reading a whole clip: its cuts and repeated frames, and how its flow uses the range of the quantiser.

`extract` finds this while it writes a clip, and notes it in its index. Of other clips it is found here, in all cores, and noted
in ``clips/.surveys`` of the data root, so that it is found once, whatever stops it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from flowkit.dataset.progress import ProgressBar
from flowkit.dataset.root import Dataset
from flowkit.dataset.settings import ExtractSettings
from flowkit.errors import DeviceError, FlowkitError, SourceChangedError
from flowkit.extraction.flow_range import VideoRange
from flowkit.extraction.results import IndexWriter, VideoResult, read_index, with_scenes
from flowkit.scenes.measures import PairScan
from flowkit.scenes.rule import RULE, scene_changes
from flowkit.shards.reader import ShardReader
from flowkit.workers.processes import num_cores, run_tasks
from flowkit.workers.progress import TaskProgress

SURVEYS_FOLDER = ".surveys"
_FRAMES_AT_ONCE = 16


@dataclass(frozen=True)
class SurveyTask:
    """A clip to be read by a worker process: its file, and the SHA-256 that it must have."""

    path: Path
    video_id: str
    sha256: str
    settings: ExtractSettings


def surveys(
    dataset: Dataset,
    paths: Mapping[str, Path],
    digests: Mapping[str, str],
    *,
    jobs: int | None = None,
    progress: bool | None = None,
) -> tuple[dict[str, VideoResult], dict[str, str]]:
    """Return what is known of whole clips, and read those of which it is not known yet.

    Parameters
    ----------
    dataset : Dataset
        The data root.
    paths, digests : dict from str to Path, and to str
        The file, and `Clip.sha256`, of each video.
    jobs : int, optional
        Number of worker processes; by default one per core.
    progress : bool, optional
        Show the progress on stderr. By default it is shown on a terminal and in a notebook.

    Returns
    -------
    known : dict from str to VideoResult
        The cuts, repeated frames and, where there is flow, the range of the flow of each video that could be read.
    failures : dict from str to str
        Why the others could not be read.
    """
    known: dict[str, VideoResult] = {}
    for records in (read_index(dataset.root), read_index(dataset.root, SURVEYS_FOLDER)):
        known |= {
            video_id: record
            for video_id, record in records.items()
            if record.scene_rule == RULE and record.clip_sha256 == digests.get(video_id)
        }
    todo = [SurveyTask(path, name, digests[name], dataset.settings) for name, path in paths.items() if name not in known]
    failures: dict[str, str] = {}
    if not todo:
        return known, failures
    total, jobs = len(todo), min(jobs or num_cores(), len(todo))
    with ProgressBar("reading clips", total=total, unit="videos", progress=progress) as bar, _writer(dataset.root) as writer:
        for outcome in run_tasks(survey_task, deque(todo), jobs=jobs):
            result, name = outcome.result, outcome.task.video_id
            if isinstance(result, VideoResult):
                known[name] = result
                if writer is not None:
                    writer.append(result)
            else:
                failures[name] = result or outcome.crash or ""
            bar.advance()
    return known, failures


@contextmanager
def _writer(root: Path) -> Iterator[IndexWriter | None]:
    """Yield what writes the notes; None if the data root is read-only, where everything is found again each time."""
    try:
        writer = IndexWriter(root, SURVEYS_FOLDER)
    except OSError:
        yield None
        return
    with closing(writer):
        yield writer


def survey_task(task: SurveyTask, progress: TaskProgress) -> VideoResult | str:
    """Read one clip; this is what the worker processes do. What is wrong with the clip is returned, not raised."""
    import cv2

    cv2.setNumThreads(1)
    try:
        return _survey(task, progress)
    except DeviceError:
        raise
    except (FlowkitError, OSError) as error:
        return str(error)


def _survey(task: SurveyTask, progress: TaskProgress) -> VideoResult:
    scan, used = PairScan(), VideoRange(task.settings)
    with ShardReader(task.path) as reader:
        clip = reader.clip(task.video_id)
        if clip.sha256 != task.sha256:
            raise SourceChangedError(f"{task.path} was changed while it was read; run the same command again")
        count = clip.num_frames
        for start in range(0, count, _FRAMES_AT_ONCE):
            stop = min(start + _FRAMES_AT_ONCE, count)
            scan.add(clip.encoded_frames(start, stop))
            progress.note(stop, count)
            if not clip.has_flow:
                continue
            # As in an extraction, a batch has the flow that leads to its frames.
            pair = [] if task.settings.is_imported or stop - start < 2 else [stop - 2, stop - 1]
            frames = clip.frames(pair) if pair else np.empty((0, clip.height, clip.width, 3), np.uint8)
            used.add(frames, clip.flow(max(start - 1, 0), stop - 1))
    found = VideoResult(task.video_id, "ok", 0, 0, num_frames=count, clip_sha256=task.sha256, has_flow=clip.has_flow)
    return used.into(with_scenes(replace(found, source_sha256=clip.attributes.source_sha256), scene_changes(scan.measures())))
