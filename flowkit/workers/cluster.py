"""Run tasks on the machines of a Dask cluster that share the data root, as `flowkit.workers.processes.run_tasks` does on one machine.

This uses Dask's own futures rather than joblib's Dask back end, which hangs when a worker dies. If a worker dies, another
worker runs its task again; a task that has killed several workers is given up and reported.
"""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from flowkit.errors import DeviceError, FlowkitError
from flowkit.flow.cuda.service import MakeSolver
from flowkit.versions import software_versions
from flowkit.workers.addresses import parse_address
from flowkit.workers.gpu_services import GpuServices
from flowkit.workers.processes import TaskLimits, TaskOutcome, check_memory_limit, run_tasks
from flowkit.workers.progress import TaskProgress
from flowkit.workers.scheduler import ANSWER_SECONDS, check_scheduler
from flowkit.workers.stopping import GRACE_SECONDS, StopRequest

Task = TypeVar("Task")
Result = TypeVar("Result")

START_SECONDS = 60.0  # for the first worker to appear
_MOST_LOST = 5  # times that a task is submitted again because its result was lost with a worker
_LISTEN_SECONDS = 10.0  # after the grace period, for tasks to see the request to stop
_SECONDS_BETWEEN_CALLS = 0.5  # from a worker to the scheduler, for each task
_QUEUED_PER_THREAD = 2  # one task running and one waiting, so that no worker is ever idle
_NOISY = ("distributed", "tornado", "asyncio")
# On all machines these must have the same version, for they determine the bytes of clips.
_SAME_ON_ALL = ("flowkit", "av", "h5py", "numpy", "opencv-contrib-python-headless", "opencv-contrib-python")


class _ResultLostError(Exception):
    """The scheduler no longer knows a task."""


class Cluster:
    """The processes of a Dask cluster; a context manager.

    Parameters
    ----------
    address : str
        Address of the scheduler, as for `flowkit.workers.addresses.parse_address`.
    root : Path
        The data root, on a file system that all machines share under the same path.

    Raises
    ------
    ParameterError
        If it is no address.
    DeviceError
        If the extra is not installed, no scheduler answers, or it has no workers.
    """

    def __init__(self, address: str, root: Path) -> None:
        self.address = str(parse_address(address))
        self._mark = root / f".cluster-{secrets.token_hex(8)}"  # workers see it if they see the root

    def __enter__(self) -> Cluster:
        check_scheduler(self.address, seconds=ANSWER_SECONDS)
        from distributed import Client

        try:
            self._client = Client(self.address, timeout=START_SECONDS, set_as_default=False)
        except (OSError, ValueError) as cause:
            raise self._gone() from cause
        try:
            self._client.wait_for_workers(1, timeout=START_SECONDS)
        except TimeoutError as cause:
            self._client.close()
            raise DeviceError(
                f"the Dask scheduler at {self.address} has no workers; start some: `dask worker '{self.address}' --nthreads 1 --nworkers N`"
            ) from cause
        self._mark.touch()
        # What Dask reports when the connection breaks, with tracebacks, is said by one error here.
        loggers = [logging.getLogger(name) for name in [*logging.root.manager.loggerDict] if name.split(".")[0] in _NOISY]
        self._silenced = [logger for logger in loggers if not logger.disabled]
        for logger in self._silenced:
            logger.disabled = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._mark.unlink(missing_ok=True)
        self._client.close()
        for logger in self._silenced:
            logger.disabled = False

    @property
    def num_processes(self) -> int:
        """Tasks that the cluster runs at once."""
        return max(self._num_threads(), 1)

    def _num_threads(self) -> int:
        """Return how many threads the workers have in all."""
        try:
            return int(sum(self._client.nthreads().values()))
        except OSError as cause:  # the connection broke
            raise self._gone() from cause

    def gpu_services(self, make_solver: MakeSolver) -> GpuServices:
        """Return the processes of the GPUs of the cluster, which are started when the result is entered as a context."""
        return GpuServices(self._client, make_solver, partial(_check_software, _versions()))

    def _gone(self) -> DeviceError:
        return DeviceError(f"the Dask scheduler at {self.address} has gone; the same line resumes")

    def run_tasks(
        self,
        function: Callable[[Task, TaskProgress], Result],
        tasks: deque[Task],
        *,
        prepare: Callable[[], None] | None = None,
        limits: TaskLimits | None = None,
        stop: StopRequest | None = None,
        grace_seconds: float = GRACE_SECONDS,
        on_tick: Callable[[list[tuple[Task, int, int]]], None] | None = None,
        complete: Callable[[Task], Task | None] | None = None,
        again_after: type[Exception] = _ResultLostError,
    ) -> Iterator[TaskOutcome[Task, Result]]:
        """Run ``function(task, progress)`` for every task on the cluster.

        Other parameters, and the outcomes, are those of `flowkit.workers.processes.run_tasks`.

        Parameters
        ----------
        complete : callable, optional
            Returns what is sent to a worker for a task, whenever it is handed out; None: the task must wait.
        again_after : exception type, optional
            A task that ends with this exception is handed out again, some times.

        Raises
        ------
        DeviceError
            If a worker has other software or does not see the data root, or if the scheduler or all workers have gone.
        """
        stop = stop or StopRequest()
        topic, slots = f"flowkit-{secrets.token_hex(8)}", itertools.count()
        running: dict[Any, tuple[Task, int]] = {}
        noted: dict[int, tuple[int, int]] = {}
        work, one_is_done = _Work(function, prepare, limits, topic, _versions(), str(self._mark)), threading.Event()
        times_lost: Counter[int] = Counter()  # by the tasks' identities
        last_worker = waiting_since = time.monotonic()
        self._client.subscribe_topic(topic, lambda event: noted.update({event[1][0]: event[1][1:]}))
        try:
            while True:
                if self._num_threads():
                    last_worker = time.monotonic()
                elif time.monotonic() - last_worker > START_SECONDS:
                    raise DeviceError(f"all workers of the Dask cluster at {self.address} have gone; the same line resumes")
                given: Task | None = None
                must_wait = False
                while tasks and len(running) < _QUEUED_PER_THREAD * self.num_processes and not stop.requested():
                    given = tasks[0] if complete is None else complete(tasks[0])
                    must_wait = given is None
                    if must_wait:
                        break
                    task, slot = tasks.popleft(), next(slots)
                    key = f"{topic}-{slot}"
                    future = self._client.submit(_begin, work, given, slot, key=key, pure=False)
                    future.add_done_callback(lambda _: one_is_done.set())
                    running[future] = (task, slot)
                if not must_wait:
                    waiting_since = time.monotonic()
                elif time.monotonic() - waiting_since > START_SECONDS:
                    raise DeviceError(f"no GPU of the Dask cluster at {self.address} can be reached any more; the same line resumes")
                if not running and not must_wait:
                    return
                if stop.since is not None:
                    waited = time.monotonic() - stop.since
                    _flag(topic, "stopping" if waited > grace_seconds else "closing", self._client).set()
                    if waited > grace_seconds + _LISTEN_SECONDS:
                        return
                one_is_done.wait(0.2)
                one_is_done.clear()
                for future in [future for future in running if future.done()]:
                    task, slot = running.pop(future)
                    noted.pop(slot, None)
                    try:
                        outcome: TaskOutcome[Task, Result] | None = self._outcome(future, task)
                    except Exception as lost:
                        # A worker that dies takes along the results that were not fetched yet, and what other tasks needed of it.
                        if not isinstance(lost, (_ResultLostError, again_after)):
                            raise
                        times_lost[id(task)] += 1
                        if self._client.status != "running" or times_lost[id(task)] > _MOST_LOST:
                            raise (self._gone() if isinstance(lost, _ResultLostError) else lost) from None
                        tasks.appendleft(task)
                        continue
                    if outcome is not None:
                        yield outcome
                if on_tick is not None:
                    on_tick([(task, *noted.get(slot, (0, 0))) for task, slot in running.values()])
        finally:
            if running:
                with suppress(OSError, ValueError):  # the scheduler may have gone
                    _flag(topic, "stopping", self._client).set()
                    self._client.cancel(list(running))
            with suppress(OSError, ValueError):
                self._client.unsubscribe_topic(topic)

    def _outcome(self, future: Any, task: Task) -> TaskOutcome[Task, Any] | None:
        """Return the outcome of a task that is done; None if a stop was requested before it started."""
        from concurrent.futures import CancelledError

        from distributed import KilledWorker
        from distributed.comm.core import CommClosedError

        if future.status in ("cancelled", "lost"):
            raise _ResultLostError
        try:
            outcome: TaskOutcome[Task, Any] | None = future.result()
        except (CancelledError, CommClosedError) as cause:  # the connection may break before Dask has noted it for the task
            raise _ResultLostError from cause
        except KilledWorker:
            return TaskOutcome(task, None, crash="its worker processes were killed repeatedly (a bug in the decoder, or out of memory)")
        return replace(outcome, task=task) if outcome is not None else None


def _flag(topic: str, what: str, client: Any = None) -> Any:
    """Return an event that the scheduler holds for a run."""
    from distributed import Event

    return Event(f"{topic}-{what}", client=client)


def _versions() -> dict[str, str]:
    return {name: version for name, version in software_versions().items() if name in _SAME_ON_ALL}


def _check_software(versions: dict[str, str]) -> None:
    """In a worker: raise `DeviceError` if it has other versions than these."""
    mine = _versions()
    if mine != versions:
        raise DeviceError(f"the Dask worker on {socket.gethostname()} has other software ({mine}) than this machine ({versions})")


@dataclass(frozen=True)
class _Work:
    """What all tasks of a run have in common."""

    function: Callable[[Any, TaskProgress], Any]
    prepare: Callable[[], None] | None
    limits: TaskLimits | None
    topic: str  # the name of the run on the scheduler
    versions: dict[str, str]
    mark: str  # a file in the data root


def _begin(work: _Work, task: Any, slot: int) -> TaskOutcome[Any, Any] | None:
    """In a worker: run a task in a process of the worker's, unless a stop was requested while the task waited.

    A client cannot end a task that hangs, but the worker can end its process. Notes of progress go to the scheduler as events,
    requests to stop come from it.
    """
    from distributed import get_worker

    host = socket.gethostname()
    if _flag(work.topic, "closing").is_set():
        return None
    _check_software(work.versions)
    if not os.path.exists(work.mark):
        raise FlowkitError(f"the Dask worker on {host} does not see {os.path.dirname(work.mark)}: all machines must share the data root")
    check_memory_limit(work.limits.memory_bytes if work.limits else None)
    worker, stop = get_worker(), StopRequest()
    noted, looked_at = (0, 0), 0.0

    def tick(running: list[tuple[Any, int, int]]) -> None:
        nonlocal noted, looked_at
        if time.monotonic() - looked_at < _SECONDS_BETWEEN_CALLS:
            return
        looked_at = time.monotonic()
        if running and running[0][1:] != noted:
            noted = running[0][1:]
            worker.log_event(work.topic, (slot, *noted))
        if _flag(work.topic, "stopping").is_set():
            stop.request()

    outcomes = run_tasks(
        work.function, deque([task]), jobs=1, prepare=work.prepare, limits=work.limits, stop=stop, grace_seconds=0, on_tick=tick, keep=True
    )
    outcome = next(iter([*outcomes]), None)  # all, so that the process is kept for the next task
    return outcome and replace(outcome, task=None)
