"""Run tasks on the machines of a Dask cluster that share the data root: the same contract as `flowkit.workers.processes.run_tasks`.

Dask's own futures are used, not joblib's back end for it, which hangs when a worker dies. A task whose worker dies is run
again by another; the one that has killed several is given up and reported.
"""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from flowkit.errors import DeviceError, FlowkitError
from flowkit.versions import software_versions
from flowkit.workers.processes import GRACE_SECONDS, Outcome, StopRequest

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType

    from flowkit.workers.processes import TaskBoard

Task = TypeVar("Task")
Result = TypeVar("Result")

START_SECONDS = 60.0  # for the scheduler to answer and the first worker to be there
QUEUED_PER_PROCESS = 2  # one running and one waiting, so that none is ever idle
_MOST_FORGOTTEN = 5  # times that a task is handed out again because its result went with a worker
_LISTEN_SECONDS = 5.0  # after the grace, for tasks to look at the board
_SAME_ON_ALL = ("flowkit", "av", "h5py", "numpy", "opencv-contrib-python-headless", "opencv-contrib-python")  # what shapes the bytes


class ClusterBoard:
    """A task's end of the board, on any machine: notes go to the scheduler as events, the wish to stop comes from it.

    Parameters
    ----------
    name : str
        Of this run.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def write(self, slot: int, done: int, expected: int = 0) -> None:
        """Note that `done` of `expected` are done in a slot."""
        from distributed import get_worker

        get_worker().log_event(self.name, (slot, done, expected))

    @property
    def closing(self) -> bool:
        """Whether nothing new is to be begun."""
        return bool(_flag(self.name, "closing").is_set())

    @property
    def stopping(self) -> bool:
        """Whether the tasks were told to stop what they do."""
        return bool(_flag(self.name, "stopping").is_set())


class _Forgotten(Exception):  # noqa: N818 - no error of anyone's
    """The scheduler does not know a task any more."""


class Cluster:
    """The processes of a Dask cluster; a context manager.

    Parameters
    ----------
    address : str
        Of its scheduler, such as ``tcp://10.0.0.1:8786``.
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
        except (OSError, ValueError) as cause:  # ValueError: no such kind of address
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
        function: Callable[[Task, TaskBoard, int], Result],
        tasks: deque[Task],
        *,
        stop: StopRequest | None = None,
        grace_seconds: float = GRACE_SECONDS,
        on_tick: Callable[[list[tuple[Task, int, int]]], None] | None = None,
    ) -> Iterator[Outcome[Task, Result]]:
        """Run ``function(task, board, slot)`` for every task on the cluster.

        Parameters and outcomes are those of `flowkit.workers.processes.run_tasks`.

        Raises
        ------
        DeviceError
            If a worker has other software or does not see the data root, or the scheduler or all workers have gone.
        """
        stop = stop or StopRequest()
        board, slots = ClusterBoard(f"flowkit-{secrets.token_hex(8)}"), itertools.count()
        running: dict[Any, tuple[Task, int]] = {}
        noted: dict[int, tuple[int, int]] = {}
        here, one_is_done = _versions(), threading.Event()
        forgotten: Counter[int] = Counter()  # by the tasks' identities
        last_worker = time.monotonic()
        self._client.subscribe_topic(board.name, lambda event: noted.update({event[1][0]: event[1][1:]}))
        try:
            while True:
                if self._client.nthreads():
                    last_worker = time.monotonic()
                elif time.monotonic() - last_worker > START_SECONDS:
                    raise DeviceError(f"all workers of the Dask cluster at {self.address} have gone; the same line resumes")
                while tasks and len(running) < QUEUED_PER_PROCESS * self.num_processes and not stop.requested():
                    task, slot = tasks.popleft(), next(slots)
                    key = f"{board.name}-{slot}"
                    future = self._client.submit(_begin, function, task, board, slot, here, str(self._mark), key=key, pure=False)
                    future.add_done_callback(lambda _: one_is_done.set())
                    running[future] = (task, slot)
                if not running:
                    return
                if stop.since is not None:
                    waited = time.monotonic() - stop.since
                    _flag(board.name, "stopping" if waited > grace_seconds else "closing", self._client).set()
                    if waited > grace_seconds + _LISTEN_SECONDS:
                        return
                one_is_done.wait(0.2)
                one_is_done.clear()
                for future in [future for future in running if future.done()]:
                    task, slot = running.pop(future)
                    noted.pop(slot, None)
                    try:
                        outcome: Outcome[Task, Result] | None = self._outcome(future, task)
                    except _Forgotten:  # a worker that dies may take results with it that were not fetched yet: once more
                        forgotten[id(task)] += 1
                        if self._client.status != "running" or forgotten[id(task)] > _MOST_FORGOTTEN:
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
                    _flag(board.name, "stopping", self._client).set()
                    self._client.cancel(list(running))
            with suppress(OSError, ValueError):
                self._client.unsubscribe_topic(board.name)

    def _outcome(self, future: Any, task: Task) -> Outcome[Task, Any] | None:
        """Return what became of a task that is done; None if a stop came before it was begun."""
        from concurrent.futures import CancelledError

        from distributed import KilledWorker

        if future.status in ("cancelled", "lost"):
            raise _Forgotten
        try:
            began, result = future.result()
        except CancelledError as cause:
            raise _Forgotten from cause
        except KilledWorker:
            return Outcome(task, None, crash="its worker processes were killed again and again (a fault in the decoder, or out of memory)")
        return Outcome(task, result) if began else None


def _flag(name: str, what: str, client: Any = None) -> Any:
    """Return an event that the scheduler keeps."""
    from distributed import Event

    return Event(f"{name}-{what}", client=client)


def _versions() -> dict[str, str]:
    return {name: version for name, version in software_versions().items() if name in _SAME_ON_ALL}


def _begin(
    function: Callable[[Task, ClusterBoard, int], Result], task: Task, board: ClusterBoard, slot: int, theirs: dict[str, str], mark: str
) -> tuple[bool, Result | None]:
    """In a worker: run the function, unless a stop came while the task waited; return whether it was run, and its result."""
    import os
    import socket

    import cv2

    if board.closing:
        return False, None
    mine = _versions()
    if mine != theirs:
        raise DeviceError(f"the Dask worker on {socket.gethostname()} has other software ({mine}) than this machine ({theirs})")
    if not os.path.exists(mark):
        raise FlowkitError(
            f"the Dask worker on {socket.gethostname()} does not see {os.path.dirname(mark)}: all machines must share the data root"
        )
    cv2.setNumThreads(1)
    return True, function(task, board, slot)
