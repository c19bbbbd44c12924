"""The inner loop of TV-L1, compiled: primal and dual updates fused into one pass over the rows of `fields`.

Equation numbers are those of Sanchez, Meinhardt-Llopis, Facciolo, "TV-L1 optical flow estimation", IPOL 2013,
doi:10.5201/ipol.2013.26; if `exact` is true, the order of the float operations is that of OpenCV's DualTVL1OpticalFlow.
"""

from __future__ import annotations

import numpy as np

from flowkit.flow.cpu.fields import (
    GRAD,
    IX,
    IY,
    P11,
    P12,
    P21,
    P22,
    PAD,
    RHO,
    SQUARES,
    STATES,
    DoubleArray,
    FloatArray,
    U,
    V,
    Vector,
    plane_size,
    row_stride,
)
from flowkit.flow.cpu.jit import compile_kernel, compile_part
from flowkit.flow.cpu.simd import (
    FUSED,
    LANES,
    absolute,
    any_differ,
    hypot_in_float64,
    keep_first,
    larger,
    load,
    multiply_add,
    multiply_subtract,
    reciprocal,
    replace_lane_0,
    rough_reciprocal,
    rough_reciprocal_root,
    smaller,
    splat,
    store,
    subtract_product,
    total,
    where_less,
)

MAX_DEPTH = 6  # iterations in one pass over the level
SMALL_LEVEL_PX = 30_000  # a smaller level stays in the cache, and one iteration per pass is fastest

_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_FLT_EPSILON = np.float32(np.finfo(np.float32).eps)
_TINY = np.float32(2.0**-96)
_DOUBT = np.float32(2.0**-36)


@compile_part
def _hypot(a: Vector, b: Vector, doubt: Vector) -> Vector:
    """Return ``float32(sqrt(float64(a)**2 + float64(b)**2))``; where that is below 2**-36, a value below 2**-35.

    Squares and their rounding errors are kept as pairs of float32, so the sum is known to 2**-47. One Newton step from an
    estimate y of 1/sqrt(sum) gives h within 2**-23, and a second one the correction that decides the last bit, known to
    2**-36 h. Where this is not accurate enough to decide (one pixel in three thousand), all sixteen are computed in float64.
    """
    if not FUSED:
        return hypot_in_float64(a, b)
    a, b = absolute(a), absolute(b)
    long, short = larger(a, b), smaller(a, b)
    square = multiply_add(long, long, splat(_TINY))
    total_square = multiply_add(short, short, square)
    lost = multiply_add(short, short, square - total_square) + multiply_subtract(long, long, square)
    y = rough_reciprocal_root(total_square)
    half_y = splat(_HALF) * y
    h = total_square * y
    h = multiply_add(subtract_product(h, h, total_square), half_y, h)
    correction = (subtract_product(h, h, total_square) + lost) * half_y
    highest, lowest = h + multiply_add(doubt, h, correction), h + subtract_product(doubt, h, correction)
    if any_differ(highest, lowest):
        highest = hypot_in_float64(a, b)
    return highest


@compile_part
def _primal_row(
    S: FloatArray, at: int, old: int, new: int, stride: int, plane: int, width: int, l_t: np.float32, theta: np.float32, exact: bool
) -> float:
    """Compute the threshold step (eq. 15) and u = v + theta div p (eq. 12) of one row; return the sum of the squared updates."""
    many_l_t, many_theta, zero, epsilon = splat(l_t), splat(theta), splat(_ZERO), splat(_FLT_EPSILON)
    error = zero
    for x in range(0, width, LANES):
        field, before, after = at + x, old + x, new + x
        ix, iy = load(S, field + IX * plane), load(S, field + IY * plane)
        u, v = load(S, before + U * plane), load(S, before + V * plane)
        p11, p12, p12_above = load(S, before + P11 * plane), load(S, before + P12 * plane), load(S, before + P12 * plane - stride)
        p21, p22, p22_above = load(S, before + P21 * plane), load(S, before + P22 * plane), load(S, before + P22 * plane - stride)
        div_1 = (p11 - load(S, before + P11 * plane - 1)) + (p12 - p12_above)
        div_2 = (p21 - load(S, before + P21 * plane - 1)) + (p22 - p22_above)
        if exact:
            if x == 0:  # the order in OpenCV
                div_1 = replace_lane_0(div_1, (p11 + p12) - p12_above)
                div_2 = replace_lane_0(div_2, (p21 + p22) - p22_above)
            grad = load(S, field + GRAD * plane)
            rho = load(S, field + RHO * plane) + (ix * u + iy * v)
            bound = many_l_t * grad
            step = where_less(epsilon, grad, (zero - rho) / grad, zero)
            step = where_less(bound, rho, zero - many_l_t, step)
            step = where_less(rho, zero - bound, many_l_t, step)
            new_u = (u + step * ix) + many_theta * div_1
            new_v = (v + step * iy) + many_theta * div_2
            change_u, change_v = new_u - u, new_v - v
            squares = change_u * change_u + change_v * change_v
        else:  # the same threshold, as a clamp
            grad = multiply_add(ix, ix, multiply_add(iy, iy, epsilon))
            rho = multiply_add(ix, u, multiply_add(iy, v, load(S, field + RHO * plane)))
            step = larger(smaller(rho * rough_reciprocal(grad), many_l_t), zero - many_l_t)
            new_u = subtract_product(step, ix, multiply_add(many_theta, div_1, u))
            new_v = subtract_product(step, iy, multiply_add(many_theta, div_2, v))
            change_u, change_v = new_u - u, new_v - v
            squares = multiply_add(change_u, change_u, change_v * change_v)
        if x + LANES > width:
            new_u, new_v, squares = keep_first(new_u, width - x), keep_first(new_v, width - x), keep_first(squares, width - x)
        error = error + squares
        store(S, after + U * plane, new_u)
        store(S, after + V * plane, new_v)
        if exact:
            store(S, field + SQUARES * plane, squares)
    for component in (U, V):  # the forward difference at the last column is 0
        S[new + width + component * plane] = S[new + width - 1 + component * plane]
    return np.float64(total(error))


@compile_part
def _dual_row(S: FloatArray, old: int, new: int, below: int, plane: int, width: int, taut: np.float32, exact: bool) -> None:
    """Compute one row of p = (p + taut grad u) / (1 + taut |grad u|) (eq. 14); `below` is the offset of the next row of u."""
    many_taut, one, tiny = splat(taut), splat(_ONE), splat(_TINY)
    # A tiny |grad u| is not exact, which does not matter beside the 1 unless tau / theta is huge; then every root is in float64.
    doubt = splat(_DOUBT if taut < 1024 else _ONE)
    for x in range(0, width, LANES):
        for component in range(2):
            i = new + x + (U + component) * plane
            p = x + (P11 + 2 * component) * plane
            u = load(S, i)
            dx, dy = load(S, i + 1) - u, load(S, i + below) - u
            p1, p2 = load(S, old + p), load(S, old + p + plane)
            if exact:
                norm = one + many_taut * _hypot(dx, dy, doubt)
                p1, p2 = (p1 + many_taut * dx) / norm, (p2 + many_taut * dy) / norm
            else:
                squared = multiply_add(dx, dx, multiply_add(dy, dy, tiny))
                inverse = reciprocal(multiply_add(many_taut, squared * rough_reciprocal_root(squared), one))
                p1, p2 = multiply_add(many_taut, dx, p1) * inverse, multiply_add(many_taut, dy, p2) * inverse
            store(S, new + p, p1)
            store(S, new + p + plane, p2)


@compile_part
def _sweep(
    S: FloatArray,
    source: int,
    target: int,
    errors: DoubleArray,
    depth: int,
    height: int,
    width: int,
    l_t: np.float32,
    theta: np.float32,
    taut: np.float32,
    exact: bool,
) -> None:
    """Do `depth` iterations in one pass over the rows, from state `source` to state `target`, and set their `errors`.

    u in row y needs the old p in rows y and y - 1, and p in row y needs the new u in rows y and y + 1. So p follows u by one
    row, and each iteration follows the previous one by one row, while the rows between are still in the cache.
    """
    stride, plane = row_stride(width), plane_size(height, width)
    for iteration in range(depth):
        errors[iteration] = 0
    for step in range(height + depth - 1):
        for iteration in range(max(0, step - height + 1), min(depth, step + 1)):
            y = step - iteration
            at = (y + 1) * stride + PAD
            old = at + (source if iteration == 0 else target) * plane
            new = at + target * plane
            errors[iteration] += _primal_row(S, at, old, new, stride, plane, width, l_t, theta, exact)
            if y > 0:
                _dual_row(S, old - stride, new - stride, stride, plane, width, taut, exact)
            if y == height - 1:
                _dual_row(S, old, new, 0, plane, width, taut, exact)


@compile_part
def _sum_in_order(S: FloatArray, height: int, width: int) -> float:
    """Sum the squared updates of the last iteration as OpenCV does: pixel by pixel into one float32."""
    stride, plane = row_stride(width), plane_size(height, width)
    error = _ZERO
    for y in range(height):
        at = (y + 1) * stride + PAD + SQUARES * plane
        for x in range(width):
            error += S[at + x]
    return np.float64(error)


@compile_part
def _iterate(
    S: FloatArray,
    state: int,
    height: int,
    width: int,
    l_t: np.float32,
    theta: np.float32,
    taut: np.float32,
    threshold: float,
    max_iterations: int,
    exact: bool,
) -> tuple[int, float, int]:
    """Iterate until the summed squared update is at most `threshold`; see `iterate_strict`.

    A pass does several iterations if the error is not expected to reach the threshold before the last of them. If it does, the
    pass is repeated up to that iteration, so the number of iterations is that of a test after each one.
    """
    errors = np.zeros(MAX_DEPTH)
    # A float32 sum of n terms in any order is within n * 2**-24 of the true sum, so the cheap sum decides outside this band.
    doubt = threshold * (height + 1) * width * 2.0**-24 * 1.01 if exact else 0.0
    max_depth = 1 if height * width < SMALL_LEVEL_PX else MAX_DEPTH
    done, error = 0, 1e300
    depth = min(2, max_depth, max_iterations)
    while error > threshold and done < max_iterations:
        other = state if depth == 1 else STATES[0] + STATES[1] - state
        _sweep(S, state, other, errors, depth, height, width, l_t, theta, taut, exact)
        certain = 0
        while certain < depth and errors[certain] > threshold + doubt:
            certain += 1
        if certain < depth - 1:
            depth = certain + 1
            continue
        state = other
        before = errors[depth - 2] if depth > 1 else error
        error = errors[depth - 1]
        ratio = min(1.0, error / before)
        done += depth
        if exact and abs(error - threshold) < doubt:
            error = _sum_in_order(S, height, width)
        depth, expected = 1, error * ratio
        while depth < min(max_depth, max_iterations - done) and expected > 1.1 * threshold:
            depth += 1
            expected *= ratio
    return done, error, state


@compile_kernel
def iterate_strict(
    S: FloatArray,
    state: int,
    height: int,
    width: int,
    l_t: np.float32,
    theta: np.float32,
    taut: np.float32,
    threshold: float,
    max_iterations: int,
) -> tuple[int, float, int]:
    """Iterate until the summed squared update is at most `threshold`, as OpenCV does, bit for bit.

    Returns the iterations done, that sum, and the state (one of `STATES`) that holds the result.
    """
    return _iterate(S, state, height, width, l_t, theta, taut, threshold, max_iterations, True)


@compile_kernel
def iterate_fast(
    S: FloatArray,
    state: int,
    height: int,
    width: int,
    l_t: np.float32,
    theta: np.float32,
    taut: np.float32,
    threshold: float,
    max_iterations: int,
) -> tuple[int, float, int]:
    """Iterate as `iterate_strict` does, but with estimates of quotients and roots."""
    return _iterate(S, state, height, width, l_t, theta, taut, threshold, max_iterations, False)
