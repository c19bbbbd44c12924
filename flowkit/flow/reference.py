"""TV-L1 in NumPy, one function per equation: the definition against which the compiled solvers are tested.

The flow u = (u1, u2) and an auxiliary field v close to it minimise

    sum |grad u1| + |grad u2| + |u - v|**2 / (2 theta) + lambda |rho(v)|,

where rho is the brightness difference, linearised around the warp [1]_. For fixed u, the minimum over v is a threshold of rho;
for fixed v, the minimum over u is a projection, found by dual ascent in p. The method of [2]_ alternates one step of each, from
coarse to fine. Letters and equation numbers are those of [2]_. The order of float operations, the borders and the stopping rule
are those of OpenCV's ``DualTVL1OpticalFlow``, so in float32 the two differ only by rounding.

References
----------
.. [1] Zach, Pock, Bischof, "A duality based approach for realtime TV-L1 optical flow", DAGM 2007.
.. [2] Sanchez, Meinhardt-Llopis, Facciolo, "TV-L1 optical flow estimation", IPOL 2013, doi:10.5201/ipol.2013.26
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ParameterError
from flowkit.flow.params import MIN_SIDE_PX, TVL1Params

Field = NDArray[np.floating[Any]]
FLT_EPSILON = float(np.finfo(np.float32).eps)
CUBIC_A = -0.75  # OpenCV's bicubic kernel
DEFAULTS = TVL1Params()


@dataclass
class Linearisation:
    """The gradient of the warped image, and the part of rho that does not depend on u: ``rho(u) = constant + ix u1 + iy u2``."""

    ix: Field
    iy: Field
    constant: Field

    @property
    def squared_gradient(self) -> Field:
        """|grad I1(x + u0)|**2."""
        squared: Field = self.ix * self.ix + self.iy * self.iy
        return squared


def solve(first: NDArray[Any], second: NDArray[Any], params: TVL1Params = DEFAULTS, dtype: type[np.floating[Any]] = np.float64) -> Field:
    """Return the flow from `first` to `second`.

    Parameters
    ----------
    first, second : array, shape (H, W)
        Grey frames with values from 0 to 255; each side has at least 16 px.
    params : TVL1Params, optional
        Parameters of the method; by default the preset ``opencv``.
    dtype : {np.float64, np.float32}
        The type in which everything is computed.

    Returns
    -------
    flow : array of `dtype`, shape (2, H, W), px
        u1 (to the right) and u2 (down).
    """
    if first.shape != second.shape or first.ndim != 2 or min(first.shape) < MIN_SIDE_PX:
        raise ParameterError(
            f"the frames must be grey, of one size and at least {MIN_SIDE_PX} px per side, got {first.shape} and {second.shape}"
        )
    first_scales, second_scales = (pyramid(frame.astype(dtype), params) for frame in (first, second))
    u = np.zeros((2, *first_scales[-1].shape), dtype)
    for image_0, image_1 in zip(reversed(first_scales), reversed(second_scales), strict=True):
        if u.shape[1:] != image_0.shape:
            u = enlarge(u, image_0.shape, params.scale_step)
        u = solve_scale(image_0, image_1, u, params)
    return u


def solve_scale(image_0: Field, image_1: Field, u: Field, params: TVL1Params) -> Field:
    """Warp and iterate at one scale (Procedure "TV-L1 optical flow"); p is set to 0 once, not for every warp."""
    p = np.zeros((2, *u.shape), u.dtype)  # (component of u, direction, H, W)
    threshold = params.epsilon**2 * image_0.size
    for _ in range(params.num_warps):
        at = linearise(image_0, image_1, u)
        error = np.inf
        for _ in range(params.outer_iterations):
            if error <= threshold:
                break
            u = np.stack([median(component, params.median_size) for component in u])
            for _ in range(params.inner_iterations):
                if error <= threshold:
                    break
                new_u = primal_step(threshold_step(at, u, params), p, params)
                error = float(np.sum((new_u - u) ** 2))
                u = new_u
                p = np.stack([dual_step(component, dual, params) for component, dual in zip(u, p, strict=True)])
    return u


def threshold_step(at: Linearisation, u: Field, params: TVL1Params) -> Field:
    """Return v = u + TH(u) (eq. 15): a step along the gradient to where rho vanishes, of a length of at most lambda theta |grad|."""
    rho = at.constant + (at.ix * u[0] + at.iy * u[1])
    squared = at.squared_gradient
    l_t = u.dtype.type(params.lambda_ * params.theta)
    safe = np.where(squared > FLT_EPSILON, squared, 1)
    step = np.where(squared > FLT_EPSILON, -rho / safe, 0)
    step = np.where(rho > l_t * squared, -l_t, step)
    step = np.where(rho < -l_t * squared, l_t, step)
    v: Field = u + step * np.stack([at.ix, at.iy])
    return v.astype(u.dtype, copy=False)


def primal_step(v: Field, p: Field, params: TVL1Params) -> Field:
    """Return u = v + theta div p (eq. 12)."""
    u: Field = v + v.dtype.type(params.theta) * np.stack([divergence(dual) for dual in p])
    return u


def dual_step(u: Field, p: Field, params: TVL1Params) -> Field:
    """Return p = (p + tau/theta grad u) / (1 + tau/theta |grad u|) for one component of u (eq. 14)."""
    taut = u.dtype.type(params.tau / params.theta)
    slope = gradient(u)
    stepped: Field = (p + taut * slope) / (1 + taut * np.hypot(slope[0], slope[1]))
    return stepped


def gradient(u: Field) -> Field:
    """Return the forward differences (2, H, W) of an image; d/dx is 0 in the last column and d/dy in the last row."""
    slope = np.zeros((2, *u.shape), u.dtype)
    slope[0, :, :-1] = u[:, 1:] - u[:, :-1]
    slope[1, :-1] = u[1:] - u[:-1]
    return slope


def divergence(p: Field) -> Field:
    """Return the sum of the backward differences of p (2, H, W), where p is 0 before the first column and row.

    This is the divergence of OpenCV. It is the negative adjoint of `gradient` for every p that is 0 in the last column (x) and
    the last row (y), as `dual_step` keeps it.
    """
    along_x, along_y = p[0].copy(), p[1].copy()
    along_x[:, 1:] -= p[0][:, :-1]
    along_y[1:] -= p[1][:-1]
    total: Field = along_x + along_y
    return total


def linearise(image_0: Field, image_1: Field, u: Field) -> Linearisation:
    """Linearise ``I1(x + u) - I0(x)`` around the flow u (eq. 9): warp the image and its gradient."""
    slope = centred_gradient(image_1)
    warped, ix, iy = (warp(image, u) for image in (image_1, slope[0], slope[1]))
    return Linearisation(ix, iy, warped - ix * u[0] - iy * u[1] - image_0)


def centred_gradient(image: Field) -> Field:
    """Return d/dx and d/dy (2, H, W) by central differences; beyond a border the border pixel itself stands in."""
    padded = np.pad(image, 1, mode="edge")
    along_x, along_y = padded[1:-1, 2:] - padded[1:-1, :-2], padded[2:, 1:-1] - padded[:-2, 1:-1]
    slope: Field = np.stack([along_x, along_y]) * image.dtype.type(0.5)
    return slope


def warp(image: Field, u: Field) -> Field:
    """Return ``image(x + u)`` by bicubic interpolation; 0 outside. OpenCV 4 rounds x + u to 1/32 px, which is not done here."""
    height, width = image.shape
    x = np.arange(width, dtype=u.dtype) + u[0]
    y = np.arange(height, dtype=u.dtype)[:, None] + u[1]
    left, top = np.floor(x), np.floor(y)
    weights_x, weights_y = cubic_weights(x - left), cubic_weights(y - top)
    margin = 4  # zeros around the image, for windows that lie outside
    padded = np.pad(image, margin)
    columns = np.clip(left, -3, width + 1).astype(np.intp) + margin - 1
    rows = np.clip(top, -3, height + 1).astype(np.intp) + margin - 1
    result: Field = np.zeros_like(x)
    for j, weight_y in enumerate(weights_y):
        result += weight_y * sum(weight_x * padded[rows + j, columns + i] for i, weight_x in enumerate(weights_x))
    return result


def cubic_weights(t: Field) -> list[Field]:
    """Return the weights of the four neighbours at -1, 0, 1, 2 of a point at t in [0, 1)."""
    a = CUBIC_A
    first = ((a * (t + 1) - 5 * a) * (t + 1) + 8 * a) * (t + 1) - 4 * a
    second = ((a + 2) * t - (a + 3)) * t * t + 1
    third = ((a + 2) * (1 - t) - (a + 3)) * (1 - t) * (1 - t) + 1
    return [first, second, third, 1 - first - second - third]


def median(image: Field, size: int) -> Field:
    """Return the median over windows of `size` x `size` px; border pixels are repeated outside the image."""
    if size == 1:
        return image
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(image, size // 2, mode="edge"), (size, size))
    middle: Field = np.median(windows, axis=(2, 3)).astype(image.dtype, copy=False)
    return middle


def pyramid(image: Field, params: TVL1Params) -> list[Field]:
    """Return the image at every scale, finest first; there is no scale with a side below 16 px."""
    scales = [image]
    while len(scales) < params.num_scales:
        shape = tuple(round(side * params.scale_step) for side in scales[-1].shape)
        if min(shape) < MIN_SIDE_PX:
            break
        scales.append(resample(scales[-1], shape, (1 / params.scale_step,) * 2))
    return scales


def enlarge(u: Field, shape: tuple[int, ...], scale_step: float) -> Field:
    """Return the flow at the next finer scale: resampled, with longer vectors."""
    ratio = u.shape[1] / shape[0], u.shape[2] / shape[1]
    finer = np.stack([resample(component, shape, ratio) for component in u])
    longer: Field = finer * u.dtype.type(1 / scale_step)
    return longer


def resample(image: Field, shape: tuple[int, ...], sampling_step: tuple[float, float]) -> Field:
    """Return the image at ``(i + 1/2) step - 1/2`` along both axes, by linear interpolation; border pixels are repeated outside."""
    for axis in range(2):
        at = (np.arange(shape[axis]) + 0.5) * sampling_step[axis] - 0.5
        low = np.floor(at)
        weight = (at - low).astype(image.dtype)
        last = image.shape[axis] - 1
        before = np.take(image, np.clip(low, 0, last).astype(np.intp), axis)
        after = np.take(image, np.clip(low + 1, 0, last).astype(np.intp), axis)
        weight = weight[:, None] if axis == 0 else weight[None, :]
        image = before * (1 - weight) + after * weight
    return image
