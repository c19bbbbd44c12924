"""Run tasks in local processes: bounded, restarted when one dies, its culprit found and set aside, stopped with grace.

The processes are joblib's (loky). This module adds what a run over thousands of foreign videos needs: a process that is
killed (by a decoder's fault or for memory) costs the videos in flight a second try, alone, and only the one that kills
again is given up.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
import tempfile
import threading
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Task = TypeVar("Task")
Result = TypeVar("Result")

GRACE_SECONDS = 20.0  # after a wish to stop, for what is in flight
_SLOT = struct.Struct("<qq")  # done, expected


class StopRequest:
    """A wish to stop, set by a signal handler and read by the loops; the time of the first wish counts the grace."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self.since: float | None = None

    def requested(self) -> bool:
        """Whether somebody asked to stop."""
        return self.since is not None

    def request(self, signal_number: int = signal.SIGINT) -> None:
        """Ask to stop: nothing new is begun, what is in flight may finish."""
        if self.since is None:
            self.signal_number, self.since = signal_number, time.monotonic()


class TaskBoard(Protocol):
    """A task's view of the board: where it notes how far it is, and looks whether to stop."""

    def write(self, slot: int, done: int, expected: int = 0) -> None:
        """Note in a slot that `done` of `expected` are done (0: unknown)."""

    @property
    def stopping(self) -> bool:
        """Whether the tasks were told to stop what they do."""


class Board:
    """A small file in shared memory on which running tasks note how far they are, one slot each, read by the parent.

    Also carries the parent's wish to stop to the workers, who look at it between batches.
    """

    def __init__(self, path: str, num_slots: int) -> None:
        self.path, self.num_slots = path, num_slots
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), _SLOT.size * (num_slots + 1))

    @classmethod
    @contextmanager
    def make(cls, num_slots: int) -> Iterator[Board]:
        """Make a board that is deleted afterwards."""
        handle, path = tempfile.mkstemp(prefix="flowkit-board-")
        os.ftruncate(handle, _SLOT.size * (num_slots + 1))
        os.close(handle)
        board = cls(path, num_slots)
        try:
            yield board
        finally:
            board.close()
            os.unlink(path)

    def write(self, slot: int, done: int, expected: int = 0) -> None:
        """Note in a slot that `done` of `expected` are done (0: unknown)."""
        _SLOT.pack_into(self._map, _SLOT.size * slot, done, expected)

    def read(self, slot: int) -> tuple[int, int]:
        """Return (done, expected) of a slot."""
        done, expected = _SLOT.unpack_from(self._map, _SLOT.size * slot)
        return done, expected

    def ask_to_stop(self, *, at_once: bool) -> None:
        """Tell all workers to begin nothing new, or to stop at their next look."""
        self.write(self.num_slots, 2 if at_once else 1)

    @property
    def closing(self) -> bool:
        """Whether the workers were told to begin nothing new."""
        return self.read(self.num_slots)[0] >= 1

    @property
    def stopping(self) -> bool:
        """Whether the workers were told to stop what they do."""
        return self.read(self.num_slots)[0] >= 2

    def close(self) -> None:
        """Unmap the file."""
        self._map.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return Board, (self.path, self.num_slots)


@dataclass(frozen=True)
class Outcome(Generic[Task, Result]):
    """What became of a task: a result, or the reason why there is none."""

    task: Task
    result: Result | None
    crash: str | None = None


def num_cores() -> int:
    """Return how many processes this machine (or container, or job) lets us run at once."""
    from joblib import cpu_count

    return int(cpu_count())


def run_tasks(
    function: Callable[[Task, TaskBoard, int], Result],
    tasks: deque[Task],
    *,
    jobs: int,
    stop: StopRequest | None = None,
    grace_seconds: float = GRACE_SECONDS,
    on_tick: Callable[[list[tuple[Task, int, int]]], None] | None = None,
) -> Iterator[Outcome[Task, Result]]:
    """Run ``function(task, board, slot)`` for every task in `jobs` processes; yield outcomes as they come.

    Parameters
    ----------
    function : callable, importable by name
        Runs in a worker process. It notes its progress by ``board.write(slot, done, expected)`` and should end early
        when ``board.stopping``.
    tasks : deque
        Picklable; emptied from the left. The consumer of the outcomes may append to it while it runs.
    jobs : int
        Processes.
    stop : StopRequest, optional
        Once requested nothing new is begun; after `grace_seconds` the processes are ended.
    on_tick : callable, optional
        Called about five times a second with (task, done, expected) of what is running.

    Yields
    ------
    Outcome
        In order of completion. An exception of `function` is raised here; a task whose process died twice has a
        `crash`. Tasks that were not finished when the run was stopped have no outcome.
    """
    if not tasks:
        return
    stop = stop or StopRequest()
    num_slots = 2 * jobs  # one running and one waiting for each process, so that none is ever idle
    with Board.make(num_slots) as board:
        while tasks and not stop.requested():
            suspects: list[Task] = []
            yield from _run_until_crash(function, tasks, suspects, jobs, num_slots, board, stop, grace_seconds, on_tick)
            for suspect in suspects:  # a process died: each task that was in flight is tried again alone
                if stop.requested():
                    break
                alone, guilty = deque([suspect]), list[Task]()
                yield from _run_until_crash(function, alone, guilty, 1, num_slots, board, stop, grace_seconds, on_tick)
                for task in guilty:
                    yield Outcome(task, None, crash="its worker process was killed twice (a fault in the decoder, or out of memory)")


def _run_until_crash(
    function: Callable[[Task, TaskBoard, int], Result],
    waiting: deque[Task],
    suspects: list[Task],
    jobs: int,
    num_slots: int,
    board: Board,
    stop: StopRequest,
    grace_seconds: float,
    on_tick: Callable[[list[tuple[Task, int, int]]], None] | None,
) -> Iterator[Outcome[Task, Result]]:
    """Run waiting tasks until none is left, a stop, or a process dies; then the tasks in flight go to `suspects`."""
    from joblib.externals.loky import ProcessPoolExecutor
    from joblib.externals.loky.process_executor import BrokenProcessPool

    executor = ProcessPoolExecutor(max_workers=jobs, initializer=_start_worker, initargs=(os.getpid(),), timeout=None)
    running: dict[Any, tuple[Task, int]] = {}
    free = list(range(min(num_slots, 2 * jobs)))
    finished = False
    try:
        while True:
            while waiting and free and not stop.requested():
                task, slot = waiting.popleft(), free.pop()
                board.write(slot, 0)
                running[executor.submit(_begin, function, task, board, slot)] = (task, slot)
            if not running:
                break
            if stop.since is not None:
                board.ask_to_stop(at_once=time.monotonic() - stop.since > grace_seconds)
                if time.monotonic() - stop.since > grace_seconds + 5:  # does not listen: it is ended below
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
                    yield Outcome(task, result)
            if on_tick is not None:
                on_tick([(task, *board.read(slot)) for task, slot in running.values()])
            if broken:
                suspects.extend(task for task, _ in running.values())
                return
        finished = True
    finally:
        executor.shutdown(wait=finished, kill_workers=not finished)


def _begin(function: Callable[[Task, TaskBoard, int], Result], task: Task, board: Board, slot: int) -> tuple[bool, Result | None]:
    """In the worker: run the function, unless a stop came while the task waited; return whether it was run, and its result."""
    if board.closing:
        return False, None
    return True, function(task, board, slot)


def _wait(running: dict[Any, Any]) -> list[Any]:
    from concurrent.futures import FIRST_COMPLETED, wait

    return list(wait(running, timeout=0.2, return_when=FIRST_COMPLETED).done)


def _start_worker(parent: int) -> None:
    """Leave Ctrl-C and SIGTERM to the parent, which finishes what is in flight; one thread a process.

    Terminals, `timeout` and job schedulers send them to all processes of a run.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    import cv2

    cv2.setNumThreads(1)


def _end_with(parent: int) -> None:
    """End this process soon after its parent, which cannot say so when it is killed: loky's processes would wait for work for ever."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
