"""A stand-in for the GPU's solver, in a module of its own, which the process of a device can import."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from flowkit.errors import DeviceError, ParameterError
from flowkit.flow.cuda.service import MAX_IN_FLIGHT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from flowkit.dataset.settings import ExtractSettings


class Batch:
    """Solved when `work` is called, a moment later."""

    def __init__(self, work: Callable[[], None], on_batch: Callable[[], None]) -> None:
        self.thread = threading.Timer(0.002, self.run, (work, on_batch))  # so that requests meet
        self.finished = threading.Event()
        self.thread.start()

    def run(self, work: Callable[[], None], on_batch: Callable[[], None]) -> None:
        work()
        self.finished.set()
        on_batch()

    def is_finished(self) -> bool:
        return self.finished.is_set()

    def result(self) -> None:
        self.finished.wait()


class Difference:
    """Channel 0 is the difference of the two frames, and channel 1 the size of the batch, or else the first frame."""

    num_made = 0
    num_open = 0

    def __init__(
        self,
        height: int,
        width: int,
        *,
        on_batch: Callable[[], None],
        worst: int = 0,
        refused: int = 0,
        max_open: int = 100,
        max_pairs: int = 20,
        says_size: bool = True,
    ) -> None:
        if height == refused:
            raise ParameterError("frames of this size are refused")
        if height == worst or Difference.num_open >= max_open:
            raise DeviceError("out of memory")
        Difference.num_open += 1
        Difference.num_made += 1
        self.height, self.width, self.on_batch, self.max_pairs = height, width, on_batch, max_pairs
        self.says_size = says_size
        self.is_cramped = Difference.num_open == max_open
        self.batches: list[Batch] = []

    def submit(self, frames: Sequence[NDArray[np.uint8]], pairs: NDArray[np.int64], out: Sequence[NDArray[np.uint8]]) -> Batch:
        taken = np.stack(frames)  # the answer may go to the same memory
        assert taken.shape[1:] == (self.height, self.width)
        assert len(pairs) == len(out)
        assert sum(not batch.is_finished() for batch in self.batches) < MAX_IN_FLIGHT

        def work() -> None:
            for (first, second), field in zip(pairs, out, strict=True):
                field[0] = taken[second] - taken[first]
                field[1] = taken[first] if not self.says_size else Difference.num_made if len(pairs) == 1 else len(pairs)

        self.batches.append(Batch(work, self.on_batch))
        return self.batches[-1]

    def close(self) -> None:
        assert all(batch.is_finished() for batch in self.batches)
        Difference.num_open -= 1


def steady_solver(settings: ExtractSettings, device: int, height: int, width: int, *, on_batch: Callable[[], None]) -> Difference:
    """Make a solver whose flow depends on the two frames of a pair alone, as that of a GPU does."""
    return Difference(height, width, on_batch=on_batch, says_size=False)


class Gated(Difference):
    """Solves some batches, makes a file ``.held`` beside `gate`, and goes on once `gate` exists."""

    def __init__(self, *size: int, gate: Path, num_before: int, **others: Any) -> None:
        super().__init__(*size, **others)
        self.gate, self.left = gate, num_before

    def submit(self, frames: Sequence[NDArray[np.uint8]], pairs: NDArray[np.int64], out: Sequence[NDArray[np.uint8]]) -> Batch:
        self.left -= 1
        if self.left < 0:
            self.gate.with_suffix(".held").touch()
        while self.left < 0 and not self.gate.exists():
            time.sleep(0.001)
        return super().submit(frames, pairs, out)


def gated_solver(
    settings: ExtractSettings, device: int, height: int, width: int, *, on_batch: Callable[[], None], gate: Path, num_before: int
) -> Difference:
    """Make a steady solver that stops after some batches until a file exists."""
    return Gated(height, width, on_batch=on_batch, says_size=False, gate=gate, num_before=num_before)


def steady_flow(grey: NDArray[np.uint8], *, are_pairs: bool = False) -> NDArray[np.uint8]:
    """Return the flow of that solver, (m, 2, H, W), between consecutive frames or of pairs of frames."""
    first, second = (grey[::2], grey[1::2]) if are_pairs else (grey[:-1], grey[1:])
    return np.stack([second - first, first], axis=1)
