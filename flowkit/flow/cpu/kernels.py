"""The inner loop of TV-L1, compiled: primal and dual updates fused into one pass over the rows of `fields`.

Equation numbers are those of Sanchez, Meinhardt-Llopis, Facciolo, "TV-L1 optical flow estimation", IPOL 2013,
doi:10.5201/ipol.2013.26; if `exact` is true, the order of the float operations is that of OpenCV's DualTVL1OpticalFlow.
"""

from __future__ import annotations

import numpy as np

from flowkit.flow.cpu.fields import (
    COEFFICIENT_BLOCK,
    GRAD,
    IX,
    IY,
    P11,
    P12,
    P21,
    P22,
    RHO,
    SQUARES,
    STATE_BLOCK,
    FloatArray,
    U,
    V,
    Vector,
    coefficients_at,
    num_blocks,
    state_at,
)
from flowkit.flow.cpu.jit import compile_kernel, compile_part
from flowkit.flow.cpu.shuffles import (
    keep_first,
    neighbours_after,
    one_after,
    one_before,
    repeat_last,
    replace_lane_0,
    with_first,
    with_last,
)
from flowkit.flow.cpu.simd import AVX512, LANES, load, splat, store, total
from flowkit.flow.cpu.updates import dual, primal

MAX_DEPTH = 6  # iterations in one pass over the level
SMALL_LEVEL_PX = 20_000  # a smaller level stays in the cache, and one iteration per pass is fastest

_ZERO = np.float32(0)


@compile_part
def _dual_block(
    S: FloatArray,
    old: int,
    new: int,
    u_x: Vector,
    u_y: Vector,
    v_x: Vector,
    v_y: Vector,
    p12: Vector,
    p22: Vector,
    taut: np.float32,
    exact: bool,
) -> None:
    """Compute p in a block from the differences of u and v; the old p12 and p22 have been loaded before."""
    p11, p12 = dual(load(S, old + P11), p12, u_x, u_y, taut, exact)
    p21, p22 = dual(load(S, old + P21), p22, v_x, v_y, taut, exact)
    store(S, new + P11, p11)
    store(S, new + P12, p12)
    store(S, new + P21, p21)
    store(S, new + P22, p22)


@compile_part
def _row(
    S: FloatArray,
    coefficients: int,
    old: int,
    new: int,
    width: int,
    l_t: np.float32,
    theta: np.float32,
    taut: np.float32,
    sums: FloatArray,
    sum_at: int,
    exact: bool,
    first: bool,
    counted: bool,
) -> None:
    """Compute u in one row and, unless it is the first, p in the row above it; add to the sums of the squared updates if `counted`.

    p is computed one block behind u: the differences of u need the next block of the row above, and two short chains of
    operations beside each other take less time than a long one.
    """
    many_l_t, many_theta, zero = splat(l_t), splat(theta), splat(_ZERO)
    error = load(sums, sum_at)
    blocks = num_blocks(width)
    row = blocks * STATE_BLOCK
    p11_before = p21_before = zero
    p12_before = p22_before = u_before = v_before = u_above = v_above = zero
    for block in range(blocks):
        field, before, after = coefficients + block * COEFFICIENT_BLOCK, old + block * STATE_BLOCK, new + block * STATE_BLOCK
        u, v = load(S, before + U), load(S, before + V)
        p11, p12, p21, p22 = load(S, before + P11), load(S, before + P12), load(S, before + P21), load(S, before + P22)
        p12_above = p22_above = zero
        if not first:
            p12_above, p22_above = load(S, before - row + P12), load(S, before - row + P22)
        if AVX512:
            p11_left, p21_left = one_before(p11_before, p11), one_before(p21_before, p21)
        elif block == 0:
            p11_left, p21_left = one_before(zero, p11), one_before(zero, p21)
        else:
            p11_left = with_first(load(S, before + P11 - 1), S, before - STATE_BLOCK + P11 + LANES - 1)
            p21_left = with_first(load(S, before + P21 - 1), S, before - STATE_BLOCK + P21 + LANES - 1)
        div_1 = (p11 - p11_left) + (p12 - p12_above)
        div_2 = (p21 - p21_left) + (p22 - p22_above)
        if exact and block == 0:  # the order in OpenCV
            div_1 = replace_lane_0(div_1, (p11 + p12) - p12_above)
            div_2 = replace_lane_0(div_2, (p21 + p22) - p22_above)
        p11_before, p21_before = p11, p21
        ix, iy, rho, grad = load(S, field + IX), load(S, field + IY), load(S, field + RHO), load(S, field + GRAD)
        new_u, new_v, squares = primal(ix, iy, rho, grad, u, v, div_1, div_2, many_l_t, many_theta, exact)
        if block == blocks - 1:  # the forward difference at the last column is 0
            count = width - LANES * block
            new_u, new_v, squares = repeat_last(new_u, count), repeat_last(new_v, count), keep_first(squares, count)
        store(S, after + U, new_u)
        store(S, after + V, new_v)
        if counted:
            error = error + squares
        if exact:
            store(S, field + SQUARES, squares)
        if not first:
            u_next, v_next = load(S, after - row + U), load(S, after - row + V)
            if block > 0:
                if AVX512:
                    u_right, v_right = one_after(u_above, u_next), one_after(v_above, v_next)
                else:  # there are too few registers to keep what can be loaded again
                    u_above, v_above = load(S, after - row - STATE_BLOCK + U), load(S, after - row - STATE_BLOCK + V)
                    u_before, v_before = load(S, after - STATE_BLOCK + U), load(S, after - STATE_BLOCK + V)
                    p12_before, p22_before = load(S, before - row - STATE_BLOCK + P12), load(S, before - row - STATE_BLOCK + P22)
                    u_right = with_last(load(S, after - row - STATE_BLOCK + U + 1), S, after - row + U)
                    v_right = with_last(load(S, after - row - STATE_BLOCK + V + 1), S, after - row + V)
                u_x, u_y = u_right - u_above, u_before - u_above
                v_x, v_y = v_right - v_above, v_before - v_above
                to = after - row - STATE_BLOCK
                _dual_block(S, before - row - STATE_BLOCK, to, u_x, u_y, v_x, v_y, p12_before, p22_before, taut, exact)
            u_above, v_above, u_before, v_before, p12_before, p22_before = u_next, v_next, new_u, new_v, p12_above, p22_above
    if not first:
        u_x, u_y = neighbours_after(u_above) - u_above, u_before - u_above
        v_x, v_y = neighbours_after(v_above) - v_above, v_before - v_above
        _dual_block(S, old - STATE_BLOCK, new - STATE_BLOCK, u_x, u_y, v_x, v_y, p12_before, p22_before, taut, exact)
    if counted:
        store(sums, sum_at, error)


@compile_part
def _last_dual_row(S: FloatArray, old: int, new: int, width: int, taut: np.float32, exact: bool) -> None:
    """Compute p in the last row, where the difference to the row below is 0."""
    zero = splat(_ZERO)
    blocks = num_blocks(width)
    for block in range(blocks):
        before, after = old + block * STATE_BLOCK, new + block * STATE_BLOCK
        u, v = load(S, after + U), load(S, after + V)
        if block < blocks - 1:
            u_x, v_x = one_after(u, load(S, after + STATE_BLOCK + U)) - u, one_after(v, load(S, after + STATE_BLOCK + V)) - v
        else:
            u_x, v_x = neighbours_after(u) - u, neighbours_after(v) - v
        _dual_block(S, before, after, u_x, zero, v_x, zero, load(S, before + P12), load(S, before + P22), taut, exact)


@compile_part
def _sweep(
    S: FloatArray,
    source: int,
    target: int,
    sums: FloatArray,
    depth: int,
    height: int,
    width: int,
    l_t: np.float32,
    theta: np.float32,
    taut: np.float32,
    exact: bool,
    all_counted: bool,
) -> None:
    """Do `depth` iterations in one pass over the rows, from state `source` to state `target`, and set their sums of squared updates.

    u in row y needs the old p in rows y and y - 1, and p in row y needs the new u in rows y and y + 1. So p follows u by one
    row, and each iteration follows the previous one by one row, while the rows between are still in the cache. Unless
    `all_counted`, only the sums of the last two iterations are set.
    """
    for iteration in range(depth):
        store(sums, LANES * iteration, splat(_ZERO))
    for step in range(height + depth - 1):
        for iteration in range(max(0, step - height + 1), min(depth, step + 1)):
            y = step - iteration
            coefficients = coefficients_at(y, width)
            old = state_at(source if iteration == 0 else target, y, height, width)
            new = state_at(target, y, height, width)
            at = LANES * iteration
            if y == 0:
                _row(S, coefficients, old, new, width, l_t, theta, taut, sums, at, exact, True, True)
            elif all_counted or iteration >= depth - 2:
                _row(S, coefficients, old, new, width, l_t, theta, taut, sums, at, exact, False, True)
            else:
                _row(S, coefficients, old, new, width, l_t, theta, taut, sums, at, exact, False, False)
            if y == height - 1:
                _last_dual_row(S, old, new, width, taut, exact)


@compile_part
def _sum_in_order(S: FloatArray, height: int, width: int) -> float:
    """Sum the squared updates of the last iteration as OpenCV does: pixel by pixel into one float32."""
    error = _ZERO
    for y in range(height):
        for x in range(width):
            error += S[coefficients_at(y, width) + x // LANES * COEFFICIENT_BLOCK + SQUARES + x % LANES]
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
    pass is repeated up to that iteration, so the number of iterations is that of a test after each one. If not `exact`, this holds
    where the error falls from one iteration to the next: most passes sum the squared updates of their last two iterations only.
    """
    sums = np.zeros(MAX_DEPTH * LANES, np.float32)
    errors = np.zeros(MAX_DEPTH)
    # A float32 sum of n terms in any order is within n * 2**-24 of the true sum, so the cheap sum decides outside this band.
    doubt = threshold * (height * width * 1.0625 + 2 * LANES) * 2.0**-24 * 1.01 if exact else 0.0
    max_depth = 1 if height * width < SMALL_LEVEL_PX else MAX_DEPTH
    done, error = 0, 1e300
    if not exact:  # which keeps p / taut
        theta = theta * taut
    depth = 1
    all_counted = True
    while error > threshold and done < max_iterations:
        other = state if depth == 1 else 1 - state
        _sweep(S, state, other, sums, depth, height, width, l_t, theta, taut, exact, all_counted)
        for iteration in range(depth):
            errors[iteration] = total(load(sums, LANES * iteration))
        if not all_counted and errors[depth - 1] <= threshold:  # an earlier one may have been as small
            all_counted = True
            continue
        certain = 0 if all_counted else depth
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
        while depth < min(max_depth, max_iterations - done) and expected > 1.3 * threshold:
            depth += 1
            expected *= ratio
        all_counted = exact or depth <= 2 or expected < 1.5 * threshold
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

    Returns the iterations done, that sum, and the state that holds the result.
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
