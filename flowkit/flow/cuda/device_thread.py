"""The thread that drives a device: it opens its lanes and lets the batches in flight take turns."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from flowkit.errors import DeviceError, ParameterError
from flowkit.flow.cuda.batch import BatchLane
from flowkit.flow.cuda.card import Card
from flowkit.flow.cuda.device import ComputeDevice
from flowkit.flow.cuda.plan import BatchPlan

logger = logging.getLogger(__name__)

MEMORY_SHARE = 0.85  # of the free device memory, for all lanes
POLL_SECONDS = 2e-5


@dataclass(eq=False)
class Batch:
    """Frames and pairs that were loaded into a lane, which is theirs until the flow has been copied out."""

    lane: BatchLane
    num_frames: int
    num_pairs: int
    error: Exception | None = None


class DeviceThread:
    """The thread that owns a device: a CUDA context belongs to a thread, and launches must continue while the caller is busy.

    Parameters
    ----------
    device : callable
        Opens the device; called in the thread.
    plan_for : callable
        Returns the plan for batches of at most the given number of pairs on a card.
    max_pairs : int
        Number of pairs per batch, if the memory suffices.
    num_lanes : int
        Number of batches in flight.
    on_batch : callable, optional
        Called in the thread whenever a batch has left the device.

    Raises
    ------
    DeviceError
        If the device cannot be opened or has too little free memory.
    """

    def __init__(
        self,
        device: Callable[[], ComputeDevice],
        plan_for: Callable[[int, Card], BatchPlan],
        max_pairs: int,
        num_lanes: int,
        on_batch: Callable[[], None] | None,
    ) -> None:
        self._make_device, self._plan_for, self._max_pairs, self._num_lanes = device, plan_for, max_pairs, num_lanes
        self._on_batch = on_batch
        self._batches: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._started: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._stopped = False
        self.finished: queue.SimpleQueue[Batch] = queue.SimpleQueue()
        self.plan: BatchPlan
        self.lanes: list[BatchLane]
        self.device_name = ""
        self._thread = threading.Thread(target=self._run, name="flowkit-cuda", daemon=True)
        self._thread.start()
        failure = self._started.get()
        if failure is not None:
            self._thread.join()
            raise failure

    def put(self, batch: Batch) -> None:
        """Start a batch whose lane has been loaded."""
        if self._stopped:
            raise DeviceError("the GPU solver is closed")
        self._batches.put(batch)

    def stop(self) -> None:
        """Finish the batches that were put, and end the thread."""
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
            self._started.put(error)  # raised by __init__
            return
        self._started.put(None)
        try:
            self._serve()
        finally:
            device.close()

    def _open_lanes(self, device: ComputeDevice) -> list[BatchLane]:
        card = device.card
        self.device_name = card.name
        budget = MEMORY_SHARE * device.free_bytes() / self._num_lanes
        fitting = self._max_pairs
        while fitting > 1 and self._plan_for(fitting, card).device_bytes() > budget:
            fitting -= 1
        plan = self._plan_for(fitting, card)
        needed = plan.device_bytes()
        if needed > budget:
            level = plan.levels[0]
            raise DeviceError(
                f"{card.name} has too little free memory: {self._num_lanes} x {fitting} pairs at {level.width}x{level.height} px "
                f"take {self._num_lanes * needed / 2**20:.0f} MiB, but {self._num_lanes * budget / 2**20:.0f} MiB are available; "
                "free memory on the device, or use a smaller frame size or --device cpu"
            )
        lanes = [BatchLane(device, plan) for _ in range(self._num_lanes)]
        for level, tiling in zip(plan.levels, plan.tilings, strict=True):
            logger.info("%dx%d: %d iterations per launch, tiles of %s", level.width, level.height, tiling.num_fused_iterations, tiling.tile)
        logger.info("batches of %d pairs, %d in flight, %.0f MiB each", fitting, self._num_lanes, needed / 2**20)
        self.plan = plan
        return lanes

    def _serve(self) -> None:
        """Let the batches in flight take turns until `stop` is called and all of them are finished."""
        working: list[tuple[Batch, Iterator[None]]] = []
        is_open = True
        fault: DeviceError | None = None  # after a failure, a device always returns the same error or, worse, none
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
                    error = ParameterError(f"{overflow}: TV-L1 diverges with these parameters; use those of a preset")
                except DeviceError as failure:
                    error = fault = failure
                except Exception as failure:
                    error = failure  # raised by `SubmittedFlow.result`
                working.remove(entry)
                self._finish(batch, error)
            if working:
                time.sleep(POLL_SECONDS)

    def _finish(self, batch: Batch, error: Exception | None) -> None:
        batch.error = error
        self.finished.put(batch)
        if self._on_batch is not None:
            self._on_batch()
