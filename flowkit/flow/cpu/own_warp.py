"""Our own warp of an image and its gradient by the flow, compiled: bicubic interpolation of whole vectors, without gathers.

Neighbouring pixels mostly move by the same whole number of pixels, or by two numbers that differ by 1. The windows of sixteen such
pixels are sixteen neighbours of each other, so vectors of the image are loaded as they lie in memory. Where two moves differ by 1, five
columns or rows are summed, of which each pixel gives one a weight of 0. Pixels of a block that move alike in this sense are a
group. Nearly every block is one group (97 % in real videos); a block of several is computed several times.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowkit.flow.cpu.fields import (
    COEFFICIENT_BLOCK,
    GRAD,
    IX,
    IY,
    RHO,
    STATE_BLOCK,
    FloatArray,
    U,
    V,
    Vector,
    coefficients_at,
    num_blocks,
    state_at,
)
from flowkit.flow.cpu.jit import compile_also, compile_kernel, compile_part
from flowkit.flow.cpu.shuffles import choose, first_of, keep_first, lanes_at_most, lanes_equal, window_sum
from flowkit.flow.cpu.simd import LANES, floor, load, multiply_add, nearest, reciprocal, splat, store

_FRAME_ROWS, _FRAME_COLUMNS = 4, 4 + LANES  # zeros around an image, as far as windows reach beyond it
_GROUP = 5  # numbers that describe a group: its block's x, its lanes, those further to the right, those further down, its first window
_WEIGHTS = 5 * LANES  # of five columns or rows
_ZERO, _HALF, _ONE, _TWO, _THREE = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2), np.float32(3)
_CUBIC_A = np.float32(-0.75)  # of the bicubic kernel
_SUBPIXELS = np.float32(32)
_FLT_EPSILON = np.float32(np.finfo(np.float32).eps)

IntArray = NDArray[np.int64]


@compile_also
def _framed_row(width: int) -> int:
    """Return the length of a row of an image with its frame."""
    return width + 2 * _FRAME_COLUMNS


@compile_also
def _framed_size(height: int, width: int) -> int:
    """Return the size of an image with its frame."""
    return (height + 2 * _FRAME_ROWS) * _framed_row(width)


class OwnWarp:
    """The warp compiled here, for images up to a size.

    If `rounded`, coordinates are rounded to 1/32 px, as in OpenCV 4. If not `exact`, the squared gradient is stored as its reciprocal.
    """

    def __init__(self, height: int, width: int, rounded: bool, exact: bool) -> None:
        self._rounded, self._exact = rounded, exact
        self._framed = np.empty(3 * _framed_size(height, width), np.float32)
        self._ramp = np.arange(width + LANES, dtype=np.float32)
        self._groups = np.empty(_GROUP * LANES * num_blocks(width), np.int64)
        self._scratch = np.empty(2 * _WEIGHTS + 5 * LANES * num_blocks(width), np.float32)

    def set_image(self, image_1: FloatArray, height: int, width: int) -> None:
        _set_framed(image_1, self._framed, height, width)

    def linearise(self, fields: FloatArray, state: int, image_0: FloatArray, height: int, width: int) -> None:
        _warp_and_linearise(
            fields, state, self._framed, self._scratch, self._groups, self._ramp, image_0, height, width, self._rounded, self._exact
        )


@compile_kernel
def _set_framed(image: FloatArray, framed: FloatArray, height: int, width: int) -> None:
    """Set I, dI/dx and dI/dy, each in a frame of zeros; differences are central, and border pixels are repeated for them.

    `image` has 16 more values than the image.
    """
    row, plane, half = _framed_row(width), _framed_size(height, width), splat(_HALF)
    for i in range(3 * plane):
        framed[i] = _ZERO
    for y in range(-1, height + 1):
        start, to = min(max(y, 0), height - 1) * width, (y + _FRAME_ROWS) * row + _FRAME_COLUMNS
        for x in range(0, width, LANES):
            store(framed, to + x, keep_first(load(image, start + x), width - x))
        framed[to - 1], framed[to + width] = image[start], image[start + width - 1]
    for y in range(height):
        for x in range(0, width, LANES):
            at = (y + _FRAME_ROWS) * row + _FRAME_COLUMNS + x
            store(framed, at + plane, keep_first(half * (load(framed, at + 1) - load(framed, at - 1)), width - x))
            store(framed, at + 2 * plane, keep_first(half * (load(framed, at + row) - load(framed, at - row)), width - x))
    for x in range(width):  # the border of the image becomes a part of the frame
        framed[(_FRAME_ROWS - 1) * row + _FRAME_COLUMNS + x] = framed[(_FRAME_ROWS + height) * row + _FRAME_COLUMNS + x] = _ZERO
    for y in range(-1, height + 1):
        to = (y + _FRAME_ROWS) * row + _FRAME_COLUMNS
        framed[to - 1] = framed[to + width] = _ZERO


@compile_part
def set_coefficients(S: FloatArray, at: int, i1: Vector, ix: Vector, iy: Vector, u: Vector, v: Vector, i0: Vector, exact: bool) -> None:
    """Set a block of the coefficients of rho(u) (eq. 9); if not `exact`, the squared gradient is stored as its reciprocal."""
    grad = ix * ix + iy * iy
    store(S, at + IX, ix)
    store(S, at + IY, iy)
    store(S, at + RHO, ((i1 - ix * u) - iy * v) - i0)
    store(S, at + GRAD, grad if exact else reciprocal(grad + splat(_FLT_EPSILON)))


@compile_part
def _set_weights(scratch: FloatArray, at: int, t: Vector, further: int) -> None:
    """Write the bicubic weights (a = -0.75) of five neighbours of points at t in [0, 1).

    They are those of the last four neighbours in the lanes that are `further`, and of the first four in the others.
    """
    one, a, zero = splat(_ONE), splat(_CUBIC_A), splat(_ZERO)
    rest = one - t
    first, last = a * (t * (rest * rest)), a * (rest * (t * t))
    second = multiply_add(multiply_add(a + splat(_TWO), t, zero - (a + splat(_THREE))), t * t, one)
    third = one - first - second - last
    store(scratch, at, choose(further, zero, first))
    store(scratch, at + LANES, choose(further, first, second))
    store(scratch, at + 2 * LANES, choose(further, second, third))
    store(scratch, at + 3 * LANES, choose(further, third, last))
    store(scratch, at + 4 * LANES, choose(further, last, zero))


@compile_kernel
def _warp_and_linearise(
    S: FloatArray,
    state: int,
    framed: FloatArray,
    scratch: FloatArray,
    groups: IntArray,
    ramp: FloatArray,
    image_0: FloatArray,
    height: int,
    width: int,
    rounded: bool,
    exact: bool,
) -> None:
    """Do what OpenCV's bicubic remap and the linearisation of rho do, in the order of OpenCV 5's float operations.

    `framed` is as `_set_framed` leaves it; `ramp` is 0, 1, 2, ... Each row is done in three passes, over its blocks, over their
    groups and over its blocks again, so that the processor need not wait for the long decision which pixels are a group.
    """
    row, framed_row, framed_size = LANES * num_blocks(width), _framed_row(width), _framed_size(height, width)
    fine, unit, one, zero = splat(_SUBPIXELS), splat(_ONE / _SUBPIXELS), splat(_ONE), splat(_ZERO)
    # A window outside these bounds lies outside the image, where the result is 0.
    least, most_right, most_low = splat(-_TWO), splat(np.float32(width)), splat(np.float32(height))
    within_x, within_y, warped = 2 * _WEIGHTS, 2 * _WEIGHTS + row, 2 * _WEIGHTS + 2 * row
    for y in range(height):
        here = splat(np.float32(y))
        end = 0
        for block in range(num_blocks(width)):
            x, at = LANES * block, state_at(state, y, height, width) + block * STATE_BLOCK
            to_x, to_y = load(ramp, x) + load(S, at + U), here + load(S, at + V)
            if rounded:
                to_x, to_y = nearest(to_x * fine) * unit, nearest(to_y * fine) * unit
            left, top = floor(to_x), floor(to_y)
            store(scratch, within_x + x, to_x - left)
            store(scratch, within_y + x, to_y - top)
            for channel in range(3):
                store(scratch, warped + channel * row + x, zero)
            move_x, move_y = left - load(ramp, x), top - here
            waiting = (1 << min(LANES, width - x)) - 1
            waiting &= lanes_at_most(least, left) & lanes_at_most(left, most_right)
            waiting &= lanes_at_most(least, top) & lanes_at_most(top, most_low)
            while waiting:
                base_x, base_y = first_of(waiting, move_x), first_of(waiting, move_y)
                base_x -= np.float32((waiting & lanes_equal(move_x, splat(base_x) - one)) != 0)
                base_y -= np.float32((waiting & lanes_equal(move_y, splat(base_y) - one)) != 0)
                right, low = lanes_equal(move_x, splat(base_x) + one), lanes_equal(move_y, splat(base_y) + one)
                now = waiting & (right | lanes_equal(move_x, splat(base_x))) & (low | lanes_equal(move_y, splat(base_y)))
                groups[end], groups[end + 1], groups[end + 2], groups[end + 3] = x, now, right, low
                groups[end + 4] = (y + int(base_y) - 1 + _FRAME_ROWS) * framed_row + x + int(base_x) - 1 + _FRAME_COLUMNS
                end += _GROUP
                waiting &= ~now
        for at in range(0, end, _GROUP):
            x, now, right, low, first = groups[at], groups[at + 1], groups[at + 2], groups[at + 3], groups[at + 4]
            five_columns, five_rows = (now & right) != 0, (now & low) != 0
            _set_weights(scratch, 0, load(scratch, within_x + x), right)
            _set_weights(scratch, _WEIGHTS, load(scratch, within_y + x), low)
            i1 = window_sum(framed, first, framed_row, scratch, 0, five_columns, five_rows)
            ix = window_sum(framed, first + framed_size, framed_row, scratch, 0, five_columns, five_rows)
            iy = window_sum(framed, first + 2 * framed_size, framed_row, scratch, 0, five_columns, five_rows)
            to = warped + x
            store(scratch, to, choose(now, i1, load(scratch, to)))
            store(scratch, to + row, choose(now, ix, load(scratch, to + row)))
            store(scratch, to + 2 * row, choose(now, iy, load(scratch, to + 2 * row)))
        for block in range(num_blocks(width)):
            x, at = LANES * block, state_at(state, y, height, width) + block * STATE_BLOCK
            i1, ix, iy = load(scratch, warped + x), load(scratch, warped + row + x), load(scratch, warped + 2 * row + x)
            to = coefficients_at(y, width) + block * COEFFICIENT_BLOCK
            set_coefficients(S, to, i1, ix, iy, load(S, at + U), load(S, at + V), load(image_0, y * width + x), exact)
