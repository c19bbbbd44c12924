"""HOG, HOF and MBH around points, in NumPy, one function per step: the definition against which the compiled histograms are tested.

Each pixel votes for a direction with its magnitude, shared linearly between the two nearest bins: the gradient of the grey
frame (HOG), the flow (HOF), and the gradients of both components of the flow (MBH) [1]_. A patch around a point is divided into
2 x 2 cells. The sums of its cells, each with a small constant, become one vector per descriptor: scaled to the sum 1, and then its
square root. OpenCV computes the angles (``phase``), as in the authors' release, and the magnitudes have 32 bits as there.

References
----------
.. [1] Wang, Schmid, "Action recognition with improved trajectories", ICCV 2013.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

PATCH_PX = 32
CELL_PX = PATCH_PX // 2
STILL_PX = np.float32(0.4)  # flow of at most this length votes for the bin of no motion
CELL_CONSTANT = 0.05
SIZES = (32, 36, 32, 32)  # numbers of HOG, HOF, MBHx and MBHy around one point: 4 cells of 8 bins; HOF has a ninth, of no motion
TOTAL_SIZE = sum(SIZES)

Image = NDArray[np.float32]


def patch_histograms(grey: NDArray[np.uint8], flow: Image, positions: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
    """Return the descriptors of the patches around points of one level.

    Parameters
    ----------
    grey : uint8 array, shape (h, w)
        The grey level of a frame; each side has at least 32 px.
    flow : float32 array, shape (h, w, 2), px
        The flow from it to the next frame, after camera motion is removed.
    positions : int array, shape (n, 2), px
        x and y of the points. A patch that would leave the level is pushed inside.

    Returns
    -------
    float32 array, shape (n, 132)
        HOG (32 numbers), HOF (36), MBHx (32) and MBHy (32), each with sum of squares 1. The order of the cells is upper left, lower
        left, upper right, lower right.
    """
    corners = patch_corners(positions, *grey.shape)
    u, v = np.ascontiguousarray(flow[..., 0]), np.ascontiguousarray(flow[..., 1])
    votes = (direction_votes(*gradient(grey)), motion_votes(u, v), direction_votes(*gradient(u)), direction_votes(*gradient(v)))
    return np.concatenate([normalised(cell_sums(each, corners)) for each in votes], axis=1)


def patch_corners(positions: NDArray[np.integer[Any]], height: int, width: int) -> NDArray[np.int64]:
    """Return x and y of the upper left corners of the patches around points (n, 2), pushed inside a level of this size."""
    corners: NDArray[np.int64] = np.clip(positions - CELL_PX, 0, (width - PATCH_PX, height - PATCH_PX)).astype(np.int64)
    return corners


def gradient(image: NDArray[Any]) -> tuple[Image, Image]:
    """Return the derivatives along x and y with the mask (-1, 0, 1); they are 0 at the border, where the image is reflected."""
    dx, dy = np.zeros(image.shape, np.float32), np.zeros(image.shape, np.float32)
    values = image.astype(np.float32)
    dx[:, 1:-1] = values[:, 2:] - values[:, :-2]
    dy[1:-1] = values[2:] - values[:-2]
    return dx, dy


def direction_votes(x: Image, y: Image, num_bins: int = 8) -> NDArray[np.float64]:
    """Return the votes (h, w, bins) of vectors for directions; bin 0 is at 0 degrees, which is to the right, bin 2 down."""
    magnitude = np.sqrt(x * x + y * y)
    position = cv2.phase(x, y, angleInDegrees=True) * np.float32(num_bins / 360)  # in [0, bins]
    first = np.minimum(np.floor(position).astype(np.int64), num_bins - 1)
    share = (position - first) * magnitude
    votes = np.zeros((*x.shape, num_bins))
    row, column = np.indices(x.shape)
    votes[row, column, first] = magnitude - share
    votes[row, column, (first + 1) % num_bins] = share
    return votes


def motion_votes(u: Image, v: Image) -> NDArray[np.float64]:
    """Return the votes (h, w, 9) of flow: for eight directions, or with 1 for the ninth bin where the flow is shorter than .4 px."""
    still = np.sqrt(u * u + v * v) <= STILL_PX
    votes = direction_votes(u, v)
    votes[still] = 0
    return np.concatenate([votes, still[..., None].astype(np.float64)], axis=2)


def cell_sums(votes: NDArray[np.float64], corners: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the sums of votes (h, w, bins) over the cells of patches with these corners: (n, 4, bins), x outer, y inner."""
    height, width, num_bins = votes.shape
    integral = np.zeros((height + 1, width + 1, num_bins))
    integral[1:, 1:] = votes.cumsum(0).cumsum(1)
    cells = []
    for right in (0, CELL_PX):
        for down in (0, CELL_PX):
            x, y = corners[:, 0] + right, corners[:, 1] + down
            x_end, y_end = x + CELL_PX, y + CELL_PX
            cells.append(integral[y_end, x_end] + integral[y, x] - integral[y_end, x] - integral[y, x_end])
    return np.stack(cells, axis=1)


def normalised(sums: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return one vector per patch, with sum of squares 1, from the sums of its cells (n, 4, bins)."""
    values = np.maximum(sums, 0).reshape(len(sums), sums.shape[1] * sums.shape[2]) + CELL_CONSTANT
    vectors: NDArray[np.float32] = np.sqrt(values / values.sum(axis=1, keepdims=True)).astype(np.float32)
    return vectors
