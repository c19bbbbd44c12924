"""One process a GPU that solves flow for many decoding processes, in batches across their videos.

A GPU is only busy when it solves many pairs at once, and one video's next frames are never many. So each device has one
process of its own; the workers that decode and encode send it their grey frames through shared memory and wait for the
quantised flow. It takes whatever requests lie there, joins those of one frame size into a batch, and answers. There are
more workers than cores, so that others decode while one waits; a worker has one request at a time, which bounds memory.

While a few batches are on the device, requests wait and gather: the slower the device, the larger the next batch.
"""

from __future__ import annotations

import itertools
import mmap
import multiprocessing
import os
import secrets
import shutil
import signal
import tempfile
import threading
from collections import deque
from dataclasses import dataclass
from functools import partial
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from flowkit.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

MAX_IN_FLIGHT = 3  # batches: while one converges or is copied, the others keep the device busy
MAX_SOLVERS = 8  # frame sizes whose solvers are kept while memory suffices: making one takes as long as hundreds of pairs
START_SECONDS = 120.0  # for a device's process to start and compile
MAX_SOCKET_PATH_BYTES = 103  # the shortest limit of today's systems (macOS; Linux has 107)
_ENDED = "the GPU's process ended; the same line resumes (with a smaller --jobs if memory was short)"


class PendingFlow(Protocol):
    """Flow that is being computed."""

    def is_finished(self) -> bool:
        """Return whether `result` would not wait."""

    def result(self) -> Any:
        """Wait until the flow is where it was asked for; raises what went wrong."""


class Solver(Protocol):
    """What solves batches: flow for pairs of frames of one size, quantised; several batches may be in flight."""

    @property
    def max_pairs(self) -> int:
        """Pairs that it solves at once."""

    @property
    def is_cramped(self) -> bool:
        """Whether that is less than it would be with more free memory."""

    def submit(self, frames: Sequence[NDArray[np.uint8]], pairs: NDArray[np.integer], out: Sequence[NDArray[np.uint8]]) -> PendingFlow:
        """Begin a batch: grey frames (H, W), pairs of their indices (m, 2), and where the flow goes, (2, H, W) a pair."""

    def close(self) -> None:
        """Free the device's memory."""


class MakeSolver(Protocol):
    """Makes the solver of a frame size, which calls `on_batch` from any thread when something may have finished."""

    def __call__(self, height: int, width: int, *, on_batch: Callable[[], None]) -> Solver: ...


@dataclass(frozen=True)
class ServiceAddress:
    """Where a service listens, and the key that a client must know."""

    path: str
    key: bytes


@dataclass(frozen=True)
class _Request:
    """Grey frames (n, H, W) at the start of a shared file; the answer (n - 1, 2, H, W) goes to its start too."""

    path: str
    num_frames: int
    height: int
    width: int


class FlowService:
    """The processes of all devices; a context manager of the parent.

    Parameters
    ----------
    make_solvers : sequence of callable
        One a device, importable by name (with `functools.partial` at most): makes the solver of a frame size, in the
        device's own process.

    Raises
    ------
    DeviceError
        If a process cannot start, or the folder for temporary files has too long a name.
    """

    def __init__(self, make_solvers: Sequence[MakeSolver]) -> None:
        self._make_solvers = make_solvers
        self._processes: list[Any] = []
        self.addresses: list[ServiceAddress] = []

    def __enter__(self) -> FlowService:
        self._folder = tempfile.TemporaryDirectory(prefix="flowkit-gpu-")
        context = multiprocessing.get_context("spawn")  # a CUDA context does not survive a fork
        try:
            for index, make_solver in enumerate(self._make_solvers):
                address = ServiceAddress(os.path.join(self._folder.name, f"{index}.sock"), secrets.token_bytes(16))
                if len(os.fsencode(address.path)) > MAX_SOCKET_PATH_BYTES:
                    raise DeviceError(
                        f"a socket cannot be called {address.path!r}: more than {MAX_SOCKET_PATH_BYTES} bytes; "
                        "let TMPDIR name a folder with a shorter path"
                    )
                ready, told = context.Pipe(duplex=False)
                process = context.Process(target=_serve, args=(address, make_solver, told), daemon=True)
                process.start()
                told.close()
                self._processes.append(process)
                try:
                    if not ready.poll(START_SECONDS) or not ready.recv():
                        raise EOFError
                except EOFError as cause:
                    raise DeviceError(f"the process of device {index} did not start; run with --debug, or use --device cpu") from cause
                self.addresses.append(address)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join(10)
        self._processes.clear()
        self._folder.cleanup()


class FlowClient:
    """A worker's end of the service: one connection and one piece of shared memory, kept between requests.

    Raises
    ------
    DeviceError
        If nobody listens at the address.
    """

    def __init__(self, address: ServiceAddress) -> None:
        try:
            self._connection = connection.Client(address.path, authkey=address.key)
        except (EOFError, OSError) as cause:
            raise DeviceError(_ENDED) from cause
        self._path = f"{address.path}.{os.getpid()}.{secrets.token_hex(4)}"
        self._memory: mmap.mmap | None = None

    def solve(self, grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the quantised flow between consecutive grey frames.

        Parameters
        ----------
        grey : uint8 array, shape (n, H, W)

        Returns
        -------
        uint8 array, shape (n - 1, 2, H, W)

        Raises
        ------
        DeviceError
            If the device failed, or there is no room for the shared memory.
        """
        import numpy as np

        num_frames, height, width = grey.shape
        needed = max(grey.nbytes, 2 * (num_frames - 1) * height * width)
        if self._memory is None or len(self._memory) < needed:
            try:
                self._memory = _map(self._path, needed)
            except OSError as cause:
                folder = os.path.dirname(self._path)
                raise DeviceError(
                    f"{needed / 2**20:.0f} MiB of shared memory cannot be had in {folder} ({cause.strerror}); "
                    "make room there, or let TMPDIR name another folder"
                ) from cause
        np.ndarray(grey.shape, np.uint8, self._memory)[...] = grey
        try:
            self._connection.send(_Request(self._path, num_frames, height, width))
            trouble = self._connection.recv()
        except (EOFError, OSError) as cause:
            raise DeviceError(_ENDED) from cause
        if trouble is not None:
            raise DeviceError(trouble)
        return np.ndarray((num_frames - 1, 2, height, width), np.uint8, self._memory).copy()

    def close(self) -> None:
        """End the connection and free the shared memory."""
        self._connection.close()
        Path(self._path).unlink(missing_ok=True)


def _map(path: str, size: int = 0) -> mmap.mmap:
    """Map a shared file, made or enlarged to `size` bytes if that is given; raises OSError where there is no room for them."""
    with open(path, "a+b") as file:
        if size and hasattr(os, "posix_fallocate"):  # a page that the disk has no room for would kill whoever writes to it
            os.posix_fallocate(file.fileno(), 0, size)
        elif size:
            file.truncate(size)
        return mmap.mmap(file.fileno(), size)


def _serve(address: ServiceAddress, make_solver: MakeSolver, told: Any) -> None:
    """Answer requests until the parent ends this process, or ends itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C, and often SIGTERM, go to all processes: the workers finish what they began
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    arrivals, announce_arrival = multiprocessing.Pipe(duplex=False)
    finished, announce_batch = multiprocessing.Pipe(duplex=False)
    lock = threading.Lock()  # a pipe's end is for one thread at a time, and each solver has its own

    def on_batch() -> None:
        with lock:
            announce_batch.send(True)

    with connection.Listener(address.path, authkey=address.key) as listener:
        newcomers: list[Any] = []
        threading.Thread(target=_accept, args=(listener, newcomers, announce_arrival), daemon=True).start()
        told.send(True)
        told.close()
        memories: dict[Any, mmap.mmap | None] = {}  # of each client
        queue = _BatchQueue(partial(make_solver, on_batch=on_batch))
        while True:
            for ready in connection.wait([parent.sentinel, arrivals, finished, *memories]):
                if ready == parent.sentinel:
                    shutil.rmtree(os.path.dirname(address.path), ignore_errors=True)  # killed, it could not
                    os._exit(1)  # whatever is on the device: nobody waits for it
                if ready is arrivals:
                    arrivals.recv()
                    memories[newcomers.pop(0)] = None
                elif ready is finished:
                    finished.recv()
                else:
                    _receive(ready, memories, queue)
            queue.work()


def _receive(client: Any, memories: dict[Any, mmap.mmap | None], queue: _BatchQueue) -> None:
    """Take a client's request, or its farewell."""
    import numpy as np

    try:
        request = client.recv()
    except (EOFError, OSError):  # the worker is done, or was killed
        del memories[client]
        client.close()
        return
    size, num_pairs = (request.height, request.width), request.num_frames - 1
    memory = memories[client]
    if memory is None or len(memory) < max(request.num_frames, 2 * num_pairs) * request.height * request.width:
        memory = memories[client] = _map(request.path)
    frames: NDArray[np.uint8] = np.ndarray((request.num_frames, *size), np.uint8, memory)
    queue.waiting.append(_Task(client, size, frames, np.ndarray((num_pairs, 2, *size), np.uint8, memory)))


@dataclass(frozen=True, eq=False)
class _Task:
    """A client's request: its frames, and where its flow goes, which may be the same memory."""

    client: Any
    size: tuple[int, int]
    frames: NDArray[np.uint8]
    flow: NDArray[np.uint8]


class _BatchQueue:
    """Requests that wait, batches in flight on one device, and its solvers."""

    def __init__(self, make_solver: Callable[[int, int], Solver]) -> None:
        self._make_solver = make_solver
        self._solvers: dict[tuple[int, int], Solver] = {}
        self._in_flight: list[tuple[PendingFlow, list[_Task]]] = []
        self.waiting: deque[_Task] = deque()

    def work(self) -> None:
        """Answer what is finished, and begin batches of what waits; never waits for the device unless memory is short."""
        while True:
            for entry in [entry for entry in self._in_flight if entry[0].is_finished()]:
                self._answer(entry)
            if not self.waiting or len(self._in_flight) >= MAX_IN_FLIGHT:
                return
            self._begin(self.waiting[0].size)

    def _begin(self, size: tuple[int, int]) -> None:
        """Join waiting requests of one frame size, as many as the solver takes at once, into a batch and begin it."""
        import numpy as np

        tasks = [self.waiting.popleft()]
        try:
            solver = self._solver_of(size)
            num_pairs = len(tasks[0].flow)
            for task in [task for task in self.waiting if task.size == size]:
                if num_pairs + len(task.flow) > solver.max_pairs:
                    break
                tasks.append(task)
                num_pairs += len(task.flow)
                self.waiting.remove(task)
            starts = np.cumsum([0, *(len(task.frames) for task in tasks)])
            first = np.concatenate([np.arange(start, stop - 1) for start, stop in itertools.pairwise(starts)])
            frames = [frame for task in tasks for frame in task.frames]
            fields = [field for task in tasks for field in task.flow]
            pending = solver.submit(frames, np.stack([first, first + 1], axis=1), fields)
        except Exception as error:  # told to the workers, which end the run with it
            _tell(tasks, error)
            return
        self._in_flight.append((pending, tasks))

    def _solver_of(self, size: tuple[int, int]) -> Solver:
        if size not in self._solvers:
            if len(self._solvers) >= MAX_SOLVERS:
                self._close_solvers()
            self._solvers[size] = self._new_solver(size)
        return self._solvers[size]

    def _new_solver(self, size: tuple[int, int]) -> Solver:
        """Make a solver, in the place of all others if memory does not suffice for it beside them."""
        try:
            solver = self._make_solver(*size)
        except DeviceError:
            if not self._solvers:
                raise
        else:
            if not (self._solvers and solver.is_cramped):
                return solver
            solver.close()
        self._close_solvers()
        return self._make_solver(*size)

    def _close_solvers(self) -> None:
        while self._in_flight:
            self._answer(self._in_flight[0])
        for solver in self._solvers.values():
            solver.close()
        self._solvers.clear()

    def _answer(self, entry: tuple[PendingFlow, list[_Task]]) -> None:
        """Wait for a batch and answer its requests."""
        self._in_flight.remove(entry)
        pending, tasks = entry
        try:
            pending.result()
        except Exception as error:
            _tell(tasks, error)
        else:
            _tell(tasks, None)


def _tell(tasks: list[_Task], error: Exception | None) -> None:
    """Tell workers that their flow is there, or why it is not."""
    trouble = None if error is None else str(error) if isinstance(error, DeviceError) else f"{type(error).__name__}: {error}"
    for task in tasks:
        try:
            task.client.send(trouble)
        except OSError:  # the worker was killed meanwhile
            continue


def _accept(listener: connection.Listener, newcomers: list[Any], announce: Any) -> None:
    """Let workers in, one after another."""
    while True:
        try:
            newcomers.append(listener.accept())
        except (EOFError, ConnectionError, multiprocessing.AuthenticationError):
            continue
        except OSError:  # closed
            return
        announce.send(True)
