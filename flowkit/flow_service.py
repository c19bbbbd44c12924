"""One process a GPU that solves flow for many decoding processes, in batches across their videos.

A GPU is only busy when it solves many pairs at once, and one video's next frames are never many. So each device has one
process of its own; the workers that decode and encode send it their grey frames through shared memory and wait for the
quantised flow. It takes whatever requests lie there, joins those of one frame size into a batch, and answers. There are
more workers than cores, so that others decode while one waits; a worker has one request at a time, which bounds memory.
"""

from __future__ import annotations

import itertools
import mmap
import multiprocessing
import os
import secrets
import tempfile
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from flowkit.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

MAX_IN_FLIGHT = 2  # batches: while one converges the next is uploaded
START_SECONDS = 120.0  # for a device's process to start and compile


class Solver(Protocol):
    """What solves batches: flow for pairs of frames of one size, quantised; several batches may be in flight."""

    def submit(self, frames: NDArray[np.uint8], pairs: NDArray[np.integer]) -> None:
        """Begin a batch: grey frames (n, H, W) and pairs of their indices (m, 2)."""

    def collect(self) -> NDArray[np.uint8]:
        """Wait for the oldest batch; return its flow, uint8 (m, 2, H, W)."""

    def close(self) -> None:
        """Free the device's memory."""


MakeSolver = Callable[[int, int], Solver]  # (height, width) -> solver


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
        If a process cannot start.
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
            process.terminate()
        for process in self._processes:
            process.join(10)
        self._processes.clear()
        self._folder.cleanup()


class FlowClient:
    """A worker's end of the service: one connection and one piece of shared memory, kept between requests."""

    def __init__(self, address: ServiceAddress) -> None:
        self._connection = connection.Client(address.path, authkey=address.key)
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
            If the device failed.
        """
        import numpy as np

        num_frames, height, width = grey.shape
        needed = max(grey.nbytes, 2 * (num_frames - 1) * height * width)
        if self._memory is None or len(self._memory) < needed:
            self._memory = _map(self._path, needed)
        np.ndarray(grey.shape, np.uint8, self._memory)[...] = grey
        try:
            self._connection.send(_Request(self._path, num_frames, height, width))
            trouble = self._connection.recv()
        except (EOFError, OSError) as cause:
            raise DeviceError("the GPU's process ended; the same line resumes (with a smaller --jobs if memory was short)") from cause
        if trouble is not None:
            raise DeviceError(trouble)
        return np.ndarray((num_frames - 1, 2, height, width), np.uint8, self._memory).copy()

    def close(self) -> None:
        """End the connection and free the shared memory."""
        self._connection.close()
        Path(self._path).unlink(missing_ok=True)


def _map(path: str, size: int = 0) -> mmap.mmap:
    """Map a shared file, made or enlarged to `size` bytes if that is given."""
    with open(path, "a+b") as file:
        if size:
            file.truncate(size)
        return mmap.mmap(file.fileno(), size)


def _serve(address: ServiceAddress, make_solver: MakeSolver, told: Any) -> None:
    """Answer requests until the parent ends this process."""
    arrivals, announce = multiprocessing.Pipe(duplex=False)
    with connection.Listener(address.path, authkey=address.key) as listener:
        newcomers: list[Any] = []
        threading.Thread(target=_accept, args=(listener, newcomers, announce), daemon=True).start()
        told.send(True)
        told.close()
        clients: list[Any] = []
        queue = _BatchQueue(make_solver)
        while True:
            ready: list[Any] = list(connection.wait([arrivals, *clients], timeout=0 if queue.num_in_flight else None))
            if arrivals in ready:
                arrivals.recv()
                clients.append(newcomers.pop(0))
            batches: dict[tuple[int, int], list[tuple[Any, _Request]]] = defaultdict(list)
            for client in [c for c in ready if c is not arrivals]:
                try:
                    request = client.recv()
                except (EOFError, OSError):  # the worker is done, or was killed
                    clients.remove(client)
                    client.close()
                    continue
                batches[request.height, request.width].append((client, request))
            for size, requests in batches.items():
                queue.submit(size, requests)
            if not batches or queue.num_in_flight >= MAX_IN_FLIGHT:
                queue.answer_oldest()


class _BatchQueue:
    """Batches in flight on one device, and whom to answer when they are done."""

    def __init__(self, make_solver: MakeSolver) -> None:
        self._make_solver = make_solver
        self._size: tuple[int, int] | None = None
        self._solver: Solver | None = None
        self._in_flight: deque[list[tuple[Any, NDArray[np.uint8]]]] = deque()

    @property
    def num_in_flight(self) -> int:
        """Batches that were begun and not answered."""
        return len(self._in_flight)

    def submit(self, size: tuple[int, int], requests: list[tuple[Any, _Request]]) -> None:
        """Join requests of one frame size into a batch and begin it."""
        import numpy as np

        memories = [_map(request.path) for _, request in requests]
        frames = [np.ndarray((r.num_frames, *size), np.uint8, memory) for (_, r), memory in zip(requests, memories, strict=True)]
        answers = [
            (client, np.ndarray((r.num_frames - 1, 2, *size), np.uint8, memory))
            for (client, r), memory in zip(requests, memories, strict=True)
        ]
        starts = np.cumsum([0, *map(len, frames)])
        first = np.concatenate([np.arange(start, stop - 1) for start, stop in itertools.pairwise(starts)])
        try:
            self._solver_of(size).submit(np.concatenate(frames), np.stack([first, first + 1], axis=1))
        except Exception as error:  # told to the workers, which end the run with it
            _tell(answers, error)
            return
        self._in_flight.append(answers)

    def _solver_of(self, size: tuple[int, int]) -> Solver:
        if self._solver is None or self._size != size:  # one size's buffers at a time: videos of a tree are mostly alike
            while self._in_flight:
                self.answer_oldest()
            if self._solver is not None:
                self._solver.close()
            self._solver, self._size = None, size
            self._solver = self._make_solver(*size)
        return self._solver

    def answer_oldest(self) -> None:
        """Wait for the oldest batch, if there is any, and answer its requests."""
        if not self._in_flight:
            return
        answers = self._in_flight.popleft()
        assert self._solver is not None
        try:
            flow = self._solver.collect()
        except Exception as error:
            _tell(answers, error)
            return
        at = 0
        for _, target in answers:
            target[...] = flow[at : at + len(target)]
            at += len(target)
        _tell(answers, None)


def _tell(answers: list[tuple[Any, NDArray[np.uint8]]], error: Exception | None) -> None:
    """Tell workers that their flow is there, or why it is not."""
    trouble = None if error is None else str(error) if isinstance(error, DeviceError) else f"{type(error).__name__}: {error}"
    for client, _ in answers:
        try:
            client.send(trouble)
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
