"""TV-L1 flow on an NVIDIA GPU: many pairs of one frame size at a time, also of different videos.

Frames go up once as bytes, quantised flow comes down once as bytes; everything between stays on the device. The kernels are in
tvl1.cu, compiled at first use for the GPU at hand (cuda_kernels.py); a batch's memory and launches are in cuda_batch.py. Nothing of
CUDA is loaded when this module is imported.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flowkit.errors import DeviceError, ParameterError
from flowkit.flow.cuda.batch import BatchLane
from flowkit.flow.cuda.device import CudaDevice, DeviceInfo, list_devices
from flowkit.flow.cuda.plan import (
    MAX_FUSED_ITERATIONS,
    MIN_SIDE_PX,
    NUM_FUSED_ITERATIONS,
    BatchPlan,
    Quantisation,
    plan_batches,
    pyramid_levels,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from flowkit.flow.cuda.device import ComputeDevice
    from flowkit.flow.params import TVL1Params

__all__ = ["CudaSolver", "DeviceInfo", "Submission", "compute_flow", "list_devices"]

logger = logging.getLogger(__name__)

MAX_PAIRS = 128  # per batch where memory allows; with three batches in flight a large GPU is full
NUM_LANES = 3  # batches in flight
MEMORY_SHARE = 0.85  # of the free device memory, for all lanes
POLL_SECONDS = 2e-5


class Submission:
    """Flow that is being computed: what `CudaSolver.submit` returns. For the thread that submitted it."""

    def __init__(self, solver: CudaSolver, flow: NDArray[Any] | Sequence[NDArray[Any]], num_batches: int) -> None:
        self._solver, self._flow = solver, flow
        self._num_batches = num_batches
        self._error: Exception | None = None

    def is_finished(self) -> bool:
        """Return whether `result` would not wait."""
        self._solver._take_finished()
        return self._num_batches == 0

    def result(self) -> Any:
        """Wait for the flow: a new array, or what the caller gave for it.

        Raises
        ------
        ParameterError
            If the parameters make the flow overflow.
        DeviceError
            If the device failed.
        """
        while self._num_batches:
            self._solver._take_next()
        if self._error is not None:
            raise self._error
        return self._flow

    def _note(self, error: Exception | None) -> None:
        self._error = self._error or error
        self._num_batches -= 1


@dataclass(eq=False)
class _Batch:
    """A part of a submission that fits the device, in a lane of its own until its flow is copied out."""

    submission: Submission
    lane: BatchLane
    num_frames: int
    num_pairs: int
    target: NDArray[Any] | Sequence[NDArray[Any]]
    error: Exception | None = None


class CudaSolver:
    """Solve pairs of frames of one size on one GPU.

    Several batches are in flight at a time, driven by a thread of the solver's own: while the last pairs of one converge, or its
    frames and flow are copied, the others keep the GPU busy. So submit the next frames before asking for the last flow. Host
    memory is copied by the caller's thread alone, that is in `submit` and in the submissions' methods, so that launches never wait
    for it. A solver is for one thread.

    Parameters
    ----------
    height, width : int
        Size of every frame, px.
    params : TVL1Params
        The parameters of TV-L1. A preset of float flow and quantised flow alike.
    device_index : int
        Which GPU, as CUDA counts them. One process per GPU is the fastest way to use several.
    bound : float, px/frame, optional
        Quantise on the device as `flowkit.Quantiser(bound, mapping)` does, bit for bit. None: float flow.
    mapping : {"symmetric", "paper"}
        The quantiser's mapping.
    max_pairs : int, optional
        Pairs per batch at most, 128 if not given; fewer where free device memory holds fewer (about 8 MB a pair at 340x256).
    num_lanes : int
        Batches in flight.
    num_fused_iterations : int
        Iterations per launch; whether a pair has converged is looked at once per launch. At most 6: a tile loses so many pixels of
        its rim on every side.
    on_batch : callable, optional
        Called by the solver's own thread whenever a batch has left the device, so that a caller need not poll.
    device : ComputeDevice, optional
        Where to run instead of a CUDA device: the tests' emulated one.

    Raises
    ------
    DeviceError
        If the GPU, its driver, its memory or the software is missing or does not suffice.
    ParameterError
        If a side is below 16 px, or another setting is out of its range.
    """

    def __init__(
        self,
        height: int,
        width: int,
        params: TVL1Params,
        *,
        device_index: int = 0,
        bound: float | None = None,
        mapping: str = "symmetric",
        max_pairs: int | None = None,
        num_lanes: int = NUM_LANES,
        num_fused_iterations: int = NUM_FUSED_ITERATIONS,
        on_batch: Callable[[], None] | None = None,
        device: Callable[[], ComputeDevice] | None = None,
    ) -> None:
        if min(height, width) < MIN_SIDE_PX:
            raise ParameterError(f"TV-L1 needs frames of at least {MIN_SIDE_PX} px a side, got {width}x{height}")
        if not 1 <= num_fused_iterations <= MAX_FUSED_ITERATIONS:
            raise ParameterError(f"1 to {MAX_FUSED_ITERATIONS} iterations fit into a launch, got {num_fused_iterations}")
        if num_lanes < 1 or (max_pairs is not None and max_pairs < 1):
            raise ParameterError(f"a batch needs at least one pair and one lane, got {max_pairs=}, {num_lanes=}")
        self.height, self.width, self.params = height, width, params
        if mapping not in ("symmetric", "paper") or not (bound is None or bound > 0):
            raise ParameterError(f"there is no quantiser with {bound=}, {mapping=}")
        quantisation = None if bound is None else Quantisation.of(bound, mapping)
        self._flow_dtype = np.dtype(np.float32 if quantisation is None else np.uint8)

        def plan_for(max_pairs: int) -> BatchPlan:
            levels = tuple(pyramid_levels(height, width, params))
            # Room for the first frames of some videos, besides one frame a pair; at least the two of a single pair.
            return BatchPlan(levels, params, quantisation, max_pairs, max_pairs + max(1, max_pairs // 4), num_fused_iterations)

        self._wanted_pairs = max_pairs or MAX_PAIRS
        self._worker = _Worker(device or (lambda: CudaDevice(device_index)), plan_for, self._wanted_pairs, num_lanes, on_batch)
        self._finalizer = weakref.finalize(self, self._worker.stop)
        self._plan = self._worker.plan
        self._idle_lanes = list(self._worker.lanes)

    @property
    def max_pairs(self) -> int:
        """Pairs per batch: submissions of this many (or a multiple) use the device best."""
        return self._plan.max_pairs

    @property
    def is_cramped(self) -> bool:
        """Whether a batch is smaller than asked for, because the device had too little free memory when the solver was made."""
        return self._plan.max_pairs < self._wanted_pairs

    @property
    def device_name(self) -> str:
        """What the device calls itself."""
        return self._worker.device_name

    def solve(self, frames: NDArray[np.uint8], pairs: NDArray[np.integer] | None = None) -> NDArray[Any]:
        """Return the flow of pairs of frames.

        Parameters
        ----------
        frames : uint8 array, shape (n, H, W)
            Grey frames.
        pairs : int array, shape (m, 2), optional
            First and second frame of each pair. If not given, each frame with the next.

        Returns
        -------
        uint8 array, shape (m, 2, H, W), or float32 if no bound was given
            Channel 0 is u (right), channel 1 is v (down).

        Raises
        ------
        ParameterError
            If an array has another shape, type or range, or the parameters make the flow overflow.
        DeviceError
            If the device fails.
        """
        flow: NDArray[Any] = self.submit(frames, pairs).result()
        return flow

    def submit(
        self,
        frames: NDArray[np.uint8] | Sequence[NDArray[np.uint8]],
        pairs: NDArray[np.integer] | None = None,
        out: Sequence[NDArray[Any]] | None = None,
    ) -> Submission:
        """Hand in frames and pairs, as for `solve`, and return while the device works.

        The frames may change when this returns. Waits where all lanes are taken until one is free, so that memory stays bounded.

        Parameters
        ----------
        frames : uint8 array, shape (n, H, W), or n arrays of shape (H, W)
            Grey frames.
        pairs : int array, shape (m, 2), optional
            As for `solve`.
        out : m arrays of shape (2, H, W), optional
            Where the flow goes, uint8, or float32 if no bound was given. If not given, the submission's result is a new array.

        Raises
        ------
        ParameterError
            If an array has another shape, type or range.
        DeviceError
            If the solver is closed.
        """
        self._check_frames(frames)
        if pairs is None:
            pairs = np.stack([np.arange(len(frames) - 1), np.arange(1, len(frames))], axis=1) if len(frames) else np.empty((0, 2), np.int64)
        pairs = np.asarray(pairs)
        if pairs.ndim != 2 or pairs.shape[1] != 2 or not np.issubdtype(pairs.dtype, np.integer):
            raise ParameterError(f"pairs must be integers of shape (m, 2), got {pairs.dtype} {pairs.shape}")
        if len(pairs) and (pairs.min() < 0 or pairs.max() >= len(frames)):
            raise ParameterError(f"pairs must lie in 0..{len(frames) - 1}, got {pairs.min()}..{pairs.max()}")
        flow: NDArray[Any] | Sequence[NDArray[Any]]
        flow = np.empty((len(pairs), 2, self.height, self.width), self._flow_dtype) if out is None else out
        if len(flow) != len(pairs) or any(field.shape != (2, self.height, self.width) or field.dtype != self._flow_dtype for field in flow):
            raise ParameterError(f"out must be {len(pairs)} arrays {self._flow_dtype} (2, {self.height}, {self.width})")
        batches = plan_batches(pairs, self._plan.max_pairs, self._plan.max_frames)
        submission = Submission(self, flow, len(batches))
        start = 0
        for indices, local in batches:
            while not self._idle_lanes:
                self._take_next()
            lane = self._idle_lanes.pop()
            try:
                lane.load([frames[index] for index in indices], local)
                self._worker.put(_Batch(submission, lane, len(indices), len(local), flow[start : start + len(local)]))
            except BaseException:
                self._idle_lanes.append(lane)
                raise
            start += len(local)
        return submission

    def _check_frames(self, frames: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]) -> None:
        shape = (self.height, self.width)
        wrong = ""
        if isinstance(frames, np.ndarray):
            if frames.dtype != np.uint8 or frames.ndim != 3 or frames.shape[1:] != shape:
                wrong = f"{frames.dtype} {frames.shape}"
        else:
            wrong = next((f"{frame.dtype} {frame.shape}" for frame in frames if frame.dtype != np.uint8 or frame.shape != shape), "")
        if wrong:
            raise ParameterError(f"frames must be uint8 (n, {self.height}, {self.width}), got {wrong}")

    def _take_next(self) -> None:
        """Wait for a batch that has left the device, copy its flow out, and free its lane."""
        batch = self._worker.finished.get()
        try:
            if batch.error is None:
                batch.lane.unload(batch.target)
        finally:
            self._idle_lanes.append(batch.lane)
            batch.submission._note(batch.error)

    def _take_finished(self) -> None:
        """Do as much for all batches that have left the device."""
        while not self._worker.finished.empty():
            self._take_next()

    def close(self) -> None:
        """Finish what was handed in, whose flow may still be asked for, and free the device."""
        while self._finalizer.alive and len(self._idle_lanes) < len(self._worker.lanes):
            self._take_next()  # before the memory that the flow lies in is freed
        self._finalizer()

    def __enter__(self) -> CudaSolver:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class _Worker:
    """The thread that owns the device: CUDA's current context is a thread's, and launches must go on while the caller is busy."""

    def __init__(
        self,
        device: Callable[[], ComputeDevice],
        plan_for: Callable[[int], BatchPlan],
        max_pairs: int,
        num_lanes: int,
        on_batch: Callable[[], None] | None,
    ) -> None:
        self._make_device, self._plan_for, self._max_pairs, self._num_lanes = device, plan_for, max_pairs, num_lanes
        self._on_batch = on_batch
        self._batches: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._started: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._stopped = False
        self.finished: queue.SimpleQueue[_Batch] = queue.SimpleQueue()
        self.plan: BatchPlan
        self.lanes: list[BatchLane]
        self.device_name = ""
        self._thread = threading.Thread(target=self._run, name="flowkit-cuda", daemon=True)
        self._thread.start()
        failure = self._started.get()
        if failure is not None:
            self._thread.join()
            raise failure

    def put(self, batch: _Batch) -> None:
        """Hand in a batch whose lane is loaded."""
        if self._stopped:
            raise DeviceError("the GPU solver is closed")
        self._batches.put(batch)

    def stop(self) -> None:
        """Finish what was handed in, and end the thread."""
        if not self._stopped:
            self._stopped = True
            if self._thread.is_alive():
                self._batches.put(None)
                self._thread.join()

    def _run(self) -> None:
        device = None
        try:
            device = self._make_device()
            self.lanes = self._open_lanes(device)
        except BaseException as error:
            if device is not None:
                device.close()
            self._started.put(error)  # raised where the solver was asked for
            return
        self._started.put(None)
        try:
            self._serve()
        finally:
            device.close()

    def _open_lanes(self, device: ComputeDevice) -> list[BatchLane]:
        self.device_name = device.name
        budget = MEMORY_SHARE * device.free_bytes() / self._num_lanes
        fitting = self._max_pairs
        while fitting > 1 and self._plan_for(fitting).device_bytes(device.tile) > budget:
            fitting -= 1
        plan = self._plan_for(fitting)
        needed = plan.device_bytes(device.tile)
        if needed > budget:
            level = plan.levels[0]
            raise DeviceError(
                f"{device.name} has too little free memory: {self._num_lanes} x {fitting} pairs at {level.width}x{level.height} px "
                f"take {self._num_lanes * needed / 2**20:.0f} MiB, but {self._num_lanes * budget / 2**20:.0f} MiB are to be had; "
                "free memory on it, use a smaller frame size, or --device cpu"
            )
        lanes = [BatchLane(device, plan) for _ in range(self._num_lanes)]
        logger.info("batches of %d pairs, %d in flight, %.0f MiB each", fitting, self._num_lanes, needed / 2**20)
        self.plan = plan
        return lanes

    def _serve(self) -> None:
        """Let the batches in flight take turns until the end is handed in and all is done."""
        working: list[tuple[_Batch, Iterator[None]]] = []
        is_open = True
        fault: DeviceError | None = None  # a device that has failed once gives the same error for ever, or worse, none
        while is_open or working:
            while is_open:
                try:
                    batch = self._batches.get(block=not working)
                except queue.Empty:
                    break
                if batch is None:
                    is_open = False
                elif fault is not None:
                    self._finish(batch, fault)
                else:
                    working.append((batch, batch.lane.run(batch.num_frames, batch.num_pairs)))
            for entry in list(working):
                batch, schedule = entry
                error: Exception | None
                try:
                    next(schedule)
                    continue
                except StopIteration:
                    error = None
                except FloatingPointError as overflow:
                    error = ParameterError(f"{overflow}: TV-L1 diverges with these parameters; try those of a preset")
                except DeviceError as failure:
                    error = fault = failure
                except Exception as failure:
                    error = failure  # raised where the flow is asked for
                working.remove(entry)
                self._finish(batch, error)
            if working:
                time.sleep(POLL_SECONDS)

    def _finish(self, batch: _Batch, error: Exception | None) -> None:
        batch.error = error
        self.finished.put(batch)
        if self._on_batch is not None:
            self._on_batch()


def compute_flow(grey: NDArray[np.uint8], params: TVL1Params, device_index: int = 0) -> NDArray[np.float32]:
    """Return the flow from each frame to the next, computed on a GPU.

    Parameters
    ----------
    grey : uint8 array, shape (T, H, W)
        Grey frames; T at least 1.
    params : TVL1Params
        The parameters of TV-L1.
    device_index : int
        Which GPU.

    Returns
    -------
    float32 array, shape (T-1, 2, H, W), px/frame
        Channel 0 is u (right), channel 1 is v (down).

    Raises
    ------
    DeviceError
        If the GPU cannot be used.
    """
    _num_frames, height, width = grey.shape
    num_pairs = max(1, len(grey) - 1)
    num_lanes = NUM_LANES if num_pairs > MAX_PAIRS else 1
    with CudaSolver(height, width, params, device_index=device_index, max_pairs=min(num_pairs, MAX_PAIRS), num_lanes=num_lanes) as solver:
        flow: NDArray[np.float32] = solver.solve(grey)
    return flow
