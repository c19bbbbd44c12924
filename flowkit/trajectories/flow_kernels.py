"""Farneback's flow of one level, compiled: polynomial expansion, and one iteration in a single pass over the rows.

Each step computes what the function of the same name in `flow_reference` does, for sixteen pixels at a time. An iteration keeps only
the eleven rows of equations that the blur needs, so that they stay in the processor's cache.

All arrays are flat. A row of an image has `row_length` values, so that at least one follows the last column; what is there is
undefined but finite. An expansion holds four interleaved channels (b_x, b_y, a_xx, a_yy) and then a_xy as a plane, each with a row of
zeros below the image, so that every pixel has a neighbour.
"""

from __future__ import annotations

import numpy as np

from flowkit.flow.cpu.fields import FloatArray, Vector
from flowkit.flow.cpu.jit import compile_also, compile_kernel, compile_part
from flowkit.flow.cpu.shuffles import interpolate_linearly, load_every_fourth, store_interleaved, store_pairs
from flowkit.flow.cpu.simd import LANES, difference_of_products, floor, larger, load, multiply_add, smaller, splat, store, where_less
from flowkit.trajectories.flow_reference import BLUR_RADIUS, EXPANSION_RADIUS, REGULARISER

PAD = LANES  # values before and after a row that is filtered along x
EXPANSION_SCRATCH_ROWS = 3
ITERATION_SCRATCH_ROWS = 5 * (2 * BLUR_RADIUS + 1) + 5 + 12

_ROWS = 2 * BLUR_RADIUS + 1
_EQUATIONS = 5
_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_REGULARISER = np.float32(REGULARISER)
_B_X, _B_Y, _A_XX, _A_YY = load_every_fourth


@compile_also
def row_length(width: int) -> int:
    """Return the distance between the rows of an image: the next multiple of 16 above its width."""
    return (width + LANES) // LANES * LANES


@compile_also
def scratch_length(width: int) -> int:
    """Return the length of a row of the scratch memory."""
    return row_length(width) + 2 * PAD


@compile_also
def plane_length(height: int, width: int) -> int:
    """Return the length of a plane of an expansion."""
    return (height + 1) * row_length(width)


@compile_part
def _repeat_ends(scratch: FloatArray, at: int, width: int, num: int) -> None:
    """Repeat the first and the last pixel of the row that begins at `at`."""
    for k in range(1, num + 1):
        scratch[at - k] = scratch[at]
        scratch[at + width - 1 + k] = scratch[at + width - 1]


@compile_kernel
def expand(
    image: FloatArray, expansion: FloatArray, scratch: FloatArray, kernels: FloatArray, factors: FloatArray, height: int, width: int
) -> None:
    """Set the polynomial expansion of an image, whose rows follow each other without a gap and after which 16 more values can be read.

    `kernels` holds the weights w, x w and x**2 w for x from 0 on; `factors` the entries of the inverse for x, 1 with x**2, x**2, and
    x y. `scratch` has room for `EXPANSION_SCRATCH_ROWS` rows.
    """
    row, length = row_length(width), scratch_length(width)
    singles = 4 * plane_length(height, width)
    zeroth, first, second = PAD, length + PAD, 2 * length + PAD
    f_x, f_1xx, f_xx, f_xy = splat(factors[0]), splat(factors[1]), splat(factors[2]), splat(factors[3])
    for y in range(height):
        for x in range(0, width, LANES):
            m_0 = load(image, y * width + x) * splat(kernels[0])
            m_1, m_2 = splat(_ZERO), splat(_ZERO)
            for k in range(1, EXPANSION_RADIUS + 1):
                above, below = load(image, max(y - k, 0) * width + x), load(image, min(y + k, height - 1) * width + x)
                both = below + above
                m_0 = multiply_add(both, splat(kernels[k]), m_0)
                m_1 = multiply_add(below - above, splat(kernels[k + EXPANSION_RADIUS + 1]), m_1)
                m_2 = multiply_add(both, splat(kernels[k + 2 * EXPANSION_RADIUS + 2]), m_2)
            store(scratch, zeroth + x, m_0)
            store(scratch, first + x, m_1)
            store(scratch, second + x, m_2)
        for at in (zeroth, first, second):
            _repeat_ends(scratch, at, width, EXPANSION_RADIUS)
        for x in range(0, width, LANES):
            m_00 = load(scratch, zeroth + x) * splat(kernels[0])
            m_01 = load(scratch, first + x) * splat(kernels[0])
            m_02 = load(scratch, second + x) * splat(kernels[0])
            m_10, m_20, m_11 = splat(_ZERO), splat(_ZERO), splat(_ZERO)
            for k in range(1, EXPANSION_RADIUS + 1):
                w, x_w, xx_w = (splat(kernels[k]), splat(kernels[k + EXPANSION_RADIUS + 1]), splat(kernels[k + 2 * EXPANSION_RADIUS + 2]))
                left, right = load(scratch, zeroth + x - k), load(scratch, zeroth + x + k)
                both = right + left
                m_00 = multiply_add(both, w, m_00)
                m_10 = multiply_add(right - left, x_w, m_10)
                m_20 = multiply_add(both, xx_w, m_20)
                left, right = load(scratch, first + x - k), load(scratch, first + x + k)
                m_01 = multiply_add(right + left, w, m_01)
                m_11 = multiply_add(right - left, x_w, m_11)
                m_02 = multiply_add(load(scratch, second + x - k) + load(scratch, second + x + k), w, m_02)
            constant = m_00 * f_1xx
            at = y * row + x
            store_interleaved(
                expansion, 4 * at, m_10 * f_x, m_01 * f_x, multiply_add(m_20, f_xx, constant), multiply_add(m_02, f_xx, constant)
            )
            store(expansion, singles + at, m_11 * f_xy)


@compile_part
def _sample_row(
    second: FloatArray, flow: FloatArray, longer: Vector, scratch: FloatArray, at: int, ramp: FloatArray, y: int, height: int, width: int
) -> None:
    """Sample the second expansion where the flow of row y, times `longer`, leads.

    From `at` on, `scratch` receives four rows of interleaved channels, a row of a_xy, and a row of whether the sample lies inside (1 or
    0); six more rows are for columns, rows and weights.
    """
    row, length = row_length(width), scratch_length(width)
    plane = plane_length(height, width)
    sampled_singles, inside, columns, rows, weights = at + 4 * length, at + 5 * length, at + 6 * length, at + 7 * length, at + 8 * length
    zero, one = splat(_ZERO), splat(_ONE)
    last_column, last_row = splat(np.float32(width - 1)), splat(np.float32(height - 1))
    most_left, most_top = splat(np.float32(max(width - 2, 0))), splat(np.float32(max(height - 2, 0)))
    for x in range(0, width, LANES):
        to_x = load(flow, y * row + x) * longer + load(ramp, x)
        to_y = load(flow, plane + y * row + x) * longer + splat(np.float32(y))
        left, top = floor(to_x), floor(to_y)
        is_inside = where_less(left, last_column, where_less(top, last_row, one, zero), zero)
        is_inside = where_less(left, zero, zero, where_less(top, zero, zero, is_inside))
        store(scratch, inside + x, is_inside)
        store(scratch, columns + x, larger(smaller(left, most_left), zero))
        store(scratch, rows + x, larger(smaller(top, most_top), zero))
        right_weight, low_weight = to_x - left, to_y - top
        left_weight, top_weight = one - right_weight, one - low_weight
        store_interleaved(
            scratch,
            weights + 4 * x,
            left_weight * top_weight,
            right_weight * top_weight,
            left_weight * low_weight,
            right_weight * low_weight,
        )
    for x in range(width):
        pixel = int(scratch[rows + x]) * row + int(scratch[columns + x])
        interpolate_linearly(second, pixel, row, 4 * plane, scratch, weights + 4 * x, at + 4 * x, sampled_singles + x)


@compile_part
def _set_equations(
    first: FloatArray,
    flow: FloatArray,
    longer: Vector,
    scratch: FloatArray,
    equations: int,
    sampled: int,
    rim: FloatArray,
    y: int,
    height: int,
    width: int,
) -> None:
    """Write the five rows of equations of row y from `equations` on, given what `_sample_row` has written from `sampled` on."""
    row, length = row_length(width), scratch_length(width)
    plane = plane_length(height, width)
    half, one = splat(_HALF), splat(_ONE)
    weight_y = splat(rim[row + y])
    for x in range(0, width, LANES):
        at, moved = y * row + x, sampled + 4 * x
        u, v = load(flow, at) * longer, load(flow, plane + at) * longer
        inside = load(scratch, sampled + 5 * length + x)
        of_second = half * inside
        of_first = one - of_second
        a_xx = _A_XX(first, 4 * at) * of_first + _A_XX(scratch, moved) * of_second
        a_yy = _A_YY(first, 4 * at) * of_first + _A_YY(scratch, moved) * of_second
        a_xy = (load(first, 4 * plane + at) * of_first + load(scratch, sampled + 4 * length + x) * of_second) * half
        db_x = multiply_add(a_xx, u, multiply_add(a_xy, v, half * _B_X(first, 4 * at) - of_second * _B_X(scratch, moved)))
        db_y = multiply_add(a_xy, u, multiply_add(a_yy, v, half * _B_Y(first, 4 * at) - of_second * _B_Y(scratch, moved)))
        weight = load(rim, x) * weight_y
        a_xy_squared = a_xy * a_xy
        store(scratch, equations + x, weight * multiply_add(a_xx, a_xx, a_xy_squared))
        store(scratch, equations + length + x, weight * ((a_xx + a_yy) * a_xy))
        store(scratch, equations + 2 * length + x, weight * multiply_add(a_yy, a_yy, a_xy_squared))
        store(scratch, equations + 3 * length + x, weight * multiply_add(a_xx, db_x, a_xy * db_y))
        store(scratch, equations + 4 * length + x, weight * multiply_add(a_xy, db_x, a_yy * db_y))


@compile_part
def _blurred(scratch: FloatArray, at: int, weights: FloatArray) -> Vector:
    """Return sixteen values of a row, blurred along x."""
    total = load(scratch, at) * splat(weights[0])
    for k in range(1, BLUR_RADIUS + 1):
        total = multiply_add(load(scratch, at - k) + load(scratch, at + k), splat(weights[k]), total)
    return total


@compile_kernel
def iterate(
    first: FloatArray,
    second: FloatArray,
    flow: FloatArray,
    factor: np.float32,
    scratch: FloatArray,
    weights: FloatArray,
    rim: FloatArray,
    ramp: FloatArray,
    height: int,
    width: int,
) -> None:
    """Replace a flow, times a factor, by that of the next iteration: equations, blur and solution.

    `flow` holds two planes of the length of an expansion's; `weights` those of the blur, from the centre outwards; `rim` the squared
    weights of the columns, padded to a row, and then those of the rows; `ramp` is 0, 1, 2, ...; `scratch` has room for
    `ITERATION_SCRATCH_ROWS` rows.
    """
    row, length = row_length(width), scratch_length(width)
    plane = plane_length(height, width)
    blurred = _EQUATIONS * _ROWS * length + PAD
    sampled = blurred + _EQUATIONS * length
    longer = splat(factor)
    for below in range(height + BLUR_RADIUS):
        if below < height:
            _sample_row(second, flow, longer, scratch, sampled, ramp, below, height, width)
            _set_equations(first, flow, longer, scratch, (below % _ROWS) * _EQUATIONS * length + PAD, sampled, rim, below, height, width)
        y = below - BLUR_RADIUS
        if y < 0:
            continue
        for equation in range(_EQUATIONS):
            at = blurred + equation * length
            for x in range(0, width, LANES):
                total = load(scratch, ((y % _ROWS) * _EQUATIONS + equation) * length + PAD + x) * splat(weights[0])
                for k in range(1, BLUR_RADIUS + 1):
                    upper, lower = max(y - k, 0) % _ROWS, min(y + k, height - 1) % _ROWS
                    both = load(scratch, (upper * _EQUATIONS + equation) * length + PAD + x) + load(
                        scratch, (lower * _EQUATIONS + equation) * length + PAD + x
                    )
                    total = multiply_add(both, splat(weights[k]), total)
                store(scratch, at + x, total)
            _repeat_ends(scratch, at, width, BLUR_RADIUS)
        for x in range(0, width, LANES):
            g_xx = _blurred(scratch, blurred + x, weights)
            g_xy = _blurred(scratch, blurred + length + x, weights)
            g_yy = _blurred(scratch, blurred + 2 * length + x, weights)
            h_x = _blurred(scratch, blurred + 3 * length + x, weights)
            h_y = _blurred(scratch, blurred + 4 * length + x, weights)
            determinant = difference_of_products(g_xx, g_yy, g_xy, g_xy) + splat(_REGULARISER)
            store(flow, y * row + x, difference_of_products(g_yy, h_x, g_xy, h_y) / determinant)
            store(flow, plane + y * row + x, difference_of_products(g_xx, h_y, g_xy, h_x) / determinant)


@compile_kernel
def interleave(flow: FloatArray, result: FloatArray, height: int, width: int) -> None:
    """Write both components of each pixel side by side, without gaps between the rows; 32 more values may be overwritten."""
    row, plane = row_length(width), plane_length(height, width)
    for y in range(height):
        for x in range(0, width, LANES):
            store_pairs(result, 2 * (y * width + x), load(flow, y * row + x), load(flow, plane + y * row + x))
