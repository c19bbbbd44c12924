"""HOG, HOF and MBH around points, compiled: what `histograms_reference` defines, without an integral image.

A window of 16 rows moves down the level. It holds the votes of each of its columns, by bin; a row that enters is added, and the one
that leaves is subtracted, in float64, so that nothing accumulates. A cell is the sum of 16 columns at the moment when its rows are
those of the window. So the bins of one window stay in the processor's cache, and only the cells of live points are summed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowkit.flow.cpu.fields import DoubleArray
from flowkit.flow.cpu.jit import compile_kernel, compile_part
from flowkit.trajectories.histograms_reference import CELL_CONSTANT, CELL_PX, STILL_PX

HOG, MBH_X, MBH_Y, HOF = range(4)  # the order of the planes; the descriptor with nine bins comes last
NUM_PLANES = 4
COLUMN_SIZE = 36  # 33 bins, and a multiple of four

_NUM_BINS = 8
_STILL = 8  # the ninth bin of HOF
_ZERO, _ONE = np.float32(0), np.float32(1)
_BINS_PER_DEGREE = np.float32(_NUM_BINS / 360)
_CONSTANT = np.float32(CELL_CONSTANT)

Planes = NDArray[np.float32]


@compile_kernel
def vectors(grey: NDArray[np.uint8], flow: NDArray[np.float32], top: int, left: int, x: Planes, y: Planes) -> None:
    """Set the planes x and y (4, h, w) to the vectors that vote, for the part of a level that begins at `top` and `left`."""
    height, width = grey.shape
    for row in range(x.shape[1]):
        at = top + row
        # where the image is reflected the derivative is 0
        above, below = (at - 1, at + 1) if 0 < at < height - 1 else (at, at)
        for column in range(x.shape[2]):
            here = left + column
            y[HOG, row, column] = np.float32(grey[below, here]) - np.float32(grey[above, here])
            y[MBH_X, row, column] = flow[below, here, 0] - flow[above, here, 0]
            y[MBH_Y, row, column] = flow[below, here, 1] - flow[above, here, 1]
            y[HOF, row, column] = flow[at, here, 1]
            x[HOF, row, column] = flow[at, here, 0]
        for column in range(x.shape[2]):
            here = left + column
            before, after = (here - 1, here + 1) if 0 < here < width - 1 else (here, here)
            x[HOG, row, column] = np.float32(grey[at, after]) - np.float32(grey[at, before])
            x[MBH_X, row, column] = flow[at, after, 0] - flow[at, before, 0]
            x[MBH_Y, row, column] = flow[at, after, 1] - flow[at, before, 1]


@compile_kernel
def votes(x: Planes, y: Planes, degrees: Planes, bins: NDArray[np.int32]) -> None:
    """Replace the vectors x and y, which have these angles, by their votes: x for the bin in `bins`, and y for the next bin."""
    for plane in range(NUM_PLANES):
        for row in range(x.shape[1]):
            for column in range(x.shape[2]):
                dx, dy = x[plane, row, column], y[plane, row, column]
                magnitude = np.sqrt(dx * dx + dy * dy)
                position = degrees[plane, row, column] * _BINS_PER_DEGREE
                first = min(np.int32(position), np.int32(_NUM_BINS - 1))
                share = (position - np.float32(first)) * magnitude
                still = plane == HOF and magnitude <= STILL_PX
                x[plane, row, column] = _ONE if still else magnitude - share
                y[plane, row, column] = _ZERO if still else share
                bins[plane, row, column] = np.int32(_STILL) if still else first


@compile_part
def _add_row(columns: DoubleArray, x: Planes, y: Planes, bins: NDArray[np.int32], row: int, sign: float) -> None:
    """Add the votes of a row to the columns of the window, or subtract them."""
    for plane in range(NUM_PLANES):
        for column in range(x.shape[2]):
            first = bins[plane, row, column]
            columns[column, plane * _NUM_BINS + first] += sign * x[plane, row, column]
            columns[column, plane * _NUM_BINS + ((first + 1) & (_NUM_BINS - 1))] += sign * y[plane, row, column]


@compile_part
def _sum_cell(columns: DoubleArray, left: int, cell: Planes) -> None:
    """Set the bins of a cell to the sums over 16 columns, at least 0, and a constant."""
    window = columns[left : left + CELL_PX]
    for k in range(COLUMN_SIZE):
        total = 0.0
        for column in range(CELL_PX):
            total += window[column, k]
        cell[k] = np.float32(max(total, 0.0)) + _CONSTANT


@compile_part
def _add_vector(cells: Planes, plane: int, num_bins: int, vector: Planes) -> None:
    """Add one descriptor of a point, from the bins of its cells (4, 36), to a vector."""
    first = plane * _NUM_BINS
    total = _ZERO
    for k in range(first, first + num_bins):
        total += (cells[0, k] + cells[1, k]) + (cells[2, k] + cells[3, k])
    for cell in range(4):
        bins, part = cells[cell, first : first + num_bins], vector[cell * num_bins : (cell + 1) * num_bins]
        for k in range(num_bins):
            part[k] += np.sqrt(bins[k] / total)


@compile_kernel
def add_descriptors(
    x: Planes, y: Planes, bins: NDArray[np.int32], corners: NDArray[np.int64], cells: Planes, sums: Planes, rows: NDArray[np.int64]
) -> None:
    """Add the descriptors of patches with these corners (n, 2), ordered by y, to as many rows of `sums` (m, 132).

    `cells` has the shape (n, 4, 36) and is overwritten.
    """
    columns = np.zeros((x.shape[2], COLUMN_SIZE))
    upper = lower = 0  # the first points whose upper and lower cells are still to be summed
    num = len(corners)
    for row in range(x.shape[1]):
        _add_row(columns, x, y, bins, row, 1.0)
        if row >= CELL_PX:
            _add_row(columns, x, y, bins, row - CELL_PX, -1.0)
        while upper < num and corners[upper, 1] == row + 1 - CELL_PX:
            _sum_cell(columns, corners[upper, 0], cells[upper, 0])
            _sum_cell(columns, corners[upper, 0] + CELL_PX, cells[upper, 2])
            upper += 1
        while lower < num and corners[lower, 1] == row + 1 - 2 * CELL_PX:
            _sum_cell(columns, corners[lower, 0], cells[lower, 1])
            _sum_cell(columns, corners[lower, 0] + CELL_PX, cells[lower, 3])
            lower += 1
    for point in range(num):
        vector = sums[rows[point]]
        _add_vector(cells[point], HOG, _NUM_BINS, vector[:32])
        _add_vector(cells[point], HOF, _NUM_BINS + 1, vector[32:68])
        _add_vector(cells[point], MBH_X, _NUM_BINS, vector[68:100])
        _add_vector(cells[point], MBH_Y, _NUM_BINS, vector[100:])
