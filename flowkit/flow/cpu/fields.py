"""The fields of TV-L1 at one scale, as planes of one flat array: the layout that all compiled kernels share.

A plane has a row of zeros above the image. A row has `PAD` zeros before its first pixel, and its length is a multiple of 16.
So every neighbour can be loaded without a test, and ``p[-1]`` is the 0 that the divergence needs. The values after the last
column, up to the next multiple of 16, are undefined.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.flow.cpu.jit import compile_also
from flowkit.flow.cpu.simd import LANES

FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]
Vector = Any  # sixteen float32; exists in compiled code only

# The state (u, v and the dual field p) exists twice: a block of iterations reads one copy and writes the other.
IX, IY, RHO, GRAD, SQUARES = range(5)
STATES = (5, 11)
U, V, P11, P12, P21, P22 = range(6)  # within a state
NUM_PLANES = 17
PAD = LANES


@compile_also
def row_stride(width: int) -> int:
    """Return the length of a padded row of `width` pixels."""
    return PAD + (width + LANES - 1) // LANES * LANES


@compile_also
def plane_size(height: int, width: int) -> int:
    """Return the length of a plane; the odd remainder keeps the rows of different planes out of the same cache sets."""
    return (height + 2) * row_stride(width) + 5 * LANES


def make_fields(height: int, width: int) -> FloatArray:
    """Return all planes of an image, filled with 0. They begin at a multiple of 64 bytes, so that a vector lies in one cache line."""
    size = NUM_PLANES * plane_size(height, width) + LANES
    flat = np.zeros(size + LANES, np.float32)
    start = -flat.ctypes.data % 64 // 4
    return flat[start : start + size]


def clear_states(fields: FloatArray, height: int, width: int) -> None:
    """Set u, v and p to 0, together with the padding around them."""
    plane = plane_size(height, width)
    fields[STATES[0] * plane : NUM_PLANES * plane] = 0


def images(fields: FloatArray, height: int, width: int) -> FloatArray:
    """Return the planes as images (`NUM_PLANES`, H, W): views of `fields`, which may have been made for a larger size."""
    plane, stride = plane_size(height, width), row_stride(width)
    rows = fields[: NUM_PLANES * plane].reshape(NUM_PLANES, plane)[:, : (height + 2) * stride]
    return rows.reshape(NUM_PLANES, height + 2, stride)[:, 1:-1, PAD : PAD + width]
