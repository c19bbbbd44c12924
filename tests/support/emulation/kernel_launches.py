"""Launches of `iterate` on the emulated device, with arrays as the solver lays them out, and small shapes of its block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from flowkit.flow.cuda.tiles import HALF_VARIANTS, TileShape, Tiling, halo_px

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from emulated_device import EmulatedDevice
    from numpy.typing import DTypeLike, NDArray

    Floats = NDArray[np.float32]

SMALL_TILE = TileShape(8, 4, 1)  # many tiles on a small frame
OF_TWO_ROWS, OF_ONE_ROW = TileShape(8, 8, 1, rows=2), TileShape(8, 16, 1, rows=1)  # patches
SHARED = TileShape(8, 8, 1, rows=2, shared_constants=True)
HALVES = [TileShape(8, 4, 1, half_dual=True), TileShape(8, 8, 1, rows=2, half_dual=True), *HALF_VARIANTS]
FLOW_HALF, DUAL_HALF, DUAL_IS_ZERO = 1, 2, 4


def addresses(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a kernel, with arrays as their addresses."""
    assert all(value.flags.c_contiguous for value in arguments.values() if isinstance(value, np.ndarray))
    return {name: value.ctypes.data if isinstance(value, np.ndarray) else value for name, value in arguments.items()}


def aligned(shape: tuple[int, ...], dtype: DTypeLike = np.float32, fill: float = np.nan) -> NDArray[Any]:
    """Return an array at a multiple of 256 bytes, like device memory."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.empty(count + 256, np.uint8)
    start = -raw.ctypes.data % 256
    array = raw[start : start + count].view(dtype).reshape(shape)
    array[...] = fill
    return array


def padded(planes: NDArray[Any]) -> Floats:
    """Return planes (..., h, w) padded to rows of a multiple of four floats, with the image at their right end; the padding is NaN."""
    *lead, height, width = planes.shape
    result = aligned((*lead, height, (width + 3) & ~3))
    result[..., result.shape[-1] - width :] = planes
    return result


def unpadded(planes: Floats, width: int) -> Floats:
    """Return padded planes without their padding."""
    return planes[..., planes.shape[-1] - width :]


def lists_of(pairs: Sequence[int], capacity: int, sequence: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the lists of pairs of three launches, of which that of `sequence` names these pairs, and their lengths."""
    lists, counts = np.full((3, capacity), -1, np.int32), np.zeros(3, np.int32)
    lists[sequence % 3, : len(pairs)] = pairs
    counts[sequence % 3] = len(pairs)
    return lists, counts


def iterate(
    device: EmulatedDevice,
    width: int,
    tile: TileShape,
    data: Floats,
    flow: Floats,
    dual: Floats,
    *,
    num_iterations: int,
    threshold: float,
    listed: Sequence[int],
    state: Sequence[int],
    sequence: int = 4,
    after_median: bool = False,
    num_blocks: int = 5,
    partial_errors: Floats | None = None,
) -> tuple[NDArray[np.int32], list[int], tuple[int, int]]:
    """Run `iterate` on padded arrays (2, n, planes, h, pitch); return (state, pairs that still iterate, progress).

    `partial_errors` (n, tiles) is an array to fill, if its content matters.
    """
    capacity, _, height, pitch = data.shape
    tiles_x, tiles_y = Tiling(tile, num_iterations).grid(pitch, height)
    halo_x, halo_y = halo_px(num_iterations)
    states = np.array(state, np.int32)
    lists, counts = lists_of(listed, capacity, sequence)
    counts[(sequence + 2) % 3] = 99
    if partial_errors is None:
        partial_errors = np.full((capacity, tiles_x * tiles_y), np.nan, np.float32)
    arrivals, progress = np.zeros(capacity, np.int32), np.zeros(1, np.uint64)
    arguments = {
        "width": width,
        "height": height,
        "capacity": capacity,
        "stride": height * pitch,
        "tiles_x": tiles_x,
        "tiles_y": tiles_y,
        "num_iterations": num_iterations,
        "halo_x": halo_x,
        "halo_y": halo_y,
        "after_median": int(after_median),
        "sequence": sequence,
        "lambda_theta": 0.045,
        "tau": 0.25,
        "tau_over_theta": 0.25 / 0.3,
        "threshold": threshold,
        "data": data,
        "dual": dual,
        "flow": flow,
        "state": states,
        "lists": lists,
        "counts": counts,
        "arrivals": arrivals,
        "partial_errors": partial_errors,
        "progress": progress,
    }
    device.run("iterate", (num_blocks, 1, 1), (tile.threads_x, tile.threads_y), addresses(arguments), tile)
    assert counts[(sequence + 2) % 3] == 0
    assert not arrivals.any()
    goes_on = lists[(sequence + 1) % 3, : counts[(sequence + 1) % 3]]
    return states, sorted(goes_on.tolist()), divmod(int(progress[0]), 1 << 32)


def iterate_inputs(random: np.random.Generator, height: int, width: int, capacity: int) -> tuple[Floats, Floats, Floats]:
    """Return random constants (gx, gy, rho), flow and dual variables of pairs, the first of which has a flat region."""
    shape = (capacity, height, width)
    gx, gy, rho = random.normal(0, 8, shape), random.normal(0, 8, shape), random.normal(0, 20, shape)
    gx[0, : height // 2], gy[0, : height // 2] = 0, 0  # a flat region: no data term
    data = np.stack([gx, gy, rho], axis=1).astype(np.float32)
    u = (
        cv2.blur(random.normal(0, 2, (height, width, 2 * capacity)), (3, 3))
        .transpose(2, 0, 1)
        .reshape(capacity, 2, height, width)
        .astype(np.float32)
    )
    p = random.uniform(-0.6, 0.6, (capacity, 4, height, width)).astype(np.float32)
    return data, u, p
