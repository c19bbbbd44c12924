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
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from flowkit.errors import DeviceError, ParameterError
from flowkit.flow.cuda_batch import BatchLane
from flowkit.flow.cuda_device import CudaDevice, DeviceInfo, list_devices
from flowkit.flow.cuda_plan import (
    MAX_FUSED_ITERATIONS,
    MIN_SIDE_PX,
    NUM_FUSED_ITERATIONS,
    BatchPlan,
    Quantisation,
    plan_batches,
    pyramid_levels,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from flowkit.flow.cuda_device import ComputeDevice
    from flowkit.flow.params import TVL1Params

__all__ = ["CudaSolver", "DeviceInfo", "compute_flow", "list_devices"]

logger = logging.getLogger(__name__)

MAX_PAIRS = 128  # per batch where memory allows; with two batches in flight a large GPU is full
NUM_LANES = 2  # batches in flight
MEMORY_SHARE = 0.85  # of the free device memory, for all lanes
POLL_SECONDS = 2e-5


@dataclass
class _Submission:
    """Frames and pairs that a caller wants solved, and the flow as it comes in."""

    frames: NDArray[np.uint8]
    flow: NDArray[Any]
    num_batches: int
    error: Exception | None = None
    finished: threading.Event = field(default_factory=threading.Event)

    def deliver(self, error: Exception | None) -> None:
        """Note that one batch is done; called by the worker alone."""
        self.error = self.error or error
        self.num_batches -= 1
        if self.num_batches == 0:
            self.finished.set()

    def result(self) -> NDArray[Any]:
        """Wait for the flow."""
        self.finished.wait()
        if self.error is not None:
            raise self.error
        return self.flow


@dataclass(frozen=True)
class _Batch:
    """A part of a submission that fits the device."""

    submission: _Submission
    indices: NDArray[np.int32]
    pairs: NDArray[np.int32]
    target: NDArray[Any]


class CudaSolver:
    """Solve pairs of frames of one size on one GPU.

    Two batches are in flight at a time, driven by a thread of the solver's own: while the last pairs of one converge, or its frames
    and flow are copied, the other keeps the GPU busy. So submit the next frames before collecting the last.

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

        self._worker = _Worker(device or (lambda: CudaDevice(device_index)), plan_for, max_pairs, num_lanes)
        self._finalizer = weakref.finalize(self, self._worker.stop)
        self._uncollected: deque[_Submission] = deque()
        self._plan = self._worker.plan

    @property
    def max_pairs(self) -> int:
        """Pairs per batch: submissions of this many (or a multiple) use the device best."""
        return self._plan.max_pairs

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
        return self._submit(frames, pairs).result()

    def submit(self, frames: NDArray[np.uint8], pairs: NDArray[np.integer] | None = None) -> None:
        """Hand in frames and pairs, as for `solve`, and return while the device works.

        The frames must not change until the flow is collected. Waits where more than `num_lanes` batches wait for the device
        already, so that memory stays bounded.
        """
        self._uncollected.append(self._submit(frames, pairs))

    def collect(self) -> NDArray[Any]:
        """Return the flow of the oldest submission not yet collected, waiting for it; raises as `solve`.

        Raises
        ------
        ParameterError
            If nothing was submitted.
        """
        if not self._uncollected:
            raise ParameterError("nothing to collect: each collect needs a submit before it")
        return self._uncollected.popleft().result()

    @property
    def num_uncollected(self) -> int:
        """Submissions not yet collected."""
        return len(self._uncollected)

    def close(self) -> None:
        """Finish what was handed in and free the device."""
        self._finalizer()

    def __enter__(self) -> CudaSolver:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _submit(self, frames: NDArray[np.uint8], pairs: NDArray[np.integer] | None) -> _Submission:
        if frames.dtype != np.uint8 or frames.ndim != 3 or frames.shape[1:] != (self.height, self.width):
            raise ParameterError(f"frames must be uint8 (n, {self.height}, {self.width}), got {frames.dtype} {frames.shape}")
        if pairs is None:
            pairs = np.stack([np.arange(len(frames) - 1), np.arange(1, len(frames))], axis=1) if len(frames) else np.empty((0, 2), np.int64)
        pairs = np.asarray(pairs)
        if pairs.ndim != 2 or pairs.shape[1] != 2 or not np.issubdtype(pairs.dtype, np.integer):
            raise ParameterError(f"pairs must be integers of shape (m, 2), got {pairs.dtype} {pairs.shape}")
        if len(pairs) and (pairs.min() < 0 or pairs.max() >= len(frames)):
            raise ParameterError(f"pairs must lie in 0..{len(frames) - 1}, got {pairs.min()}..{pairs.max()}")
        batches = plan_batches(pairs, self._plan.max_pairs, self._plan.max_frames)
        flow = np.empty((len(pairs), 2, self.height, self.width), self._flow_dtype)
        submission = _Submission(frames, flow, len(batches))
        if not batches:
            submission.finished.set()
        start = 0
        for indices, local in batches:
            self._worker.put(_Batch(submission, indices, local, flow[start : start + len(local)]))
            start += len(local)
        return submission


class _Worker:
    """The thread that owns the device: CUDA's current context is a thread's, and launches must go on while the caller is busy."""

    def __init__(
        self, device: Callable[[], ComputeDevice], plan_for: Callable[[int], BatchPlan], max_pairs: int | None, num_lanes: int
    ) -> None:
        self._make_device, self._plan_for, self._max_pairs, self._num_lanes = device, plan_for, max_pairs, num_lanes
        self._batches: queue.Queue[_Batch | None] = queue.Queue(maxsize=num_lanes)
        self._started: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._stopped = False
        self.plan: BatchPlan
        self.device_name = ""
        self._thread = threading.Thread(target=self._run, name="flowkit-cuda", daemon=True)
        self._thread.start()
        failure = self._started.get()
        if failure is not None:
            self._thread.join()
            raise failure

    def put(self, batch: _Batch) -> None:
        """Hand in a batch, waiting while enough others wait."""
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
            lanes = self._open_lanes(device)
        except BaseException as error:
            if device is not None:
                device.close()
            self._started.put(error)  # raised where the solver was asked for
            return
        self._started.put(None)
        try:
            self._serve(lanes)
        finally:
            device.close()

    def _open_lanes(self, device: ComputeDevice) -> list[BatchLane]:
        self.device_name = device.name
        budget = MEMORY_SHARE * device.free_bytes() / self._num_lanes
        fitting = MAX_PAIRS if self._max_pairs is None else self._max_pairs
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

    def _serve(self, lanes: list[BatchLane]) -> None:
        """Let the batches in flight take turns until the end is handed in and all is done."""
        idle = list(lanes)
        working: list[tuple[BatchLane, Iterator[None], _Submission]] = []
        is_open = True
        fault: DeviceError | None = None  # a device that has failed once gives the same error for ever, or worse, none
        while is_open or working:
            while is_open and idle:
                try:
                    batch = self._batches.get(block=not working)
                except queue.Empty:
                    break
                if batch is None:
                    is_open = False
                elif fault is not None:
                    batch.submission.deliver(fault)
                else:
                    lane = idle.pop()
                    schedule = lane.run(batch.submission.frames, batch.indices, batch.pairs, batch.target)
                    working.append((lane, schedule, batch.submission))
            for entry in list(working):
                lane, schedule, submission = entry
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
                    error = failure  # raised where the flow is collected
                working.remove(entry)
                idle.append(lane)
                submission.deliver(error)
            if working:
                time.sleep(POLL_SECONDS)


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
