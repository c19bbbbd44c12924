"""Tasks that worker processes run in tests; in a module of their own, which the workers can import."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowkit.workers.progress import TaskProgress


def square(task: int, progress: TaskProgress) -> int:
    progress.note(1, 1)
    return task * task


def raise_on_2(task: int, progress: TaskProgress) -> int:
    if task == 2:
        raise ValueError("two")
    return task


def wait_for_stop(task: int, progress: TaskProgress) -> str:
    for k in range(2000):
        progress.note(k, 2000)
        if progress.stopping:
            return "stopped"
        time.sleep(0.01)
    return "finished"
