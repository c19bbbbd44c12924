"""A worker's connection to the process of a GPU on its machine: one request at a time, with frames and flow in shared memory."""

from __future__ import annotations

import mmap
import os
import secrets
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import DeviceError
from flowkit.flow.cuda.plan import check_frame_size

_ENDED = "the process of the GPU ended; run the same command to resume (with a smaller --jobs if the memory was exhausted)"


@dataclass(frozen=True)
class ServiceAddress:
    """The path of the socket of a service, and the key that a client must know."""

    path: str
    key: bytes


@dataclass(frozen=True)
class FlowRequest:
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
        self._due = (0, 0, 0, 0)  # the shape of the flow that was asked for

    def solve(self, grey: NDArray[np.uint8], *, are_pairs: bool = False) -> NDArray[np.uint8]:
        """Return the quantised flow between consecutive grey frames, or of pairs of frames: `begin`, then `finish`."""
        self.begin(grey, are_pairs=are_pairs)
        return self.finish()

    def begin(self, grey: NDArray[np.uint8], *, are_pairs: bool = False) -> None:
        """Ask for the flow of frames, which may be changed when this returns. `finish` must be called before the next request.

        Parameters
        ----------
        grey : uint8 array, shape (n, H, W)
            The frames.
        are_pairs : bool
            Whether these are the two frames of one pair after the other.

        Raises
        ------
        DeviceError
            If the process has ended, or there is not enough space for the shared memory.
        ParameterError
            If the solver cannot take frames of this size; other frames can still be solved.
        """
        num_frames, height, width = grey.shape
        check_frame_size(height, width)  # before gigabytes go to shared memory
        request = FlowRequest(self._path, num_frames, height, width, are_pairs)
        num_pairs = len(request.pairs)
        needed = max(grey.nbytes, 2 * num_pairs * height * width)
        if self._memory is None or len(self._memory) < needed:
            try:
                self._memory = map_shared(self._path, needed)
            except OSError as cause:
                folder = os.path.dirname(self._path)
                raise DeviceError(
                    f"{folder} has no space for {needed / 2**20:.0f} MiB of shared memory ({cause.strerror}); "
                    "free space there, or set TMPDIR to another folder"
                ) from cause
        np.ndarray(grey.shape, np.uint8, self._memory)[...] = grey
        self._due = (num_pairs, 2, height, width)
        try:
            self._connection.send(request)
        except OSError as cause:
            raise DeviceError(_ENDED) from cause

    def finish(self) -> NDArray[np.uint8]:
        """Wait for the flow that `begin` asked for, and return it.

        Returns
        -------
        uint8 array, shape (n - 1, 2, H, W), or (n / 2, 2, H, W)

        Raises
        ------
        DeviceError
            If the device failed.
        ParameterError
            If the solver refuses frames of this size, or the flow overflows; other frames can still be solved.
        """
        try:
            failure = self._connection.recv()
        except (EOFError, OSError) as cause:
            raise DeviceError(_ENDED) from cause
        if failure is not None:
            raise failure
        assert self._memory is not None
        return np.ndarray(self._due, np.uint8, self._memory).copy()

    def close(self) -> None:
        """End the connection and free the shared memory."""
        self._connection.close()
        Path(self._path).unlink(missing_ok=True)


def map_shared(path: str, size: int = 0) -> mmap.mmap:
    """Map a shared file, which is made or enlarged if `size` is given; raise OSError if it is missing, or there is no space."""
    with open(path, "a+b" if size else "r+b") as file:
        if size and hasattr(os, "posix_fallocate"):  # writing to a page for which the disk has no space would kill the process
            os.posix_fallocate(file.fileno(), 0, size)
        elif size:
            file.truncate(size)
        return mmap.mmap(file.fileno(), size)
