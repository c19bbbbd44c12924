"""The inner loop of TV-L1, compiled: primal and dual updates fused into one pass over the rows, in place.

All fields of a pyramid level live in one flat float32 array of equal planes (`FIELDS`). A plane has a row of zeros above the
image; a row has `PAD` zeros before its first pixel, and its length is a multiple of 16. So every neighbour can be loaded
without a test, and ``p[-1]`` is the 0 that the divergence asks for.

Equation numbers are those of Sanchez, Meinhardt-Llopis, Facciolo, "TV-L1 optical flow estimation", IPOL 2013,
doi:10.5201/ipol.2013.26; the order of the float operations is that of OpenCV's DualTVL1OpticalFlow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.flow.jit import compile_kernel, compile_part
from flowkit.flow.simd import (
    LANES,
    approximate_reciprocal,
    approximate_reciprocal_root,
    hypot,
    keep_first,
    load,
    multiply_add,
    replace_lane_0,
    splat,
    store,
    total,
    where_less,
)

FloatArray = NDArray[np.float32]
Vector = Any  # sixteen float32; exists in compiled code only

IX, IY, RHO, GRAD, U, V, P11, P12, P21, P22, SQUARES = range(11)
NUM_FIELDS = 11
PAD = LANES
FLT_EPSILON = np.float32(np.finfo(np.float32).eps)
ONE = np.float32(1)
ZERO = np.float32(0)
TINY = np.float32(1e-30)  # keeps the approximate root of 0 finite


def row_stride(width: int) -> int:
    """Return the length of a padded row of `width` pixels."""
    return PAD + -(-width // LANES) * LANES


def plane_size(height: int, width: int) -> int:
    """Return the length of a plane; the odd number of rows in excess keeps planes apart in the cache's sets."""
    return (height + 2) * row_stride(width) + 5 * LANES


@compile_part
def _primal_block(
    S: FloatArray, at: int, stride: int, plane: int, l_t: Vector, theta: Vector, exact: bool, edge: bool, is_first: bool, count: int
) -> Vector:
    """Update u of sixteen pixels; return their squared updates. At an `edge` only the first `count` lanes are pixels."""
    zero = splat(ZERO)
    ix, iy, grad = load(S, at + IX * plane), load(S, at + IY * plane), load(S, at + GRAD * plane)
    u, v = load(S, at + U * plane), load(S, at + V * plane)
    rho = load(S, at + RHO * plane) + (ix * u + iy * v)
    bound = l_t * grad
    ratio = (zero - rho) / grad if exact else (zero - rho) * approximate_reciprocal(grad)
    step = where_less(splat(FLT_EPSILON), grad, ratio, zero)
    step = where_less(bound, rho, zero - l_t, step)
    step = where_less(rho, zero - bound, l_t, step)

    p11, p12, p12_above = load(S, at + P11 * plane), load(S, at + P12 * plane), load(S, at + P12 * plane - stride)
    p21, p22, p22_above = load(S, at + P21 * plane), load(S, at + P22 * plane), load(S, at + P22 * plane - stride)
    div_1 = (p11 - load(S, at + P11 * plane - 1)) + (p12 - p12_above)
    div_2 = (p21 - load(S, at + P21 * plane - 1)) + (p22 - p22_above)
    if is_first:  # OpenCV's order at x = 0
        div_1 = replace_lane_0(div_1, (p11 + p12) - p12_above)
        div_2 = replace_lane_0(div_2, (p21 + p22) - p22_above)

    new_u = (u + step * ix) + theta * div_1
    new_v = (v + step * iy) + theta * div_2
    change_u, change_v = new_u - u, new_v - v
    squares = change_u * change_u + change_v * change_v
    if edge:
        new_u, new_v, squares = keep_first(new_u, count), keep_first(new_v, count), keep_first(squares, count)
    store(S, at + U * plane, new_u)
    store(S, at + V * plane, new_v)
    if exact:
        store(S, at + SQUARES * plane, squares)
    return squares


@compile_part
def _primal_row(S: FloatArray, at: int, stride: int, plane: int, width: int, l_t: np.float32, theta: np.float32, exact: bool) -> float:
    """Thresholding (eq. 15) and u = v + theta div p (eq. 12) of one row; returns the sum of the squared updates."""
    many_l_t, many_theta = splat(l_t), splat(theta)
    squares = _primal_block(S, at, stride, plane, many_l_t, many_theta, exact, True, True, width)
    last = (width - 1) // LANES * LANES
    for x in range(LANES, last, LANES):
        squares = squares + _primal_block(S, at + x, stride, plane, many_l_t, many_theta, exact, False, False, LANES)
    if last > 0:
        squares = squares + _primal_block(S, at + last, stride, plane, many_l_t, many_theta, exact, True, False, width - last)
    for field in (U, V):  # the forward difference at the last column is 0
        S[at + width + field * plane] = S[at + width - 1 + field * plane]
    return np.float64(total(squares))


@compile_part
def _dual_row(S: FloatArray, at: int, stride: int, below: int, plane: int, width: int, taut: np.float32, exact: bool) -> None:
    """One row of p = (p + taut grad u) / (1 + taut |grad u|) (eq. 14); `below` is the offset of the next row of u."""
    many_taut, one = splat(taut), splat(ONE)
    for x in range(0, width, LANES):
        for component in range(2):
            i = at + x + component * plane
            j = at + x + 2 * component * plane
            u = load(S, i + U * plane)
            dx = load(S, i + U * plane + 1) - u
            dy = load(S, i + U * plane + below) - u
            p1, p2 = load(S, j + P11 * plane), load(S, j + P12 * plane)
            if exact:
                norm = one + many_taut * hypot(dx, dy)
                p1, p2 = (p1 + many_taut * dx) / norm, (p2 + many_taut * dy) / norm
            else:
                squared = multiply_add(dx, dx, multiply_add(dy, dy, splat(TINY)))
                inverse = approximate_reciprocal(multiply_add(many_taut, squared * approximate_reciprocal_root(squared), one))
                p1, p2 = multiply_add(many_taut, dx, p1) * inverse, multiply_add(many_taut, dy, p2) * inverse
            store(S, j + P11 * plane, p1)
            store(S, j + P12 * plane, p2)


@compile_part
def _sum_in_order(S: FloatArray, stride: int, plane: int, height: int, width: int) -> float:
    """Sum the squared updates as OpenCV does: pixel by pixel into one float32."""
    error = ZERO
    for y in range(height):
        at = (y + 1) * stride + PAD + SQUARES * plane
        for x in range(width):
            error += S[at + x]
    return np.float64(error)


@compile_kernel
def iterate(
    S: FloatArray,
    height: int,
    width: int,
    l_t: np.float32,
    theta: np.float32,
    taut: np.float32,
    threshold: float,
    max_iterations: int,
    exact: bool,
) -> tuple[int, float]:
    """Iterate until the summed squared update is at most `threshold`; return the iterations done and that sum.

    Row y's u needs the old p of rows y and y - 1, row y's p the new u of rows y and y + 1: one pass down the rows does both.
    """
    stride = PAD + (width + LANES - 1) // LANES * LANES
    plane = (height + 2) * stride + 5 * LANES
    # A float32 sum of n terms in any order is within n * 2**-24 of the true one, so the cheap sum decides outside this band.
    doubt = threshold * (height + 1) * width * 2.0**-24 * 1.01
    error, done = 1e300, 0
    while error > threshold and done < max_iterations:
        error = 0.0
        for y in range(height):
            at = (y + 1) * stride + PAD
            error += _primal_row(S, at, stride, plane, width, l_t, theta, exact)
            if y > 0:
                _dual_row(S, at - stride, stride, stride, plane, width, taut, exact)
        _dual_row(S, height * stride + PAD, stride, 0, plane, width, taut, exact)
        done += 1
        if exact and abs(error - threshold) < doubt:
            error = _sum_in_order(S, stride, plane, height, width)
    return done, error
