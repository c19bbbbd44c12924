"""Run tasks on the machines of a Dask cluster that share the data root, as `flowkit.workers.processes.run_tasks` does on one machine.

This uses Dask's own futures rather than joblib's Dask back end, which hangs when a worker dies. If a worker dies, another
worker runs its task again; a task that has killed several workers is given up and reported.
"""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from flowkit.errors import DeviceError, FlowkitError
from flowkit.versions import software_versions
from flowkit.workers.processes import QUEUED_PER_PROCESS, TaskOutcome
from flowkit.workers.progress import TaskProgress
from flowkit.workers.stopping import GRACE_SECONDS, StopRequest

Task = TypeVar("Task")
Result = TypeVar("Result")

START_SECONDS = 60.0  # for the scheduler to answer and the first worker to appear
_MOST_LOST = 5  # times that a task is submitted again because its result was lost with a worker
_LISTEN_SECONDS = 5.0  # after the grace period, for tasks to see the request to stop
# On all machines these must have the same version, for they determine the bytes of clips.
_SAME_ON_ALL = ("flowkit", "av", "h5py", "numpy", "opencv-contrib-python-headless", "opencv-contrib-python")


@dataclass(frozen=True)
class ClusterProgress:
    """The `TaskProgress` of a task on any machine: notes go to the scheduler as events, requests to stop come from it.

    Parameters
    ----------
    topic : str
        The run's name on the scheduler.
    slot : int
        The task's number in the run.
    """

    topic: str
    slot: int

    def note(self, done: int, expected: int = 0) -> None:
        from distributed import get_worker

        get_worker().log_event(self.topic, (self.slot, done, expected))

    @property
    def closing(self) -> bool:
        """Whether no task may start any more."""
        return bool(_flag(self.topic, "closing").is_set())

    @property
    def stopping(self) -> bool:
        return bool(_flag(self.topic, "stopping").is_set())


class _ResultLostError(Exception):
    """The scheduler no longer knows a task."""


class Cluster:
    """The processes of a Dask cluster; a context manager.

    Parameters
    ----------
    address : str
        Address of the scheduler, such as ``tcp://10.0.0.1:8786``.
    root : Path
        The data root, on a file system that all machines share under the same path.

    Raises
    ------
    DeviceError
        If the extra is not installed, no scheduler answers, or it has no workers.
    """

    def __init__(self, address: str, root: Path) -> None:
        self.address = address
        self._mark = root / f".cluster-{secrets.token_hex(8)}"  # workers see it if they see the root

    def __enter__(self) -> Cluster:
        try:
            from distributed import Client
        except ImportError as cause:
            raise DeviceError("--cluster needs Dask: pip install 'flowkit-video[cluster]'") from cause
        try:
            self._client = Client(self.address, timeout=START_SECONDS, set_as_default=False)
        except (OSError, ValueError) as cause:  # ValueError: an address of an unknown kind
            raise DeviceError(f"no Dask scheduler answers at {self.address} ({cause}); start one with `dask scheduler`") from cause
        try:
            self._client.wait_for_workers(1, timeout=START_SECONDS)
        except TimeoutError as cause:
            self._client.close()
            raise DeviceError(
                f"the Dask scheduler at {self.address} has no workers; start some: `dask worker {self.address} --nthreads 1 --nworkers N`"
            ) from cause
        self._mark.touch()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._mark.unlink(missing_ok=True)
        self._client.close()

    @property
    def num_processes(self) -> int:
        """Tasks that the cluster runs at once."""
        return int(max(sum(self._client.nthreads().values()), 1))

    def run_tasks(
        self,
        function: Callable[[Task, TaskProgress], Result],
        tasks: deque[Task],
        *,
        stop: StopRequest | None = None,
        grace_seconds: float = GRACE_SECONDS,
        on_tick: Callable[[list[tuple[Task, int, int]]], None] | None = None,
    ) -> Iterator[TaskOutcome[Task, Result]]:
        """Run ``function(task, progress)`` for every task on the cluster.

        Parameters and outcomes are those of `flowkit.workers.processes.run_tasks`.

        Raises
        ------
        DeviceError
            If a worker has other software or does not see the data root, or if the scheduler or all workers have gone.
        """
        stop = stop or StopRequest()
        topic, slots = f"flowkit-{secrets.token_hex(8)}", itertools.count()
        running: dict[Any, tuple[Task, int]] = {}
        noted: dict[int, tuple[int, int]] = {}
        versions, one_is_done = _versions(), threading.Event()
        times_lost: Counter[int] = Counter()  # by the tasks' identities
        last_worker = time.monotonic()
        self._client.subscribe_topic(topic, lambda event: noted.update({event[1][0]: event[1][1:]}))
        try:
            while True:
                if self._client.nthreads():
                    last_worker = time.monotonic()
                elif time.monotonic() - last_worker > START_SECONDS:
                    raise DeviceError(f"all workers of the Dask cluster at {self.address} have gone; the same line resumes")
                while tasks and len(running) < QUEUED_PER_PROCESS * self.num_processes and not stop.requested():
                    task, slot = tasks.popleft(), next(slots)
                    key = f"{topic}-{slot}"
                    future = self._client.submit(
                        _begin, function, task, ClusterProgress(topic, slot), versions, str(self._mark), key=key, pure=False
                    )
                    future.add_done_callback(lambda _: one_is_done.set())
                    running[future] = (task, slot)
                if not running:
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
                    except _ResultLostError:  # a worker that dies takes along the results that were not fetched yet: try again
                        times_lost[id(task)] += 1
                        if self._client.status != "running" or times_lost[id(task)] > _MOST_LOST:
                            raise DeviceError(f"the Dask scheduler at {self.address} has gone; the same line resumes") from None
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

        if future.status in ("cancelled", "lost"):
            raise _ResultLostError
        try:
            began, result = future.result()
        except CancelledError as cause:
            raise _ResultLostError from cause
        except KilledWorker:
            return TaskOutcome(task, None, crash="its worker processes were killed repeatedly (a bug in the decoder, or out of memory)")
        return TaskOutcome(task, result) if began else None


def _flag(topic: str, what: str, client: Any = None) -> Any:
    """Return an event that the scheduler holds for a run."""
    from distributed import Event

    return Event(f"{topic}-{what}", client=client)


def _versions() -> dict[str, str]:
    return {name: version for name, version in software_versions().items() if name in _SAME_ON_ALL}


def _begin(
    function: Callable[[Task, ClusterProgress], Result], task: Task, progress: ClusterProgress, versions: dict[str, str], mark: str
) -> tuple[bool, Result | None]:
    """In a worker: run the function, unless a stop was requested while the task waited; return whether it ran, and its result."""
    import os
    import socket

    import cv2

    if progress.closing:
        return False, None
    mine = _versions()
    if mine != versions:
        raise DeviceError(f"the Dask worker on {socket.gethostname()} has other software ({mine}) than this machine ({versions})")
    if not os.path.exists(mark):
        raise FlowkitError(
            f"the Dask worker on {socket.gethostname()} does not see {os.path.dirname(mark)}: all machines must share the data root"
        )
    cv2.setNumThreads(1)
    return True, function(task, progress)
