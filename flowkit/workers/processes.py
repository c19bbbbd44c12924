"""Run tasks in local processes, of which each can be ended without harm to the others.

This is what a run over thousands of foreign videos needs. If a process is killed (by a bug in a decoder, or for lack of memory),
its task is tried once more at the end of the run, alone, and only a task that kills its process again is given up. A process
whose task makes no progress, or uses too much memory, is ended, and its task is given up with that reason. A run can be stopped
within a grace period.
"""

from __future__ import annotations

import os
import pickle
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from flowkit.errors import DeviceError, ParameterError
from flowkit.temporary import remove_leftover_folders
from flowkit.workers.child import Child, InChildError, Message
from flowkit.workers.progress import TaskProgress
from flowkit.workers.stopping import GRACE_SECONDS, StopRequest

Task = TypeVar("Task")
Result = TypeVar("Result")

KILLED_TWICE = "its worker process was killed twice (a bug in the decoder, or out of memory)"
_TICK_SECONDS = 0.1
_LISTEN_SECONDS = 5.0  # after the grace period, for tasks to see the request to stop
_MOST_FAILED_STARTS = 3
_KEEP_SECONDS = 60.0


@dataclass(frozen=True)
class TaskOutcome(Generic[Task, Result]):
    """A task with its result, or with the reason why there is none."""

    task: Task
    result: Result | None
    crash: str | None = None


@dataclass(frozen=True)
class TaskLimits:
    """What a task may use before its process is ended; without arguments there are no limits.

    Parameters
    ----------
    seconds : callable, optional
        Returns how long a task may go on without any progress (`TaskProgress.note`, `TaskProgress.alive`), in seconds; None or 0
        is no limit. It must be importable by name, or a `functools.partial` of such a function.
    memory_bytes : int, optional
        How much memory a process may use.
    """

    seconds: Callable[[Any], float | None] | None = None
    memory_bytes: int | None = None


def check_memory_limit(memory_bytes: int | None) -> None:
    """Raise `ParameterError` if a limit on the memory of a process cannot be kept here."""
    if memory_bytes is not None and not os.path.exists("/proc/self/statm"):
        raise ParameterError("a memory limit needs a system that tells how much memory a process uses in /proc, such as Linux")


def num_cores() -> int:
    """Return how many processes this machine (or container, or job) can run at once."""
    from joblib import cpu_count

    return int(cpu_count())


def run_tasks(
    function: Callable[[Task, TaskProgress], Result],
    tasks: deque[Task],
    *,
    jobs: int,
    prepare: Callable[[], None] | None = None,
    limits: TaskLimits | None = None,
    stop: StopRequest | None = None,
    grace_seconds: float = GRACE_SECONDS,
    on_tick: Callable[[list[tuple[Task, int, int]]], None] | None = None,
    keep: bool = False,
) -> Iterator[TaskOutcome[Task, Result]]:
    """Run ``function(task, progress)`` for every task in `jobs` processes; yield the outcomes as they come.

    Parameters
    ----------
    function : callable, importable by name
        Runs in a worker process. It reports by ``progress.note(done, expected)`` and should return early when
        ``progress.stopping``.
    tasks : deque
        The tasks, which must be picklable. They are taken from the left; the consumer of the outcomes may append and remove tasks.
    jobs : int
        Number of processes.
    prepare : callable, importable by name, optional
        Runs first in each process, without a time limit.
    limits : TaskLimits, optional
        When the process of a task is ended.
    stop : StopRequest, optional
        Once a stop is requested, no new task is started; after `grace_seconds` the processes are ended.
    on_tick : callable, optional
        Receives (task, done, expected) of the running tasks some times a second.
    keep : bool
        Keep idle processes for a minute, for a later call with the same `function` and `prepare`.

    Yields
    ------
    TaskOutcome
        In order of completion. An exception of `function` is raised here; a task that was given up has a `crash`. Tasks that were
        not finished when the run was stopped have no outcome.

    Raises
    ------
    DeviceError
        If processes end before they can begin any task.
    """
    remove_leftover_folders()
    run = _Run(function, tasks, jobs=jobs, prepare=prepare, limits=limits or TaskLimits(), stop=stop or StopRequest())
    finished = False
    try:
        while run.hand_out():
            if run.stop.since is not None:
                waited = time.monotonic() - run.stop.since
                if waited > grace_seconds:
                    run.stop_tasks()
                if waited > grace_seconds + _LISTEN_SECONDS:  # the tasks do not react: their processes are ended below
                    return
            yield from run.receive()
            yield from run.enforce_limits()
            if on_tick is not None:
                on_tick([(running.task, *running.noted) for running in run.running.values()])
        finished = True
    finally:
        run.close(keep=keep and finished)


@dataclass
class _Running:
    """A task in a process."""

    task: Any
    noted: tuple[int, int] = (0, 0)
    seconds_without_progress: float = 0.0
    told_to_stop: bool = False


class _Run:
    """The processes of a call of `run_tasks`, and the tasks that they run."""

    def __init__(
        self,
        function: Callable[[Any, TaskProgress], Any],
        tasks: deque[Any],
        *,
        jobs: int,
        prepare: Callable[[], None] | None,
        limits: TaskLimits,
        stop: StopRequest,
    ) -> None:
        self._function, self._prepare, self._tasks, self._jobs, self._limits = function, prepare, tasks, jobs, limits
        self.stop = stop
        self.running: dict[Child, _Running] = {}
        self._idle: list[Child] = []
        self._inbox: queue.SimpleQueue[tuple[Child, Message]] = queue.SimpleQueue()
        self._suspects: dict[int, Any] = {}  # tasks whose process was killed once, by identity
        self._failed_starts = 0
        self._looked_at = time.monotonic()

    def hand_out(self) -> bool:
        """Give tasks to processes that are free; return whether any task is running."""
        while not self.stop.requested() and len(self.running) < self._jobs:
            index = next((k for k, task in enumerate(self._tasks) if id(task) not in self._suspects), None)
            alone = index is None
            if index is None:  # suspects run alone, when all else is done: if memory was short, it is not now
                if self.running or not self._tasks:
                    break
                index = 0
            task = self._tasks[index]
            del self._tasks[index]
            child = self._idle.pop() if self._idle else _kept_child(self._function, self._prepare, self._inbox)
            child.begin(task)
            self.running[child] = _Running(task)
            if alone:
                break
        return bool(self.running)

    def stop_tasks(self) -> None:
        """Let all running tasks see that they must stop."""
        for child, running in self.running.items():
            if not running.told_to_stop:
                child.stop()
                running.told_to_stop = True

    def receive(self) -> Iterator[TaskOutcome[Any, Any]]:
        """Wait a moment for messages, take all that have come, and yield the outcomes among them."""
        try:
            messages = [self._inbox.get(timeout=_TICK_SECONDS)]
        except queue.Empty:
            return
        while not self._inbox.empty():
            messages.append(self._inbox.get())
        for child, message in messages:
            running = self.running.get(child)
            if message.kind == "ready":
                child.is_ready, self._failed_starts = True, 0
            if running is None:
                if message.kind == "end" and child in self._idle:
                    self._idle.remove(child)
                    child.kill()
                continue
            running.seconds_without_progress = 0.0
            if message.kind == "note":
                running.noted = message.value
            elif message.kind == "result":
                del self.running[child]
                child.tasks_done += 1
                self._idle.append(child)
                yield TaskOutcome(running.task, message.value)
            elif message.kind == "error":
                raise message.value from InChildError(message.trace)
            elif message.kind == "end":
                yield from self._ended(child, running.task)

    def _ended(self, child: Child, task: Any) -> Iterator[TaskOutcome[Any, Any]]:
        """Try the task of a process that has ended once more, or give it up."""
        del self.running[child]
        status = child.kill()
        if not child.is_ready:  # the task had not begun
            self._failed_starts += 1
            if self._failed_starts >= _MOST_FAILED_STARTS:
                raise DeviceError(f"worker processes end before they begin to work (status {status}); what they printed says why")
            self._tasks.appendleft(task)
        elif id(task) in self._suspects:
            yield TaskOutcome(task, None, crash=KILLED_TWICE)
        else:
            self._try_later(task)

    def _try_later(self, task: Any) -> None:
        self._suspects[id(task)] = task
        self._tasks.append(task)

    def enforce_limits(self) -> Iterator[TaskOutcome[Any, Any]]:
        """End the processes whose tasks exceed a limit; yield these tasks with the reason."""
        now = time.monotonic()
        # If this process itself was held up (by Ctrl-Z, or by the consumer of the outcomes), that is no fault of the tasks.
        passed, self._looked_at = min(now - self._looked_at, 1.0), now
        for child, running in list(self.running.items()):
            if not child.is_ready:
                continue
            running.seconds_without_progress += passed
            most_bytes, seconds = self._limits.memory_bytes, self._limits.seconds and self._limits.seconds(running.task)
            too_large = most_bytes is not None and child.resident_bytes() > most_bytes
            too_slow = seconds and running.seconds_without_progress > seconds
            if not too_large and not too_slow:
                continue
            del self.running[child]
            child.kill()
            if too_slow:
                yield TaskOutcome(running.task, None, crash=f"it made no progress for {seconds:g} s, which is its time limit")
            elif child.tasks_done and id(running.task) not in self._suspects:  # earlier tasks may have left memory in use
                self._try_later(running.task)
            else:
                assert most_bytes is not None
                yield TaskOutcome(running.task, None, crash=f"it needs more memory than the limit of {most_bytes / 2**20:.0f} MiB")

    def close(self, *, keep: bool) -> None:
        """End all processes, or keep those that are idle."""
        for child in self.running:
            child.kill()
        for child in self._idle:
            if keep:
                _keep(self._function, self._prepare, child)
            else:
                child.kill()


_kept: list[tuple[bytes, Child]] = []
_kept_lock = threading.Lock()


def _kept_child(function: Any, prepare: Any, inbox: queue.SimpleQueue[Any]) -> Child:
    """Return a process that was kept, or a new one."""
    purpose = pickle.dumps((function, prepare))
    with _kept_lock:
        for entry in _kept:
            if entry[0] == purpose and not entry[1].has_ended:
                _kept.remove(entry)
                entry[1].inbox = inbox
                return entry[1]
    return Child(function, prepare, inbox)


def _keep(function: Any, prepare: Any, child: Child) -> None:
    """Keep a process that is idle for later calls, but not for long."""
    entry = (pickle.dumps((function, prepare)), child)

    def end() -> None:
        with _kept_lock:
            if entry not in _kept:
                return
            _kept.remove(entry)
        child.kill()

    with _kept_lock:
        _kept.append(entry)
    timer = threading.Timer(_KEEP_SECONDS, end)
    timer.daemon = True
    timer.start()
