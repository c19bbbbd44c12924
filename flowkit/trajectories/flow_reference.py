"""Farneback's flow over a pyramid with a median at every level, in NumPy and OpenCV's filters: one function per step.

Around each pixel a picture is approximated by a polynomial, f(x) ~ x'Ax + b'x + c with weights that fall off with the distance [1]_.
If the second picture is the first one moved by d, its b is b1 - 2Ad; so d follows from the two polynomials, once they are averaged
over a neighbourhood. Improved trajectories need the flow of every level, and filter each by a median before the next finer level
starts from it [2]_, which ``cv2.calcOpticalFlowFarneback`` cannot do.

This is the definition against which the compiled kernels are tested. Equation numbers are those of [1]_.

References
----------
.. [1] Farneback, "Two-frame motion estimation based on polynomial expansion", SCIA 2003.
.. [2] Wang, Schmid, "Action recognition with improved trajectories", ICCV 2013, and the authors' program of October 2013.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from flowkit.trajectories.pyramid import STEP, Grey, Pyramid, Smooth

Flow = NDArray[np.float32]  # (h, w, 2), px of the level
Expansion = NDArray[np.float32]  # (h, w, 5)
Expansions = tuple[Expansion, ...]
Matrices = NDArray[np.float32]  # (h, w, 5)

EXPANSION_RADIUS = 7
EXPANSION_SIGMA = 1.5
BLUR_RADIUS = 5
BLUR_SIGMA = 1.5
ITERATIONS = 2
RIM_WEIGHTS = (0.14, 0.14, 0.4472, 0.4472, 0.4472)  # of the outermost pixels, from the border inwards
MEDIAN_SIZE = 5
REGULARISER = 1e-3  # keeps the determinant away from 0 where there is no texture


def level_flows(first: Expansions, second: Expansions) -> tuple[Flow, ...]:
    """Return the flow of each level, float32 (h, w, 2) in px of that level, from the expansions of two frames."""
    flow = np.zeros((*first[-1].shape[:2], 2), np.float32)
    flows = []
    for from_first, from_second in zip(reversed(first), reversed(second), strict=True):
        flow = refine(from_first, from_second, enlarge(flow, from_first.shape[:2]))
        flows.append(flow)
    return tuple(reversed(flows))


def expand(grey: Grey, pyramid: Pyramid) -> Expansions:
    """Return the polynomial expansion of a grey frame, uint8 (H, W), at each level of its pyramid."""
    return tuple(expand_level(level) for level in pyramid.smooth_levels(grey))


def expand_level(image: Smooth) -> Expansion:
    """Return b_x, b_y, a_xx, a_yy, a_xy of ``c + b_x x + b_y y + a_xx x**2 + a_yy y**2 + a_xy x y`` around each pixel (eq. 1).

    Beyond a border the border pixel itself stands in.
    """
    weights, inverse = expansion_kernels()
    moments = {(i, j): separable(image, weights[i], weights[j]) for i in range(3) for j in range(3 - i)}  # powers of x and y
    b_x, b_y = moments[1, 0] * inverse["x"], moments[0, 1] * inverse["x"]
    a_xx = moments[0, 0] * inverse["1xx"] + moments[2, 0] * inverse["xx"]
    a_yy = moments[0, 0] * inverse["1xx"] + moments[0, 2] * inverse["xx"]
    return np.dstack([b_x, b_y, a_xx, a_yy, moments[1, 1] * inverse["xy"]]).astype(np.float32)


@lru_cache(maxsize=1)
def expansion_kernels() -> tuple[tuple[NDArray[np.float32], ...], dict[str, float]]:
    """Return the kernels w, x w and x**2 w, and the entries of the inverse of the basis functions' scalar products that are needed.

    The basis is 1, x, y, x**2, y**2, x y with the weight w(x) w(y). Its scalar products vanish where a power is odd.
    """
    x = np.arange(-EXPANSION_RADIUS, EXPANSION_RADIUS + 1, dtype=np.float64)
    falloff = np.exp(-x * x / (2 * EXPANSION_SIGMA**2)).astype(np.float32)
    w = (falloff / falloff.astype(np.float64).sum()).astype(np.float32)
    moment = {power: float((w.astype(np.float64) * x**power).sum()) for power in (0, 2, 4)}
    even = np.array(  # products of 1, x**2 and y**2
        [
            [moment[0] ** 2, moment[0] * moment[2], moment[0] * moment[2]],
            [moment[0] * moment[2], moment[0] * moment[4], moment[2] ** 2],
            [moment[0] * moment[2], moment[2] ** 2, moment[0] * moment[4]],
        ]
    )
    inverse = np.linalg.inv(even)
    entries = {"x": 1 / (moment[0] * moment[2]), "xy": 1 / moment[2] ** 2, "1xx": inverse[0, 1], "xx": inverse[1, 1]}
    return (w, (x * w).astype(np.float32), (x * x * w).astype(np.float32)), {name: float(value) for name, value in entries.items()}


def separable(image: NDArray[np.float32], along_x: NDArray[np.float32], along_y: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the image filtered along x and along y; border pixels are repeated outside."""
    return cv2.sepFilter2D(np.ascontiguousarray(image), cv2.CV_32F, along_x, along_y, borderType=cv2.BORDER_REPLICATE)  # type: ignore[return-value]


def enlarge(flow: Flow, shape: tuple[int, ...]) -> Flow:
    """Return the flow at the next finer level: resized bilinearly, with longer vectors."""
    if flow.shape[:2] == shape:
        return flow  # the coarsest level starts from 0
    height, width = shape
    return cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR) * STEP


def refine(first: Expansion, second: Expansion, flow: Flow) -> Flow:
    """Return the flow of a level after its iterations and its median, from where the coarser level has left it."""
    for _ in range(ITERATIONS):
        flow = solve(blur(matrices(first, second, flow)))
    return median(flow)


def matrices(first: Expansion, second: Expansion, flow: Flow) -> Matrices:
    """Return A'A (xx, xy, yy) and A'db (x, y) of each pixel (eqs. 9 to 13): the equations for d before they are averaged.

    A is the mean of both frames' A, db half the difference of their b plus A times the flow so far. The second frame's polynomial
    is sampled where the flow points to; where that is outside, b is 0 there and A that of the first frame.
    """
    moved, is_inside = sample(second, flow)
    moved = np.where(is_inside[..., None], moved, 0)
    a_xx = np.where(is_inside, (first[..., 2] + moved[..., 2]) / 2, first[..., 2])
    a_yy = np.where(is_inside, (first[..., 3] + moved[..., 3]) / 2, first[..., 3])
    a_xy = np.where(is_inside, (first[..., 4] + moved[..., 4]) / 4, first[..., 4] / 2)  # half of the coefficient of x y
    db_x = (first[..., 0] - moved[..., 0]) / 2 + a_xx * flow[..., 0] + a_xy * flow[..., 1]
    db_y = (first[..., 1] - moved[..., 1]) / 2 + a_xy * flow[..., 0] + a_yy * flow[..., 1]
    squared = rim(flow.shape) ** 2
    g_xx, g_xy, g_yy = a_xx * a_xx + a_xy * a_xy, (a_xx + a_yy) * a_xy, a_yy * a_yy + a_xy * a_xy
    h_x, h_y = a_xx * db_x + a_xy * db_y, a_xy * db_x + a_yy * db_y
    return np.dstack([squared * plane for plane in (g_xx, g_xy, g_yy, h_x, h_y)]).astype(np.float32)


def sample(image: NDArray[np.float32], flow: Flow) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return ``image(x + flow)`` by bilinear interpolation, and whether all four neighbours lie in the image; elsewhere it is undefined."""
    height, width = flow.shape[:2]
    x = np.arange(width, dtype=np.float32) + flow[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + flow[..., 1]
    left, top = np.floor(x), np.floor(y)
    is_inside = (left >= 0) & (left < width - 1) & (top >= 0) & (top < height - 1)
    right_weight, low_weight = ((at - start)[..., None] for at, start in ((x, left), (y, top)))
    column, row = (np.where(is_inside, start, 0).astype(np.intp) for start in (left, top))
    padded = np.pad(image, ((0, 1), (0, 1), (0, 0)), mode="edge")  # a side of one pixel has no neighbours
    upper = (1 - right_weight) * padded[row, column] + right_weight * padded[row, column + 1]
    lower = (1 - right_weight) * padded[row + 1, column] + right_weight * padded[row + 1, column + 1]
    return (1 - low_weight) * upper + low_weight * lower, is_inside


@lru_cache(maxsize=16)
def rim(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the weight of each pixel's equations, float32 (h, w): small on the rim, where the expansion sees repeated pixels."""
    return np.outer(*map(rim_weights, shape[:2]))


def rim_weights(side: int) -> NDArray[np.float32]:
    """Return the weight of each of the columns, or rows, of an image."""
    weights, outermost = np.ones(side, np.float32), np.array(RIM_WEIGHTS, np.float32)[:side]
    weights[: len(outermost)] *= outermost
    return weights * weights[::-1]


def blur(equations: Matrices) -> Matrices:
    """Return the equations averaged with Gaussian weights over 11 x 11 px; border pixels are repeated outside."""
    weights = blur_weights()
    return np.dstack([separable(equations[..., k], weights, weights) for k in range(5)])


@lru_cache(maxsize=1)
def blur_weights() -> NDArray[np.float32]:
    """Return the 11 weights of the Gaussian."""
    x = np.arange(-BLUR_RADIUS, BLUR_RADIUS + 1)
    weights = np.exp(-x * x / (2 * BLUR_SIGMA**2)).astype(np.float32)
    normalised: NDArray[np.float32] = weights / weights.sum()
    return normalised


def solve(equations: Matrices) -> Flow:
    """Return the flow that satisfies the averaged equations (eq. 11). The determinant nearly vanishes along edges: float64."""
    g_xx, g_xy, g_yy, h_x, h_y = (equations[..., k].astype(np.float64) for k in range(5))
    scale = 1 / (g_xx * g_yy - g_xy * g_xy + REGULARISER)
    return np.dstack([(g_yy * h_x - g_xy * h_y) * scale, (g_xx * h_y - g_xy * h_x) * scale]).astype(np.float32)


def median(flow: Flow) -> Flow:
    """Return the flow with each component replaced by its median over 5 x 5 px; border pixels are repeated outside."""
    return np.dstack([cv2.medianBlur(np.ascontiguousarray(flow[..., k]), MEDIAN_SIZE) for k in range(2)])
