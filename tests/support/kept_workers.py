"""Worker processes that go on to the next test: their imports take most of a second, which is far longer than a tiny extraction."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

from flowkit.workers import processes

MOST_KEPT = 3
_started_in: list[Any] = []  # the surroundings in which the processes that are kept were started


def keep_workers(patch: pytest.MonkeyPatch) -> None:
    """Let every call of `run_tasks` keep its idle processes, for calls with the same function, working folder and environment."""
    kept_child = processes._kept_child

    def alike(function: Any, prepare: Any, inbox: Any) -> Any:
        if _started_in != (here := _surroundings()):
            end_kept(0)
            _started_in[:] = here
        return kept_child(function, prepare, inbox)

    assert processes.run_tasks.__kwdefaults__ is not None
    patch.setitem(processes.run_tasks.__kwdefaults__, "keep", True)
    patch.setattr(processes, "_kept_child", alike)


def end_kept(most: int) -> None:
    """End the processes that are kept, but for the last ones."""
    with processes._kept_lock:
        ended = processes._kept[: len(processes._kept) - most]
        del processes._kept[: len(ended)]
    for _, child in ended:
        child.kill()


def _surroundings() -> list[Any]:
    return [os.getcwd(), {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}, [*sys.path]]
