"""TV-L1 flow on an NVIDIA GPU: many pairs of frames of one size at a time, also from different videos.

Frames are uploaded once as bytes, and quantised flow is downloaded once as bytes; everything between stays on the device. The kernels
are in tvl1.cu, and are compiled at first use for the GPU of the machine (compile.py). The memory and the launches of a batch are
in batch.py, the thread that drives the device is in device_thread.py. Importing this module loads nothing of CUDA.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ParameterError
from flowkit.flow.cuda.batch import BatchLane
from flowkit.flow.cuda.card import Card
from flowkit.flow.cuda.cost import CostModel
from flowkit.flow.cuda.device import ComputeDevice, CudaDevice
from flowkit.flow.cuda.device_thread import Batch, DeviceThread
from flowkit.flow.cuda.plan import (
    BatchPlan,
    Level,
    Quantisation,
    check_frame_size,
    choose_tilings,
    plan_batches,
)
from flowkit.flow.cuda.tiles import MAX_FUSED_ITERATIONS, TileShape
from flowkit.flow.params import TVL1Params

MAX_PAIRS = 128  # per batch if the memory suffices; three batches in flight then fill a large GPU
NUM_LANES = 3  # batches in flight


class SubmittedFlow:
    """Flow that is being computed, as `CudaSolver.submit` returns it. Only the thread that submitted it may use it."""

    def __init__(self, solver: CudaSolver, flow: NDArray[Any] | Sequence[NDArray[Any]], num_batches: int) -> None:
        self._solver, self._flow = solver, flow
        self._num_batches = num_batches
        self._error: Exception | None = None

    def is_finished(self) -> bool:
        """Return whether `result` would return without waiting."""
        self._solver._receive_finished()
        return self._num_batches == 0

    def result(self) -> Any:
        """Wait for the flow and return it: a new array, or the arrays that the caller provided.

        Raises
        ------
        ParameterError
            If the flow overflows with these parameters.
        DeviceError
            If the device failed.
        """
        while self._num_batches:
            self._solver._receive_next()
        if self._error is not None:
            raise self._error
        return self._flow

    def _note(self, error: Exception | None) -> None:
        self._error = self._error or error
        self._num_batches -= 1


class CudaSolver:
    """Solve pairs of frames of one size on one GPU.

    A thread of the solver drives several batches at a time: while the last pairs of one batch converge, or its frames and flow
    are copied, the others keep the GPU busy. So submit the next frames before asking for the last flow. Only the caller's thread
    copies host memory, in `submit` and in the methods of `SubmittedFlow`, so that launches never wait for it. Use a solver in one
    thread only.

    Parameters
    ----------
    height, width : int
        Size of every frame, px.
    params : TVL1Params
        The parameters of TV-L1.
    device_index : int
        Index of the GPU, as CUDA counts them. One process per GPU is the fastest way to use several.
    bound : float, px/frame, optional
        Quantise on the device, with the same bits as ``flowkit.Quantiser(bound, mapping)``. None: the flow is float32.
    mapping : {"symmetric", "paper"}
        The mapping of the quantiser.
    max_pairs : int, optional
        Largest number of pairs per batch, by default 128; smaller if the free device memory requires it (about 8 MB per pair at
        340x256).
    num_lanes : int
        Number of batches in flight.
    tile : TileShape, optional
        The block of the kernel `iterate`, for all levels of the pyramid. By default the plan chooses one for each level from the
        limits of the GPU; ``flowkit doctor --plan`` prints the choice.
    num_fused_iterations : int, optional
        Iterations per launch, for all levels; convergence of a pair is tested once per launch. At most 6, because each iteration
        spoils one pixel on every side of a tile. By default the plan chooses it too, and 5 with a given tile.
    model : CostModel, optional
        Other constants than the default ones for the choice of the plan.
    on_batch : callable, optional
        Called by the thread of the solver whenever a batch has left the device, so that the caller need not poll.
    device : callable, optional
        Opens the device to use instead of a CUDA device; the tests pass an emulated one.

    Raises
    ------
    DeviceError
        If the GPU, its driver, its memory or the software is missing or insufficient.
    ParameterError
        If a side is below 16 px, frames have more than 2^29 pixels, or another setting is out of its range.
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
        tile: TileShape | None = None,
        num_fused_iterations: int | None = None,
        model: CostModel | None = None,
        on_batch: Callable[[], None] | None = None,
        device: Callable[[], ComputeDevice] | None = None,
    ) -> None:
        check_frame_size(height, width)
        levels = tuple(Level(width, height) for height, width in params.level_sizes(height, width))
        if num_fused_iterations is not None and not 1 <= num_fused_iterations <= MAX_FUSED_ITERATIONS:
            raise ParameterError(f"1 to {MAX_FUSED_ITERATIONS} iterations fit into a launch, got {num_fused_iterations}")
        if num_lanes < 1 or (max_pairs is not None and max_pairs < 1):
            raise ParameterError(f"a batch needs at least one pair and one lane, got {max_pairs=}, {num_lanes=}")
        self.height, self.width, self.params = height, width, params
        if mapping not in ("symmetric", "paper") or not (bound is None or bound > 0):
            raise ParameterError(f"there is no quantiser with {bound=}, {mapping=}")
        quantisation = None if bound is None else Quantisation.of(bound, mapping)
        self._flow_dtype = np.dtype(np.float32 if quantisation is None else np.uint8)

        def plan_for(max_pairs: int, card: Card) -> BatchPlan:
            tilings = choose_tilings(
                card, levels, params.inner_iterations, tile=tile, num_fused_iterations=num_fused_iterations, model=model
            )
            # Room for one frame per pair and the first frames of some videos; at least for the two frames of a single pair.
            return BatchPlan(levels, tilings, params, quantisation, max_pairs, max_pairs + max(1, max_pairs // 4))

        self._wanted_pairs = max_pairs or MAX_PAIRS
        self._thread = DeviceThread(device or (lambda: CudaDevice(device_index)), plan_for, self._wanted_pairs, num_lanes, on_batch)
        self._finalizer = weakref.finalize(self, self._thread.stop)
        self._plan = self._thread.plan
        self._idle_lanes = list(self._thread.lanes)
        self._in_flight: dict[BatchLane, tuple[SubmittedFlow, NDArray[Any] | Sequence[NDArray[Any]]]] = {}  # and where the flow goes

    @property
    def max_pairs(self) -> int:
        """The number of pairs per batch; submissions of this number of pairs, or a multiple, use the device best."""
        return self._plan.max_pairs

    @property
    def is_cramped(self) -> bool:
        """Whether batches are smaller than requested because the device had too little free memory when the solver was made."""
        return self._plan.max_pairs < self._wanted_pairs

    @property
    def device_name(self) -> str:
        """The name of the device."""
        return self._thread.device_name

    def solve(self, frames: NDArray[np.uint8], pairs: NDArray[np.integer] | None = None) -> NDArray[Any]:
        """Return the flow of pairs of frames.

        Parameters
        ----------
        frames : uint8 array, shape (n, H, W)
            Grey frames.
        pairs : int array, shape (m, 2), optional
            Indices of the first and second frame of each pair; by default each frame and the next one.

        Returns
        -------
        uint8 array, shape (m, 2, H, W), or float32 if no bound was given
            Channel 0 is u (to the right), channel 1 is v (down).

        Raises
        ------
        ParameterError
            If an array has another shape, type or range, or the flow overflows with these parameters.
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
    ) -> SubmittedFlow:
        """Submit frames and pairs, as for `solve`, and return while the device computes.

        The frames may be changed when this returns. If all lanes are in use, the method waits until one is free, so that memory
        stays bounded.

        Parameters
        ----------
        frames : uint8 array, shape (n, H, W), or n arrays of shape (H, W)
            Grey frames.
        pairs : int array, shape (m, 2), optional
            As for `solve`.
        out : m arrays of shape (2, H, W), optional
            The arrays to fill, uint8, or float32 if no bound was given; by default the result is a new array.

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
        submission = SubmittedFlow(self, flow, len(batches))
        start = 0
        for indices, local in batches:
            while not self._idle_lanes:
                self._receive_next()
            lane = self._idle_lanes.pop()
            self._in_flight[lane] = submission, flow[start : start + len(local)]
            try:
                lane.load([frames[index] for index in indices], local)
                self._thread.put(Batch(lane, len(indices), len(local)))
            except BaseException:
                del self._in_flight[lane]
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

    def _receive_next(self) -> None:
        """Wait until a batch has left the device, copy its flow, and free its lane."""
        batch = self._thread.finished.get()
        submission, target = self._in_flight.pop(batch.lane)
        try:
            if batch.error is None:
                batch.lane.unload(target)
        finally:
            self._idle_lanes.append(batch.lane)
            submission._note(batch.error)

    def _receive_finished(self) -> None:
        """Do the same for all batches that have left the device already."""
        while not self._thread.finished.empty():
            self._receive_next()

    def close(self) -> None:
        """Finish what was submitted, whose flow can still be requested, and free the device."""
        while self._finalizer.alive and len(self._idle_lanes) < len(self._thread.lanes):
            self._receive_next()  # before the memory that contains the flow is freed
        self._finalizer()

    def __enter__(self) -> CudaSolver:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def compute_flow(
    grey: NDArray[np.uint8], params: TVL1Params, device_index: int = 0, *, pairs: NDArray[np.integer] | None = None
) -> NDArray[np.float32]:
    """Return the flow from each frame to the next, or of certain pairs of frames, computed on a GPU.

    Parameters
    ----------
    grey : uint8 array, shape (T, H, W)
        Grey frames; T at least 1.
    params : TVL1Params
        The parameters of TV-L1.
    device_index : int
        Index of the GPU.
    pairs : int array, shape (m, 2), optional
        As for `CudaSolver.solve`.

    Returns
    -------
    float32 array, shape (T-1, 2, H, W), or (m, 2, H, W), px/frame
        Channel 0 is u (to the right), channel 1 is v (down).

    Raises
    ------
    DeviceError
        If the GPU cannot be used.
    """
    _num_frames, height, width = grey.shape
    num_pairs = max(1, len(grey) - 1 if pairs is None else len(pairs))
    num_lanes = NUM_LANES if num_pairs > MAX_PAIRS else 1
    with CudaSolver(height, width, params, device_index=device_index, max_pairs=min(num_pairs, MAX_PAIRS), num_lanes=num_lanes) as solver:
        flow: NDArray[np.float32] = solver.solve(grey, pairs)
    return flow
