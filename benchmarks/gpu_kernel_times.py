"""Time each kernel of a batch on the GPU with CUDA events around every launch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from flowkit.flow.cuda.device import CudaDevice
from flowkit.flow.cuda.solver import CudaSolver
from flowkit.flow.params import TVL1Params

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from flowkit.flow.cuda.tiles import TileShape

# Memory traffic per pixel of a launch, as tvl1.cu documents it; the depth of a median counts u and v of each pair. How much `iterate`
# has to do is known only on the device, where its blocks share the pairs that still iterate.
BYTES_PER_PIXEL = {"load_frames": 5, "differentiate": 20, "warp": 40, "median_5": 8, "quantise_flow": 10}


@dataclass
class KernelTime:
    """The time of all launches of a kernel. The work counts all pairs of a launch, although some of them had stopped."""

    launches: int = 0
    milliseconds: float = 0.0
    gigabytes: float = 0.0


@dataclass(frozen=True)
class _Launch:
    kernel: str
    arguments: Mapping[str, float]
    depth: int
    before: Any
    after: Any


class _TimedDevice(CudaDevice):
    """A device that puts each launch between two events, and fills `times` when it closes."""

    def __init__(self, index: int, times: dict[str, KernelTime]) -> None:
        super().__init__(index)
        self.launches: list[_Launch] = []
        self._times = times

    def open_stream(self) -> Any:
        return _TimedStream(self, super().open_stream())

    def call(self, name: str, *arguments: Any) -> Any:
        error, *values = getattr(self._driver, name)(*arguments)
        assert not int(error), (name, error)
        return values[0] if values else None

    def close(self) -> None:
        for launch in self.launches:
            time = self._times.setdefault(launch.kernel, KernelTime())
            pixels = launch.arguments.get("width", 0) * launch.arguments.get("height", 0) * launch.depth
            time.launches += 1
            time.milliseconds += self.call("cuEventElapsedTime", launch.before, launch.after)
            time.gigabytes += pixels * BYTES_PER_PIXEL.get(launch.kernel, 0) / 1e9
        super().close()


class _TimedStream:
    def __init__(self, device: _TimedDevice, stream: Any) -> None:
        self._device, self._stream = device, stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def launch(
        self, kernel: str, grid: tuple[int, int, int], block: tuple[int, int], arguments: Mapping[str, float], tile: TileShape | None = None
    ) -> None:
        before = self._record()
        self._stream.launch(kernel, grid, block, arguments, tile)
        self._device.launches.append(_Launch(kernel, arguments, grid[2], before, self._record()))

    def _record(self) -> Any:
        event = self._device.call("cuEventCreate", 0)
        self._device.call("cuEventRecord", event, self._stream._handle)
        return event


def time_kernels(frames: NDArray[np.uint8], pairs: NDArray[np.int64], device: int, bound: float) -> dict[str, KernelTime]:
    """Return the times of one batch of all pairs, by kernel, after another batch that warmed the device up."""
    for _ in range(2):
        times: dict[str, KernelTime] = {}
        timed = partial(_TimedDevice, device, times)
        with CudaSolver(*frames.shape[1:], TVL1Params(), device=timed, bound=bound, max_pairs=len(pairs), num_lanes=1) as solver:
            solver.solve(frames, pairs)
    return times
