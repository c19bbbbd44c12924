"""The arrays of TV-L1 at one scale, in one flat array of blocks: the layout that all compiled kernels share.

A block holds sixteen neighbouring pixels of a row, and all values of one kind that the kernels need there, one vector after
another. So a kernel that walks along a row reads and writes a few contiguous streams, with offsets that it knows when it is
compiled, instead of twenty rows of separate images. There are three parts, each of which has a block for each sixteen pixels of each
row: the coefficients of the linearised brightness difference, and two states (u, v and the dual field p), because a pass of several
iterations reads one and writes the other. The lanes after the last column have no meaning.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.flow.cpu.jit import compile_also, compile_kernel
from flowkit.flow.cpu.simd import LANES, load, store

FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]
Vector = Any  # sixteen float32; exists in compiled code only

# Offsets of vectors within a block of the coefficients, and their number in all.
IX, IY, RHO, GRAD, SQUARES, COEFFICIENT_BLOCK = range(0, 6 * LANES, LANES)
# Offsets within a block of a state.
U, V, P11, P12, P21, P22, STATE_BLOCK = range(0, 7 * LANES, LANES)

_GAP = 5 * LANES  # keeps the same pixel of the two states out of the same cache sets


@compile_also
def num_blocks(width: int) -> int:
    """Return the number of blocks in a row of `width` pixels."""
    return (width + LANES - 1) // LANES


@compile_also
def coefficients_at(y: int, width: int) -> int:
    """Return the index of a row's first block of coefficients."""
    return y * num_blocks(width) * COEFFICIENT_BLOCK


@compile_also
def state_at(state: int, y: int, height: int, width: int) -> int:
    """Return the index of a row's first block of state 0 or 1."""
    blocks = num_blocks(width)
    start = height * blocks * COEFFICIENT_BLOCK + state * (height * blocks * STATE_BLOCK + _GAP)
    return start + y * blocks * STATE_BLOCK


def make_fields(height: int, width: int) -> FloatArray:
    """Return the array for an image, filled with 0. It begins at a multiple of 64 bytes, so that a vector lies in one cache line."""
    size = state_at(1, height, height, width)
    flat = np.zeros(size + LANES, np.float32)
    start = -flat.ctypes.data % 64 // 4
    return flat[start : start + size]


def clear_state(fields: FloatArray, height: int, width: int) -> None:
    """Set u, v and p of state 0 to 0."""
    fields[state_at(0, 0, height, width) : state_at(0, height, height, width)] = 0


@compile_kernel
def _copy_image(
    source: FloatArray, start: int, row: int, step: int, target: FloatArray, to: int, to_row: int, to_step: int, height: int, width: int
) -> None:
    """Copy an image; rows, and each sixteen pixels of a row, have the given distances in the source and in the target."""
    whole = width // LANES
    for y in range(height):
        for block in range(whole):
            store(target, to + y * to_row + block * to_step, load(source, start + y * row + block * step))
        for lane in range(width - whole * LANES):
            target[to + y * to_row + whole * to_step + lane] = source[start + y * row + whole * step + lane]


def write_flow(fields: FloatArray, state: int, flow: FloatArray, height: int, width: int) -> None:
    """Set u and v of a state to a flow, which is flat: an image of u and one of v."""
    at, row = state_at(state, 0, height, width), num_blocks(width) * STATE_BLOCK
    for start, offset in ((0, U), (height * width, V)):
        _copy_image(flow, start, width, LANES, fields, at + offset, row, STATE_BLOCK, height, width)


def read_flow(fields: FloatArray, state: int, flow: FloatArray, height: int, width: int) -> None:
    """Copy u and v of a state to a flat array; see `write_flow`."""
    at, row = state_at(state, 0, height, width), num_blocks(width) * STATE_BLOCK
    for to, offset in ((0, U), (height * width, V)):
        _copy_image(fields, at + offset, row, STATE_BLOCK, flow, to, width, LANES, height, width)


def coefficient_images(fields: FloatArray, height: int, width: int) -> FloatArray:
    """Return copies of Ix, Iy, rho and the squared gradient as images, float32 (4, H, W)."""
    blocks = fields[: coefficients_at(height, width)].reshape(height, num_blocks(width), -1, LANES)
    rows: FloatArray = blocks.transpose(2, 0, 1, 3).reshape(-1, height, num_blocks(width) * LANES)
    return rows[: SQUARES // LANES, :, :width]
