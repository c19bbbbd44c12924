"""One process per GPU that computes flow for many decoding processes, in batches across their videos.

A GPU is busy only if it solves many pairs at once, and the next frames of one video are never many. So each device has its own
process. The workers send it their grey frames through shared memory, and decode and encode until the quantised flow comes back. It
takes all requests that are waiting, joins those of one frame size into a batch, and answers. Each connection has one request at a
time, and each worker a few connections (connections.py), which bounds the memory.

While a few batches are on the device, new requests gather: the slower the device, the larger the next batch.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import pickle
import secrets
import selectors
import shutil
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing import connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.children import start_child
from flowkit.errors import DeviceError, ParameterError
from flowkit.flow.cuda.client import FlowRequest, ServiceAddress, map_shared
from flowkit.flow.cuda.solver import CudaSolver, SubmittedFlow
from flowkit.temporary import temporary_folder

MAX_IN_FLIGHT = 3  # batches: while one converges or is being copied, the others keep the device busy
MAX_SOLVERS = 8  # frame sizes whose solvers are kept if the memory suffices; making one takes as long as hundreds of pairs
START_SECONDS = 120.0  # time limit for the process of a device to start and compile
MAX_SOCKET_PATH_BYTES = 103  # the limit on macOS; Linux has 107
_STARTED = b"1"

MakeSolver = Callable[..., CudaSolver]  # takes height, width and on_batch, which its solver calls when a batch may have finished


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

    with connection.Listener(address.path, authkey=address.key) as listener, selectors.DefaultSelector() as selector:
        newcomers: list[Any] = []
        threading.Thread(target=_accept, args=(listener, newcomers, announce_arrival), daemon=True).start()
        os.write(started, _STARTED)
        for pipe in (arrivals, finished):
            selector.register(pipe, selectors.EVENT_READ)
        memories: dict[Any, mmap.mmap | None] = {}  # by client
        queue = _BatchQueue(partial(make_solver, on_batch=on_batch))
        while True:
            for key, _ in selector.select():
                ready: Any = key.fileobj
                if ready is arrivals:
                    arrivals.recv()
                    client = newcomers.pop(0)
                    memories[client] = None
                    selector.register(client, selectors.EVENT_READ)
                elif ready is finished:
                    finished.recv()
                elif not _receive(ready, memories, queue):
                    selector.unregister(ready)
                    ready.close()
            queue.work()


def _receive(client: Any, memories: dict[Any, mmap.mmap | None], queue: _BatchQueue) -> bool:
    """Receive the request of a client; return False, and forget it, if its connection has ended."""
    try:
        request: FlowRequest = client.recv()
        size, num_pairs = (request.height, request.width), len(request.pairs)
        memory = memories[client]
        if memory is None or len(memory) < max(request.num_frames, 2 * num_pairs) * request.height * request.width:
            memory = memories[client] = map_shared(request.path)
    except (EOFError, OSError):  # the worker has finished, or was killed, perhaps after it had asked
        del memories[client]
        return False
    frames: NDArray[np.uint8] = np.ndarray((request.num_frames, *size), np.uint8, memory)
    queue.waiting.append(_Task(client, size, frames, request.pairs, np.ndarray((num_pairs, 2, *size), np.uint8, memory)))
    return True


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
