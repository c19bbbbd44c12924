"""HOG, HOF and MBH around points: the fast path, which computes what `histograms_reference` defines."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from flowkit.trajectories import histogram_kernels as kernels
from flowkit.trajectories.histograms_reference import PATCH_PX, patch_corners


def add_patch_histograms(
    grey: NDArray[np.uint8],
    flow: NDArray[np.float32],
    positions: NDArray[np.int64],
    sums: NDArray[np.float32],
    rows: NDArray[np.int64],
) -> None:
    """Add the descriptors of patches to sums; only the part of the level that the patches cover is looked at.

    Parameters
    ----------
    grey, flow, positions
        See `histograms_reference.patch_histograms`, which returns the descriptors.
    sums : float32 array, shape (m, 132)
        What they are added to.
    rows : int64 array, shape (n,)
        To which row of it each.
    """
    if not len(positions):
        return
    corners = patch_corners(positions, *grey.shape)
    left, top = corners.min(axis=0)
    width, height = corners.max(axis=0) - (left, top) + PATCH_PX
    x, y = np.empty((2, kernels.NUM_PLANES, height, width), np.float32)
    kernels.vectors(np.ascontiguousarray(grey), np.ascontiguousarray(flow), top, left, x, y)
    degrees = cv2.phase(x.reshape(-1, width), y.reshape(-1, width), angleInDegrees=True).reshape(x.shape)
    bins = np.empty(x.shape, np.int32)
    kernels.votes(x, y, degrees, bins)
    order = np.argsort(corners[:, 1], kind="stable")
    cells = np.empty((len(corners), 4, kernels.COLUMN_SIZE), np.float32)
    kernels.add_descriptors(x, y, bins, corners[order] - (left, top), cells, sums, rows[order])
