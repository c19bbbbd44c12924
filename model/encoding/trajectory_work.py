"""Work in processes: a pass over the videos of a data root, whose journal keeps what is finished for the next call; and fitting types."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ParameterError
from flowkit.model.encoding.fitting import FittedType
from flowkit.model.encoding.trajectory_tasks import (
    FRAME_RATE,
    NUM_FRAMES,
    FitTask,
    TrajectoryResult,
    TrajectoryTask,
    patience,
    prepare_process,
    run_trajectory_task,
)
from flowkit.model.scoring.feature_files import PlannedFeatures, VideoFeatures
from flowkit.model.scoring.feature_journal import FeatureJournal, VideoToDo, WindowName
from flowkit.workers.processes import TaskLimits, TaskOutcome, num_cores, run_tasks
from flowkit.workers.stopping import StopRequest

FITS_AT_ONCE = 2  # by default; each takes about 3 GB with 256 components


def run_pass(
    tasks: Iterable[TrajectoryTask],
    journal: FeatureJournal,
    failed: dict[str, str],
    *,
    jobs: int | None,
    stop: StopRequest,
    grace_seconds: float,
    on_progress: Callable[[int, int], None],
) -> bool:
    """Do the tasks whose arrays are not in a journal yet, the longest videos first.

    Parameters
    ----------
    tasks : iterable of TrajectoryTask
        One for each video.
    journal : FeatureJournal
        Where their arrays are kept; it is open.
    failed : dict from video id to str
        Receives the videos that have none, and why.
    jobs : int, optional
        Number of worker processes. Default: one per core.
    stop : StopRequest
        Ends the pass once a stop is requested.
    grace_seconds : float
        How long videos in progress may then take.
    on_progress : callable
        Receives how many videos are done, and how many there are.

    Returns
    -------
    bool
        False if the pass was stopped before all was done.
    """
    every = list(tasks)
    todo = deque(
        sorted((task for task in every if name_of(task.video.about) not in journal), key=lambda task: -task.video.about.num_frames)
    )
    num_left = len(todo)
    on_progress(len(every) - num_left, len(every))
    outcomes = _outcomes(todo, jobs=jobs or num_cores(), stop=stop, grace_seconds=grace_seconds)
    for outcome in outcomes:
        about, result = outcome.task.video.about, outcome.result or TrajectoryResult(error=outcome.crash or "")
        if result.arrays is not None and all(np.isfinite(array).all() for array in result.arrays.values()):
            journal.add(name_of(about), result.arrays)
        elif result.arrays is not None:
            failed[about.video_id] = "its descriptors are not finite numbers"
        elif result.error:
            failed[about.video_id] = result.error
        else:  # it was stopped
            continue
        num_left -= 1
        on_progress(len(every) - num_left, len(every))
    return num_left == 0


def fit_types(
    tasks: Sequence[FitTask],
    journal: FeatureJournal,
    *,
    jobs: int | None,
    stop: StopRequest,
    grace_seconds: float,
    on_progress: Callable[[int, int], None],
) -> list[FittedType] | None:
    """Fit each type of descriptors that the journal does not have yet, several at once, in the processes of the first pass.

    Parameters
    ----------
    tasks : sequence of FitTask
        One for each type.
    journal : FeatureJournal
        Where what is fitted is kept; it is open.
    jobs : int, optional
        How many types are fitted at once. Default: `FITS_AT_ONCE`, or fewer if there are fewer cores. The result does not depend on it.
    stop : StopRequest
        Ends the fit once a stop is requested.
    grace_seconds : float
        How long the types in progress may then take.
    on_progress : callable
        Receives how many types are done, and how many there are.

    Returns
    -------
    list of FittedType, or None
        In the order of the tasks; None if the fit was stopped before all was done.

    Raises
    ------
    ParameterError
        If a type cannot be fitted.
    """
    names = {task.name: _name_of_fit(task) for task in tasks}
    todo = deque(task for task in tasks if names[task.name] not in journal)
    num_left = len(todo)
    on_progress(len(tasks) - num_left, len(tasks))
    outcomes = _outcomes(todo, jobs=jobs or min(num_cores(), FITS_AT_ONCE), stop=stop, grace_seconds=grace_seconds)
    for outcome in outcomes:
        result = outcome.result or TrajectoryResult(error=f"{outcome.task.name}: {outcome.crash}" if outcome.crash else "")
        if result.error:
            raise ParameterError(result.error)
        if result.arrays is not None:
            journal.add(names[outcome.task.name], result.arrays)
            num_left -= 1
            on_progress(len(tasks) - num_left, len(tasks))
    return None if num_left else [FittedType.of(task.name, journal.read(names[task.name])) for task in tasks]


def _name_of_fit(task: FitTask) -> WindowName:
    """Return the name under which a journal keeps what was fitted to a sample: that of no video, whose id would not be empty."""
    digest = hashlib.sha256(np.ascontiguousarray(task.sample).data).hexdigest()
    return WindowName(VideoToDo("", task.name, len(task.sample), "", digest, ""), 0)


def _outcomes(todo: deque[Any], *, jobs: int, stop: StopRequest, grace_seconds: float) -> Iterator[TaskOutcome[Any, TrajectoryResult]]:
    """Do tasks in worker processes, which are kept: the next pass, and the fit, use those of the first."""
    return run_tasks(
        run_trajectory_task,
        todo,
        jobs=min(jobs, max(len(todo), 1)),
        prepare=prepare_process,
        limits=TaskLimits(patience),
        stop=stop,
        grace_seconds=grace_seconds,
        keep=True,
    )


def name_of(video: VideoToDo) -> WindowName:
    """Return the name under which a journal keeps the arrays of a video."""
    return WindowName(video, 0)


def planned_vector(video: VideoToDo, journal: FeatureJournal, streams: Mapping[str, int]) -> PlannedFeatures:
    """Return the vector of a video, which a journal keeps by these streams and sizes, ready to be written; it is about the middle frame."""

    def blocks() -> Iterator[Mapping[str, NDArray[np.float32]]]:
        yield journal.read(name_of(video))

    known = asdict(video)
    if not video.num_frames:  # it is in no data root
        found = journal.read(name_of(video))
        numerator, denominator = map(int, found[FRAME_RATE])
        known |= {"num_frames": int(found[NUM_FRAMES][0]), "frame_rate": f"{numerator}/{denominator}"}
    about = VideoFeatures(frames=np.array([known["num_frames"] // 2], np.int64), arrays={}, **known)
    return PlannedFeatures(about, {stream: (1, size) for stream, size in streams.items()}, blocks)
