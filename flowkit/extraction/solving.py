"""From frames to quantised flow, by the solver that the settings name, with or without the camera's motion.

`quantised_flow` solves frames in this process. A `FlowQueue` solves one batch of frames after the other, also by the process of a
GPU, while its caller does other work.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from flowkit.dataset.settings import ExtractSettings
from flowkit.flow import compute_flow, compute_pairs_flow, frames_for, warm_up
from flowkit.flow.cuda.client import FlowClient, ServiceAddress
from flowkit.flow.cuda.connections import FlowConnections, PendingFlow
from flowkit.flow.cuda.plan import check_frame_size
from flowkit.flow.cuda.remote import RemoteAddress, RemoteFlowClient
from flowkit.warped_flow import NONE, PAIRS_AT_ONCE, pairs_without_camera_motion, warm_up_camera_motion

PIXELS_AT_ONCE = 1 << 22  # of frames whose flow is solved between two signs of life
BATCHES_AHEAD = 3  # in flight, of each worker of a GPU
LONG_WAIT_SECONDS = 1.0  # for one batch, after which a worker has only one in flight
BYTES_AHEAD = 1 << 27  # of the frames of these batches, and of the memory that is shared for them
_COLOUR_AND_SHARED = 5  # bytes per pixel: RGB, and the two channels of the flow, whose memory the grey frames use before

_Batch = TypeVar("_Batch")


def cpu_mode(settings: ExtractSettings) -> str:
    """Return the mode in which `compute_flow` solves on the CPU with these settings."""
    return "fast" if settings.solver == "fast" else "strict"


def prepare_process(settings: ExtractSettings) -> None:
    """Load what a worker process needs, before its first video: no time limit includes the compilation of kernels."""
    import av  # noqa: F401 - loaded here rather than with the first video
    import cv2

    import flowkit.shards.writer  # noqa: F401

    cv2.setNumThreads(1)
    prepare_solver(settings)


def prepare_solver(settings: ExtractSettings) -> None:
    """Load the flow method of the settings, and compile what it needs."""
    if not settings.has_flow:
        return
    if settings.method is not None:
        settings.method.prepare()
    elif settings.solver in ("strict", "fast"):
        warm_up(cpu_mode(settings))
    warm_up_camera_motion(settings.camera_motion)


def solver_frames(rgb: NDArray[np.uint8], settings: ExtractSettings) -> NDArray[np.uint8]:
    """Return RGB frames, uint8 (n, H, W, 3), as the solver takes them: grey, (n, H, W), or as they are."""
    return frames_for(settings.method, rgb)


def quantised_flow(frames: NDArray[np.uint8], settings: ExtractSettings, *, alive: Callable[[], None] = lambda: None) -> NDArray[np.uint8]:
    """Return the quantised flow between consecutive frames, solved in this process; of settings that store frames only, no flow field.

    Parameters
    ----------
    frames : uint8 array, shape (n, H, W) or (n, H, W, 3)
        The frames, as `solver_frames` returns them.
    settings : ExtractSettings
        The solver, its parameters, what becomes of the camera's motion, and the quantiser.
    alive : callable, optional
        Is called after a few flow fields, of large frames after each one.

    Returns
    -------
    uint8 array, shape (n - 1, 2, H, W)
    """
    if len(frames) < 2 or not settings.has_flow:
        return _no_flow(frames)
    q = []
    if settings.camera_motion != NONE:
        for pairs in _warped_pairs(frames, settings, alive):
            q.append(settings.quantiser.encode(compute_pairs_flow(pairs, **_how(settings))))
            alive()
        return np.concatenate(q)
    at_once = _pairs_at_once(frames)
    for start in range(0, len(frames) - 1, at_once):
        few = frames[start : start + at_once + 1]
        q.append(settings.quantiser.encode(compute_flow(few, **_how(settings))))
        alive()
    return np.concatenate(q)


def _no_flow(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.empty((0, 2, *frames.shape[1:3]), np.uint8)


def _pairs_at_once(frames: NDArray[np.uint8]) -> int:
    return max(PIXELS_AT_ONCE // math.prod(frames.shape[1:3]), 1)


def _warped_pairs(frames: NDArray[np.uint8], settings: ExtractSettings, alive: Callable[[], None]) -> Iterator[NDArray[np.uint8]]:
    """Yield each frame with the next one, from which the camera's motion is removed, a few pairs at a time."""
    at_once = min(_pairs_at_once(frames), PAIRS_AT_ONCE)
    for pairs in pairs_without_camera_motion(frames, camera_motion=settings.camera_motion, at_once=at_once):
        alive()
        yield pairs


def _how(settings: ExtractSettings) -> dict[str, Any]:
    """Return what `compute_flow` needs to know of the settings."""
    if settings.method is not None:
        return {"method": settings.method.name, "params": settings.method.params}
    return {"params": settings.tvl1, "device": "cuda" if settings.solver == "cuda" else "cpu", "mode": cpu_mode(settings)}


@cache
def service_connections(address: ServiceAddress | RemoteAddress) -> FlowConnections:
    """Return this worker's connections to a GPU's process, which all its videos share."""
    return FlowConnections(partial(RemoteFlowClient, address) if isinstance(address, RemoteAddress) else partial(FlowClient, address))


class FlowQueue:
    """The quantised flow of batches of frames of one video, in the order of the batches. A context manager.

    Without a GPU's process, `begin` solves. With one, it sends the frames there and returns, so that the caller encodes frames,
    compresses flow and decodes the next frames while a few batches are solved. Their frames, and the memory that is shared for them,
    take `BYTES_AHEAD` at most, or as much as one batch.

    Parameters
    ----------
    settings : ExtractSettings
        As for `quantised_flow`.
    service : ServiceAddress or RemoteAddress, optional
        The process of a GPU, on this machine or another.
    alive : callable, optional
        As for `quantised_flow`.
    """

    def __init__(
        self, settings: ExtractSettings, service: ServiceAddress | RemoteAddress | None, *, alive: Callable[[], None] = lambda: None
    ) -> None:
        self._settings, self._alive = settings, alive
        self._connections = None if service is None or not settings.has_flow else service_connections(service)
        self._begun: deque[list[_Part]] = deque()  # the parts of each batch
        self._in_flight: deque[_Part] = deque()
        self._batch_bytes = 1
        self._waited_seconds = 0.0  # for the last flow

    def __enter__(self) -> FlowQueue:
        return self

    def __exit__(self, *exception: object) -> None:
        """Wait for what is still in flight and drop it, so that the connections can be used for the next video."""
        while self._in_flight:
            self._receive()

    @property
    def most_ahead(self) -> int:
        """How many batches, of the size of the largest so far, may have begun before the first of them is taken.

        It is one if the GPU is so slow that it always has enough to do: a worker that is to stop waits for what is in flight.
        """
        if self._connections is None or self._waited_seconds > LONG_WAIT_SECONDS:
            return 1
        return max(min(BYTES_AHEAD // self._batch_bytes, BATCHES_AHEAD), 1)

    def begin(self, frames: NDArray[np.uint8]) -> None:
        """Begin to solve the flow between consecutive frames, uint8 (n, H, W) or (n, H, W, 3), as `solver_frames` returns them.

        Raises
        ------
        DeviceError
            If the device failed.
        ParameterError
            If the solver cannot take these frames.
        """
        if self._connections is None or len(frames) < 2:
            self._begun.append([_Part(flow=quantised_flow(frames, self._settings, alive=self._alive))])
            return
        check_frame_size(*frames.shape[1:3])  # before the camera's motion is searched for
        self._batch_bytes = max(self._batch_bytes, _COLOUR_AND_SHARED * math.prod(frames.shape[:3]))
        if self._settings.camera_motion == NONE:
            self._begun.append([self._ask(self._connections, frames)])
            return
        warped = _warped_pairs(frames, self._settings, self._alive)
        self._begun.append([self._ask(self._connections, few.reshape(-1, *few.shape[2:]), are_pairs=True) for few in warped])

    def _ask(self, connections: FlowConnections, frames: NDArray[np.uint8], *, are_pairs: bool = False) -> _Part:
        while len(self._in_flight) >= BATCHES_AHEAD:
            self._receive()
        part = _Part(pending=connections.begin(frames, are_pairs=are_pairs))
        self._in_flight.append(part)
        return part

    def _receive(self) -> None:
        """Wait for the oldest flow in flight."""
        began = time.monotonic()
        self._in_flight.popleft().receive()
        self._waited_seconds = time.monotonic() - began

    def take(self) -> NDArray[np.uint8]:
        """Wait for the flow of the oldest batch that has not been taken, and return it, as `quantised_flow` does.

        Raises
        ------
        DeviceError
            If the device failed.
        ParameterError
            If the flow overflows; that of other frames can still be solved.
        """
        parts = self._begun.popleft()
        while any(part.pending is not None for part in parts):
            self._receive()
        flow = [part.result() for part in parts]
        return flow[0] if len(flow) == 1 else np.concatenate(flow)

    def in_order(self, begun: Iterator[_Batch]) -> Iterator[_Batch]:
        """Yield batches, each of which has begun when the iterator returns it, as late as `most_ahead` allows.

        If the iterator raises an error, the batches before it come first, and perhaps the error of one of these.
        """
        waiting: deque[_Batch] = deque()
        while True:
            try:
                waiting.append(next(begun))
            except StopIteration:
                break
            except Exception:
                yield from waiting
                raise
            while len(waiting) >= self.most_ahead:
                yield waiting.popleft()
        yield from waiting


@dataclass(eq=False)
class _Part:
    """The flow of some of the frames of a batch, which is in flight, or has come, or has failed."""

    pending: PendingFlow | None = None
    flow: NDArray[np.uint8] | None = None
    error: Exception | None = None

    def receive(self) -> None:
        """Wait for the flow, and keep it or its error."""
        assert self.pending is not None
        try:
            self.flow = self.pending.result()
        except Exception as error:  # raised when it is the turn of this batch
            self.error = error
        self.pending = None

    def result(self) -> NDArray[np.uint8]:
        """Return the flow, once it is no longer in flight."""
        if self.error is not None:
            raise self.error
        assert self.flow is not None
        return self.flow
