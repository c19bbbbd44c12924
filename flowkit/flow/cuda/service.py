"""One process per GPU that computes flow for many decoding processes, in batches across their videos.

A GPU is busy only if it solves many pairs at once, and the next frames of one video are never many. So each device has its own
process. The workers, which decode and encode, send it their grey frames through shared memory and wait for the quantised flow.
It takes all requests that are waiting, joins those of one frame size into a batch, and answers. There are more workers than
cores, so that others decode while one waits; a worker has one request at a time, which bounds the memory.

While a few batches are on the device, new requests gather: the slower the device, the larger the next batch.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import pickle
import secrets
import shutil
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing import connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.children import start_child
from flowkit.errors import DeviceError, ParameterError
from flowkit.flow.cuda.plan import check_frame_size
from flowkit.flow.cuda.solver import CudaSolver, SubmittedFlow
from flowkit.temporary import temporary_folder

MAX_IN_FLIGHT = 3  # batches: while one converges or is being copied, the others keep the device busy
MAX_SOLVERS = 8  # frame sizes whose solvers are kept if the memory suffices; making one takes as long as hundreds of pairs
START_SECONDS = 120.0  # time limit for the process of a device to start and compile
MAX_SOCKET_PATH_BYTES = 103  # the limit on macOS; Linux has 107
_STARTED = b"1"
_ENDED = "the process of the GPU ended; run the same command to resume (with a smaller --jobs if the memory was exhausted)"


MakeSolver = Callable[..., CudaSolver]  # takes height, width and on_batch, which its solver calls when a batch may have finished


@dataclass(frozen=True)
class ServiceAddress:
    """The path of the socket of a service, and the key that a client must know."""

    path: str
    key: bytes


@dataclass(frozen=True)
class _Request:
    """Grey frames (n, H, W) at the start of a shared file, where the flow (m, 2, H, W) of m pairs goes as well."""

    path: str
    num_frames: int
    height: int
    width: int
    are_pairs: bool  # frames 0 and 1, 2 and 3, and so on; or else each frame and the next one

    @property
    def pairs(self) -> NDArray[np.int64]:
        """The numbers of the two frames of each pair, (m, 2)."""
        first = np.arange(0, self.num_frames - 1, 2 if self.are_pairs else 1)
        return np.stack([first, first + 1], axis=1)


class FlowService:
    """The processes of all devices, as a context manager of the parent process.

    Parameters
    ----------
    make_solvers : sequence of callable
        One for each device: it makes the solver for a frame size, in the process of the device. It must be importable by name,
        or a `functools.partial` of such a function.

    Raises
    ------
    DeviceError
        If a process cannot start, or the path of the folder for temporary files is too long.
    """

    def __init__(self, make_solvers: Sequence[MakeSolver]) -> None:
        self._make_solvers = make_solvers
        self._processes: list[subprocess.Popen[bytes]] = []
        self.addresses: list[ServiceAddress] = []

    def __enter__(self) -> FlowService:
        self._stack = ExitStack()
        self._folder = self._stack.enter_context(temporary_folder("gpu"))
        try:
            for index, make_solver in enumerate(self._make_solvers):
                address = ServiceAddress(os.path.join(self._folder, f"{index}.sock"), secrets.token_bytes(16))
                if len(os.fsencode(address.path)) > MAX_SOCKET_PATH_BYTES:
                    raise DeviceError(
                        f"the path of a socket, {address.path!r}, has more than {MAX_SOCKET_PATH_BYTES} bytes; "
                        "set TMPDIR to a folder with a shorter path"
                    )
                process = start_child(__name__, ends_with_thread=False)  # it must remove the folder after a killed parent
                self._processes.append(process)
                if not _starts(process, pickle.dumps((address, make_solver))):
                    raise DeviceError(f"the process of device {index} did not start; run with --debug, or use --device cpu")
                self.addresses.append(address)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait(10)
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.stdout.close()
        self._processes.clear()
        self._stack.close()


def _starts(process: subprocess.Popen[bytes], request: bytes) -> bool:
    """Send a process its request, and return whether it then starts in time."""
    assert process.stdin is not None
    assert process.stdout is not None
    timer = threading.Timer(START_SECONDS, process.kill)
    timer.start()
    try:
        process.stdin.write(request)  # a few hundred bytes, which a pipe takes at once
        return process.stdout.read(1) == _STARTED
    except OSError:
        return False
    finally:
        timer.cancel()


class FlowClient:
    """The connection of a worker to the service, with shared memory that is kept between requests.

    Raises
    ------
    DeviceError
        If no process listens at the address.
    """

    def __init__(self, address: ServiceAddress) -> None:
        try:
            self._connection = connection.Client(address.path, authkey=address.key)
        except (EOFError, OSError) as cause:
            raise DeviceError(_ENDED) from cause
        self._path = f"{address.path}.{os.getpid()}.{secrets.token_hex(4)}"
        self._memory: mmap.mmap | None = None

    def solve(self, grey: NDArray[np.uint8], *, are_pairs: bool = False) -> NDArray[np.uint8]:
        """Return the quantised flow between consecutive grey frames, or of pairs of frames.

        Parameters
        ----------
        grey : uint8 array, shape (n, H, W)
            The frames.
        are_pairs : bool
            Whether these are the two frames of one pair after the other.

        Returns
        -------
        uint8 array, shape (n - 1, 2, H, W), or (n / 2, 2, H, W)

        Raises
        ------
        DeviceError
            If the device failed, or there is not enough space for the shared memory.
        ParameterError
            If the solver refuses frames of this size, or the flow overflows; other frames can still be solved.
        """
        num_frames, height, width = grey.shape
        check_frame_size(height, width)  # before gigabytes go to shared memory
        request = _Request(self._path, num_frames, height, width, are_pairs)
        num_pairs = len(request.pairs)
        needed = max(grey.nbytes, 2 * num_pairs * height * width)
        if self._memory is None or len(self._memory) < needed:
            try:
                self._memory = _map(self._path, needed)
            except OSError as cause:
                folder = os.path.dirname(self._path)
                raise DeviceError(
                    f"{folder} has no space for {needed / 2**20:.0f} MiB of shared memory ({cause.strerror}); "
                    "free space there, or set TMPDIR to another folder"
                ) from cause
        np.ndarray(grey.shape, np.uint8, self._memory)[...] = grey
        try:
            self._connection.send(request)
            failure = self._connection.recv()
        except (EOFError, OSError) as cause:
            raise DeviceError(_ENDED) from cause
        if failure is not None:
            raise failure
        return np.ndarray((num_pairs, 2, height, width), np.uint8, self._memory).copy()

    def close(self) -> None:
        """End the connection and free the shared memory."""
        self._connection.close()
        Path(self._path).unlink(missing_ok=True)


def _map(path: str, size: int = 0) -> mmap.mmap:
    """Map a shared file, which is made or enlarged if `size` is given; raise OSError if there is no space for so many bytes."""
    with open(path, "a+b") as file:
        if size and hasattr(os, "posix_fallocate"):  # writing to a page for which the disk has no space would kill the process
            os.posix_fallocate(file.fileno(), 0, size)
        elif size:
            file.truncate(size)
        return mmap.mmap(file.fileno(), size)


def main() -> None:
    """Be the process of a device: read (address, make_solver) from stdin, answer requests, and end when stdin ends."""
    requests, started = os.fdopen(os.dup(0), "rb"), os.dup(1)
    os.dup2(2, 1)  # what libraries print
    address, make_solver = pickle.load(requests)  # noqa: S301 - from the parent process
    threading.Thread(target=_end_with_parent, args=(requests, address), daemon=True).start()
    _serve(address, make_solver, started)


def _end_with_parent(requests: Any, address: ServiceAddress) -> None:
    """End this process when its parent has ended, and remove the folder, which a parent that was killed could not do."""
    requests.read()
    shutil.rmtree(os.path.dirname(address.path), ignore_errors=True)
    os._exit(1)  # without waiting for the device


def _serve(address: ServiceAddress, make_solver: MakeSolver, started: int) -> None:
    """Announce the start on a pipe, and answer requests without end."""
    arrivals, announce_arrival = multiprocessing.Pipe(duplex=False)
    finished, announce_batch = multiprocessing.Pipe(duplex=False)
    lock = threading.Lock()  # only one thread at a time may use the end of a pipe, and each solver has its own thread

    def on_batch() -> None:
        with lock:
            announce_batch.send(True)

    with connection.Listener(address.path, authkey=address.key) as listener:
        newcomers: list[Any] = []
        threading.Thread(target=_accept, args=(listener, newcomers, announce_arrival), daemon=True).start()
        os.write(started, _STARTED)
        memories: dict[Any, mmap.mmap | None] = {}  # by client
        queue = _BatchQueue(partial(make_solver, on_batch=on_batch))
        while True:
            for ready in connection.wait([arrivals, finished, *memories]):
                if ready is arrivals:
                    arrivals.recv()
                    memories[newcomers.pop(0)] = None
                elif ready is finished:
                    finished.recv()
                else:
                    _receive(ready, memories, queue)
            queue.work()


def _receive(client: Any, memories: dict[Any, mmap.mmap | None], queue: _BatchQueue) -> None:
    """Receive the request of a client, or the end of its connection."""
    try:
        request = client.recv()
    except (EOFError, OSError):  # the worker has finished, or was killed
        del memories[client]
        client.close()
        return
    size, num_pairs = (request.height, request.width), len(request.pairs)
    memory = memories[client]
    if memory is None or len(memory) < max(request.num_frames, 2 * num_pairs) * request.height * request.width:
        memory = memories[client] = _map(request.path)
    frames: NDArray[np.uint8] = np.ndarray((request.num_frames, *size), np.uint8, memory)
    queue.waiting.append(_Task(client, size, frames, request.pairs, np.ndarray((num_pairs, 2, *size), np.uint8, memory)))


@dataclass(frozen=True, eq=False)
class _Task:
    """The request of a client: its frames, the pairs among them, and the array for its flow, which may be the same memory."""

    client: Any
    size: tuple[int, int]
    frames: NDArray[np.uint8]
    pairs: NDArray[np.int64]
    flow: NDArray[np.uint8]


class _BatchQueue:
    """The waiting requests and the batches in flight of one device, and its solvers."""

    def __init__(self, make_solver: MakeSolver) -> None:
        self._make_solver = make_solver
        self._solvers: dict[tuple[int, int], CudaSolver] = {}
        self._in_flight: list[tuple[SubmittedFlow, list[_Task]]] = []
        self.waiting: deque[_Task] = deque()

    def work(self) -> None:
        """Answer finished requests and begin batches of waiting ones, without waiting for the device unless memory is short."""
        while True:
            for entry in [entry for entry in self._in_flight if entry[0].is_finished()]:
                self._answer(entry)
            if not self.waiting or len(self._in_flight) >= MAX_IN_FLIGHT:
                return
            self._begin(self.waiting[0].size)

    def _begin(self, size: tuple[int, int]) -> None:
        """Join waiting requests of one frame size into a batch, as many as the solver takes at once, and begin it."""
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
            pairs = np.concatenate([task.pairs + start for task, start in zip(tasks, starts, strict=False)])
            frames = [frame for task in tasks for frame in task.frames]
            fields = [field for task in tasks for field in task.flow]
            pending = solver.submit(frames, pairs, fields)
        except Exception as error:  # the workers receive it
            _reply(tasks, error)
            return
        self._in_flight.append((pending, tasks))

    def _solver_of(self, size: tuple[int, int]) -> CudaSolver:
        if size not in self._solvers:
            if len(self._solvers) >= MAX_SOLVERS:
                self._close_solvers()
            self._solvers[size] = self._new_solver(size)
        return self._solvers[size]

    def _new_solver(self, size: tuple[int, int]) -> CudaSolver:
        """Make a solver; close all others first if the memory does not suffice for all."""
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

    def _answer(self, entry: tuple[SubmittedFlow, list[_Task]]) -> None:
        """Wait for a batch and reply to its requests."""
        self._in_flight.remove(entry)
        pending, tasks = entry
        try:
            pending.result()
        except Exception as error:
            _reply(tasks, error)
        else:
            _reply(tasks, None)


def _reply(tasks: list[_Task], error: Exception | None) -> None:
    """Send workers None if their flow has been computed, else the error: one of the device ends the run, one of these frames does not."""
    failure: Exception | None = error
    if error is not None:
        kind = ParameterError if isinstance(error, ParameterError) else DeviceError
        failure = kind(str(error) if isinstance(error, kind) else f"{type(error).__name__}: {error}")
    for task in tasks:
        try:
            task.client.send(failure)
        except OSError:  # the worker has been killed
            continue


def _accept(listener: connection.Listener, newcomers: list[Any], announce: Any) -> None:
    """Accept workers, one after another."""
    while True:
        try:
            newcomers.append(listener.accept())
        except (EOFError, ConnectionError, multiprocessing.AuthenticationError):
            continue
        except OSError:  # closed
            return
        announce.send(True)
