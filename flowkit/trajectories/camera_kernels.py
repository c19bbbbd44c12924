"""Two steps of the camera's motion, compiled: nearest descriptors, and which pixels of a warped frame are used."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowkit.flow.cpu.fields import FloatArray
from flowkit.flow.cpu.jit import compile_kernel
from flowkit.flow.cpu.simd import LANES, load, splat, total


@compile_kernel
def find_nearest(
    previous: FloatArray,
    previous_descriptors: FloatArray,
    current: FloatArray,
    current_descriptors: FloatArray,
    search_px: np.float32,
    nearest: NDArray[np.int64],
) -> None:
    """Set, for each current point, the number of the previous one near it whose descriptor is nearest (L2); -1 if none is near.

    Points are (n, 2) arrays, near if they are less than `search_px` apart along x and along y; descriptors are flat, with a multiple
    of 16 values each. Of equally near descriptors the first is taken. Distances of whole numbers are exact up to 2**24.
    """
    size = current_descriptors.size // max(len(current), 1)
    for i in range(len(current)):
        best, smallest = -1, np.float32(np.inf)
        for j in range(len(previous)):
            if abs(current[i, 0] - previous[j, 0]) >= search_px or abs(current[i, 1] - previous[j, 1]) >= search_px:
                continue
            squares = splat(np.float32(0))
            for k in range(0, size, LANES):
                difference = load(current_descriptors, i * size + k) - load(previous_descriptors, j * size + k)
                squares = squares + difference * difference
            distance = total(squares)
            if distance < smallest:
                best, smallest = j, distance
        nearest[i] = best


@compile_kernel
def keep_previous_outside(previous: NDArray[np.uint8], warped: NDArray[np.uint8], matrix: NDArray[np.float64], rim_px: int) -> None:
    """Replace the pixels of a warped frame (H, W) by the previous one's where the matrix leads to `rim_px` or less inside the frame."""
    height, width = previous.shape
    most_x, most_y = width - 1 - rim_px, height - 1 - rim_px
    for y in range(height):
        x_0, y_0, w_0 = matrix[0, 1] * y + matrix[0, 2], matrix[1, 1] * y + matrix[1, 2], matrix[2, 1] * y + matrix[2, 2]
        for x in range(width):
            w = matrix[2, 0] * x + w_0
            to_x, to_y = (matrix[0, 0] * x + x_0) / w, (matrix[1, 0] * x + y_0) / w
            is_inside = (to_x > rim_px) & (to_x < most_x) & (to_y > rim_px) & (to_y < most_y)
            warped[y, x] = warped[y, x] if is_inside else previous[y, x]
