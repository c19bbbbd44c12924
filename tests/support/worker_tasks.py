"""Tasks that worker processes run in tests; in a module of their own, which the workers can import."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowkit.workers.processes import TaskOutcome
from flowkit.workers.progress import ChildProgress

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterator

    from flowkit.workers.progress import TaskProgress


def square(task: int, progress: TaskProgress) -> int:
    progress.note(1, 1)
    return task * task


def raise_on_2(task: int, progress: TaskProgress) -> int:
    if task == 2:
        raise ValueError("two")
    return task


def wait_for_stop(task: int, progress: TaskProgress) -> str:
    for k in range(20_000):
        progress.note(k, 20_000)
        if progress.stopping:
            return "stopped"
        time.sleep(0.01)
    return "finished"


def die_on_7(task: int, progress: TaskProgress) -> int:
    if task == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return task


def die_once(task: str, progress: TaskProgress) -> str:
    marker = Path(task)
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def terminate_itself(task: int, progress: TaskProgress) -> int:
    os.kill(os.getpid(), signal.SIGTERM)
    return task


def wait_with_pid(task: str, progress: TaskProgress) -> None:
    Path(task + ".part").write_text(str(os.getpid()))
    Path(task + ".part").replace(task)
    time.sleep(10_000)


def run_here(function: Callable[..., Any], tasks: deque[Any], **options: object) -> Iterator[TaskOutcome[Any, Any]]:
    """Do what `run_tasks` does, in this process, where a test can disturb the tasks."""
    while tasks:
        task = tasks.popleft()
        yield TaskOutcome(task, function(task, ChildProgress(lambda note: None)))
