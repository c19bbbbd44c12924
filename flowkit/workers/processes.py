"""Run tasks in local processes that are restarted when one dies and stopped within a grace period.

The processes are joblib's (loky). This module adds what a run over thousands of foreign videos needs: if a process is killed
(by a bug in a decoder, or for lack of memory), each task that was in flight is tried once more, one at a time, and only a task
that kills its process again is given up.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from flowkit.workers.progress import LocalProgress, ProgressFile, TaskProgress
from flowkit.workers.stopping import GRACE_SECONDS, StopRequest

Task = TypeVar("Task")
Result = TypeVar("Result")

QUEUED_PER_PROCESS = 2  # one running and one waiting, so that none is ever idle


@dataclass(frozen=True)
class TaskOutcome(Generic[Task, Result]):
    """A task with its result, or with the reason why there is none."""

    task: Task
    result: Result | None
    crash: str | None = None


def num_cores() -> int:
    """Return how many processes this machine (or container, or job) can run at once."""
    from joblib import cpu_count

    return int(cpu_count())


def run_tasks(
    function: Callable[[Task, TaskProgress], Result],
    tasks: deque[Task],
    *,
    jobs: int,
    stop: StopRequest | None = None,
    grace_seconds: float = GRACE_SECONDS,
    on_tick: Callable[[list[tuple[Task, int, int]]], None] | None = None,
) -> Iterator[TaskOutcome[Task, Result]]:
    """Run ``function(task, progress)`` for every task in `jobs` processes; yield the outcomes as they come.

    Parameters
    ----------
    function : callable, importable by name
        Runs in a worker process. It reports by ``progress.note(done, expected)`` and should return early when
        ``progress.stopping``.
    tasks : deque
        The tasks, which must be picklable. They are taken from the left; the consumer of the outcomes may append more.
    jobs : int
        Number of processes.
    stop : StopRequest, optional
        Once a stop is requested, no new task is started; after `grace_seconds` the processes are ended.
    on_tick : callable, optional
        Receives (task, done, expected) of the running tasks about five times a second.

    Yields
    ------
    TaskOutcome
        In order of completion. An exception of `function` is raised here; a task whose process died twice has a
        `crash`. Tasks that were not finished when the run was stopped have no outcome.
    """
    if not tasks:
        return
    stop = stop or StopRequest()
    with ProgressFile.make(QUEUED_PER_PROCESS * jobs) as file:
        run = partial(_run_until_crash, function, file=file, stop=stop, grace_seconds=grace_seconds, on_tick=on_tick)
        while tasks and not stop.requested():
            suspects: list[Task] = []
            yield from run(tasks, suspects, jobs=jobs)
            for suspect in suspects:  # a process died: each task that was in flight is tried again, by itself
                if stop.requested():
                    break
                guilty: list[Task] = []
                yield from run(deque([suspect]), guilty, jobs=1)
                for task in guilty:
                    yield TaskOutcome(task, None, crash="its worker process was killed twice (a bug in the decoder, or out of memory)")


def _run_until_crash(
    function: Callable[[Task, TaskProgress], Result],
    waiting: deque[Task],
    suspects: list[Task],
    *,
    jobs: int,
    file: ProgressFile,
    stop: StopRequest,
    grace_seconds: float,
    on_tick: Callable[[list[tuple[Task, int, int]]], None] | None,
) -> Iterator[TaskOutcome[Task, Result]]:
    """Run waiting tasks until none is left, a stop is requested or a process dies; then the tasks in flight go to `suspects`."""
    from joblib.externals.loky import ProcessPoolExecutor
    from joblib.externals.loky.process_executor import BrokenProcessPool

    executor = ProcessPoolExecutor(max_workers=jobs, initializer=_start_worker, initargs=(os.getpid(),), timeout=None)
    running: dict[Any, tuple[Task, int]] = {}
    free = list(range(QUEUED_PER_PROCESS * jobs))
    finished = False
    try:
        while True:
            while waiting and free and not stop.requested():
                task, slot = waiting.popleft(), free.pop()
                file.write(slot, 0)
                running[executor.submit(_begin, function, task, LocalProgress(file, slot))] = (task, slot)
            if not running:
                break
            if stop.since is not None:
                file.request_stop(at_once=time.monotonic() - stop.since > grace_seconds)
                if time.monotonic() - stop.since > grace_seconds + 5:  # the tasks do not react: their processes are ended below
                    return
            broken = False
            for future in _wait(running):
                task, slot = running.pop(future)
                free.append(slot)
                try:
                    began, result = future.result()
                except BrokenProcessPool:
                    suspects.append(task)
                    broken = True
                    continue
                if began:
                    yield TaskOutcome(task, result)
            if on_tick is not None:
                on_tick([(task, *file.read(slot)) for task, slot in running.values()])
            if broken:
                suspects.extend(task for task, _ in running.values())
                return
        finished = True
    finally:
        executor.shutdown(wait=finished, kill_workers=not finished)


def _begin(function: Callable[[Task, TaskProgress], Result], task: Task, progress: LocalProgress) -> tuple[bool, Result | None]:
    """In the worker: run the function, unless a stop was requested while the task waited; return whether it ran, and its result."""
    if progress.file.closing:
        return False, None
    return True, function(task, progress)


def _wait(running: dict[Any, Any]) -> list[Any]:
    from concurrent.futures import FIRST_COMPLETED, wait

    return list(wait(running, timeout=0.2, return_when=FIRST_COMPLETED).done)


def _start_worker(parent: int) -> None:
    """Let the parent alone react to Ctrl-C and SIGTERM; use one thread per process.

    Terminals, `timeout` and job schedulers send these signals to all processes of a run.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    import cv2

    cv2.setNumThreads(1)


def _end_with(parent: int) -> None:
    """End this process soon after its parent has ended: if the parent is killed, loky's processes wait for work without end."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
