"""The flow of a pair of frames at every level of their pyramid: the fast path, which computes what `flow_reference` defines."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from flowkit.flow.cpu.fields import FloatArray
from flowkit.flow.cpu.median import median_5x5
from flowkit.flow.cpu.simd import LANES
from flowkit.trajectories import flow_kernels as kernels
from flowkit.trajectories.flow_reference import (
    BLUR_RADIUS,
    EXPANSION_RADIUS,
    ITERATIONS,
    Flow,
    blur_weights,
    expansion_kernels,
    rim_weights,
)
from flowkit.trajectories.pyramid import STEP, Grey, Pyramid


@dataclass(frozen=True)
class Expansion:
    """The polynomial expansion of one level, in the layout of the kernels.

    Parameters
    ----------
    height, width : int, px
        Size of the level.
    values : float32 array, flat
        See `flow_kernels`.
    """

    height: int
    width: int
    values: FloatArray


Expansions = tuple[Expansion, ...]


def expand(grey: Grey, pyramid: Pyramid) -> Expansions:
    """Return the polynomial expansion of a grey frame, uint8 (H, W), at each level of its pyramid, for `level_flows`."""
    tables, factors = _expansion_tables()
    expansions = []
    for level in pyramid.smooth_levels(grey):
        height, width = level.shape
        image = np.empty(height * width + LANES, np.float32)
        image[: height * width].reshape(height, width)[:] = level
        image[height * width :] = 0
        values = np.zeros(5 * kernels.plane_length(height, width), np.float32)
        scratch = np.zeros(kernels.EXPANSION_SCRATCH_ROWS * kernels.scratch_length(width), np.float32)
        kernels.expand(image, values, scratch, tables, factors, height, width)
        expansions.append(Expansion(height, width, values))
    return tuple(expansions)


def level_flows(first: Expansions, second: Expansions) -> tuple[Flow, ...]:
    """Return the flow of each level, float32 (h, w, 2) in px of that level, from the expansions of two frames."""
    flows: list[Flow] = []
    planes: FloatArray | None = None
    for of_first, of_second in zip(reversed(first), reversed(second), strict=True):
        height, width = of_first.height, of_first.width
        flow = np.zeros(2 * kernels.plane_length(height, width), np.float32)
        coarser, planes = planes, _planes(flow, height, width)
        if coarser is not None:
            for coarse, fine in zip(coarser, planes, strict=True):
                cv2.resize(coarse, (width, height), dst=fine, interpolation=cv2.INTER_LINEAR)
        _refine(of_first, of_second, flow)
        interleaved = np.empty(2 * height * width + 2 * LANES, np.float32)
        kernels.interleave(flow, interleaved, height, width)
        flows.append(interleaved[: 2 * height * width].reshape(height, width, 2))
    return tuple(reversed(flows))


def _planes(flow: FloatArray, height: int, width: int) -> FloatArray:
    """Return the two components (2, h, w) of a flat flow: a view."""
    return flow.reshape(2, height + 1, kernels.row_length(width))[:, :height, :width]


def _refine(first: Expansion, second: Expansion, flow: FloatArray) -> None:
    """Replace the flow that the coarser level has left, in px of that level, by that after the iterations and the median."""
    height, width = first.height, first.width
    row = kernels.row_length(width)
    weights, ramp, blur = _tables(height, width)
    scratch = np.zeros(kernels.ITERATION_SCRATCH_ROWS * kernels.scratch_length(width), np.float32)
    for iteration in range(ITERATIONS):
        factor = STEP if iteration == 0 else np.float32(1)
        kernels.iterate(first.values, second.values, flow, factor, scratch, blur, weights, ramp, height, width)
    for start in (0, kernels.plane_length(height, width)):
        median_5x5(flow, start, row, LANES, scratch, height, width)


@lru_cache(maxsize=32)
def _tables(height: int, width: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the squared weights of columns and rows, the numbers of the columns, and the weights of the blur."""
    row = kernels.row_length(width)
    weights = np.zeros(row + height, np.float32)
    weights[:width], weights[row:] = rim_weights(width) ** 2, rim_weights(height) ** 2
    return weights, np.arange(row, dtype=np.float32), np.ascontiguousarray(blur_weights()[BLUR_RADIUS:])


@lru_cache(maxsize=1)
def _expansion_tables() -> tuple[FloatArray, FloatArray]:
    """Return the kernels of the expansion for x from 0 on, end to end, and the factors of its results."""
    weights, inverse = expansion_kernels()
    factors = np.array([inverse[name] for name in ("x", "1xx", "xx", "xy")], np.float32)
    return np.concatenate([kernel[EXPANSION_RADIUS:] for kernel in weights]), factors
