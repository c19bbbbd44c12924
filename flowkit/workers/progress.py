"""How running tasks report their progress to the parent process, how its requests to stop reach them, and how long it waits for a note."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

_SECONDS_BETWEEN_NOTES = 0.05
PATIENCE_SECONDS = 600.0  # without any progress; the largest frames take minutes, and a network file system may be away for a while
SLOWEST_BYTES_PER_SECOND = 1e6  # at which a video file is read


class StoppedError(Exception):
    """The parent process asked the running tasks to stop."""


class TaskProgress(Protocol):
    """A running task's link to its run: it notes its progress here, and looks here whether to stop."""

    def note(self, done: int, expected: int = 0) -> None:
        """Note that `done` of `expected` units of work are done (0: unknown)."""

    def alive(self) -> None:
        """Note that the work goes on, although no unit of it is done yet. The time limit of a task starts again."""

    @property
    def stopping(self) -> bool:
        """Whether running tasks must stop now."""


class ChildProgress:
    """The `TaskProgress` in a child process: it sends notes to the parent, but not more often than that needs them.

    Parameters
    ----------
    send : callable
        Sends (done, expected) to the parent process.
    """

    def __init__(self, send: Callable[[tuple[int, int]], Any]) -> None:
        self._send = send
        self._last = (0, 0)
        self._sent_at = float("-inf")
        self.stopping = False

    def note(self, done: int, expected: int = 0) -> None:
        self._last = (done, expected)
        self.alive()

    def alive(self) -> None:
        now = time.monotonic()
        if now - self._sent_at >= _SECONDS_BETWEEN_NOTES:
            self._sent_at = now
            self._send(self._last)


def patience_seconds(num_bytes: int) -> float:
    """Return how long a worker process may make no progress with a video: ten minutes, and a second for each MB of its file."""
    return PATIENCE_SECONDS + num_bytes / SLOWEST_BYTES_PER_SECOND


def patience_with(path: Path) -> float:
    """Return `patience_seconds` of a video file; of one that cannot be looked at, that of an empty one."""
    try:
        return patience_seconds(path.stat().st_size)
    except OSError:
        return patience_seconds(0)
