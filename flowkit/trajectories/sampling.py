"""Where trajectories start: on a grid of every level, where the picture has structure and no trajectory is yet."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

STEP_PX = 5  # of the grid; a cell of this size that holds no live point may get a new one in its middle
QUALITY = 0.001  # the least structure at a new point, as a share of the largest in its level

_BLOCK_PX = _SOBEL_PX = 3


def new_points(grey: NDArray[np.uint8], live: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the points of a level at which trajectories start.

    A cell of 5 x 5 px without a live point gets one in its middle, if the smaller eigenvalue of the structure tensor there exceeds
    .001 times the largest one in the level: elsewhere, in flat regions, flow cannot be followed [1]_.

    Parameters
    ----------
    grey : uint8 array, shape (h, w)
        The grey level of a frame.
    live : float32 array, shape (n, 2), px
        x and y of the points that are being tracked.

    Returns
    -------
    float32 array, shape (m, 2), px
        x and y of the new points, row by row.

    References
    ----------
    .. [1] Wang, Klaser, Schmid, Liu, "Dense trajectories and motion boundary descriptors for action recognition", IJCV 2013.

    Examples
    --------
    >>> import numpy as np
    >>> from flowkit.trajectories.sampling import new_points
    >>> grey = np.zeros((32, 32), np.uint8)
    >>> grey[8:14, 8:14] = 200
    >>> new_points(grey, np.array([[13.2, 11.7]], np.float32)).tolist()
    [[7.0, 7.0], [12.0, 7.0], [7.0, 12.0]]
    """
    height, width = grey.shape
    columns, rows = width // STEP_PX, height // STEP_PX
    structure = cv2.cornerMinEigenVal(grey, _BLOCK_PX, ksize=_SOBEL_PX)
    middle = STEP_PX // 2
    wanted = structure[middle : rows * STEP_PX : STEP_PX, middle : columns * STEP_PX : STEP_PX] > structure.max() * QUALITY
    column, row = np.floor(live).astype(np.int64).T // STEP_PX
    inside = (column < columns) & (row < rows)  # the rim on the right and below, less than a cell wide, has no cells
    wanted[row[inside], column[inside]] = False
    found_rows, found_columns = np.nonzero(wanted)
    return (np.stack([found_columns, found_rows], axis=1) * STEP_PX + middle).astype(np.float32)
