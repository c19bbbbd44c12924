"""One update of u and v, and one of p, in sixteen pixels, compiled into the kernels.

Equation numbers are those of Sanchez, Meinhardt-Llopis, Facciolo, "TV-L1 optical flow estimation", IPOL 2013,
doi:10.5201/ipol.2013.26; if `exact` is true, the order of the float operations is that of OpenCV's DualTVL1OpticalFlow. If it is
false, quotients and roots are estimates, the squared gradient is given as its reciprocal, and p is kept divided by tau / theta,
which is a factor that div p then has.
"""

from __future__ import annotations

import numpy as np

from flowkit.flow.cpu.fields import Vector
from flowkit.flow.cpu.jit import compile_part
from flowkit.flow.cpu.simd import (
    FUSED,
    absolute,
    any_differ,
    hypot_in_float64,
    larger,
    multiply_add,
    multiply_subtract,
    reciprocal,
    rough_reciprocal_root,
    smaller,
    splat,
    subtract_product,
    where_less,
    with_sign,
)

ROOT_DOUBT = np.float32(2.0**-40)  # how far a root may be wrong, relative to it, before the decision about its last bit

_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_FLT_EPSILON = np.float32(np.finfo(np.float32).eps)
_TINY = np.float32(2.0**-96)


@compile_part
def hypot(a: Vector, b: Vector, doubt: Vector) -> Vector:
    """Return ``float32(sqrt(float64(a)**2 + float64(b)**2))``; where that is below 2**-36, a value below 2**-35.

    Squares and their rounding errors are kept as pairs of float32, so the sum is known to 2**-47. From an estimate of 1/sqrt(sum), one
    step of Goldschmidt's method gives h to 2**-22 and half its reciprocal to as much, and Newton's method then the correction that
    decides the last bit, known to 2**-42 h. Where this is not accurate enough to decide (one pixel in thirty thousand), all sixteen are
    computed in float64.
    """
    if not FUSED:
        return hypot_in_float64(a, b)
    a, b = absolute(a), absolute(b)
    long, short = larger(a, b), smaller(a, b)
    square = multiply_add(long, long, splat(_TINY))
    total_square = multiply_add(short, short, square)
    lost = multiply_add(short, short, square - total_square) + multiply_subtract(long, long, square)
    y = rough_reciprocal_root(total_square)
    h, half_y = total_square * y, splat(_HALF) * y
    step = subtract_product(h, half_y, splat(_HALF))
    h, half_y = multiply_add(h, step, h), multiply_add(half_y, step, half_y)
    correction = (subtract_product(h, h, total_square) + lost) * half_y
    highest, lowest = h + multiply_add(doubt, h, correction), h + subtract_product(doubt, h, correction)
    if any_differ(highest, lowest):
        highest = hypot_in_float64(a, b)
    return highest


@compile_part
def primal(
    ix: Vector,
    iy: Vector,
    rho: Vector,
    grad: Vector,
    u: Vector,
    v: Vector,
    div_1: Vector,
    div_2: Vector,
    l_t: Vector,
    theta: Vector,
    exact: bool,
) -> tuple[Vector, Vector, Vector]:
    """Return u and v after the threshold step (eq. 15) and u = v + theta div p (eq. 12), and the squared updates."""
    zero, epsilon = splat(_ZERO), splat(_FLT_EPSILON)
    if exact:
        rho = rho + (ix * u + iy * v)
        bound = l_t * grad
        step = where_less(epsilon, grad, rho / grad, zero)
        step = where_less(bound, absolute(rho), with_sign(l_t, rho), step)
        new_u = (u - step * ix) + theta * div_1
        new_v = (v - step * iy) + theta * div_2
        change_u, change_v = new_u - u, new_v - v
        squares = change_u * change_u + change_v * change_v
    else:  # the same threshold, as a clamp
        rho = multiply_add(ix, u, multiply_add(iy, v, rho))
        step = larger(smaller(rho * grad, l_t), zero - l_t)
        new_u = subtract_product(step, ix, multiply_add(theta, div_1, u))
        new_v = subtract_product(step, iy, multiply_add(theta, div_2, v))
        change_u, change_v = new_u - u, new_v - v
        squares = multiply_add(change_u, change_u, change_v * change_v)
    return new_u, new_v, squares


@compile_part
def dual(p1: Vector, p2: Vector, dx: Vector, dy: Vector, tau_theta: np.float32, exact: bool) -> tuple[Vector, Vector]:
    """Return p = (p + taut grad u) / (1 + taut |grad u|) (eq. 14), where taut is tau / theta."""
    one, tiny, taut = splat(_ONE), splat(_TINY), splat(tau_theta)
    if exact:
        # A tiny |grad u| is not exact, which does not matter beside the 1 unless taut is huge; then every root is in float64.
        doubt = splat(ROOT_DOUBT if tau_theta < 1024 else _ONE)
        norm = one + taut * hypot(dx, dy, doubt)
        return (p1 + taut * dx) / norm, (p2 + taut * dy) / norm
    squared = multiply_add(dx, dx, multiply_add(dy, dy, tiny))
    inverse = reciprocal(multiply_add(taut, squared * rough_reciprocal_root(squared), one))
    return (p1 + dx) * inverse, (p2 + dy) * inverse
