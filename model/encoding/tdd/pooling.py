"""Trajectory-pooled descriptors: a map's values along each trajectory, added up."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ParameterError
from flowkit.trajectories.tracks import TRACK_STEPS
from flowkit.trajectories.trajectories import Trajectories


def pool_along(
    maps: NDArray[np.float32], trajectories: Trajectories, *, frame_size: tuple[int, int], input_size: tuple[int, int], stride: int = 16
) -> NDArray[np.float32]:
    """Return the trajectory-pooled descriptor of each trajectory.

    Parameters
    ----------
    maps : float32 array, shape (T, C, h, w)
        Normalised maps of the frames of a video. A motion map belongs to the first field of its stack; where a video has fewer maps than
        frames, the last one serves for the rest.
    trajectories : Trajectories
        Their points are in px of the video's frames.
    frame_size, input_size : tuple of 2 int, px
        Height and width of these frames, and those to which they were resized for the network.
    stride : int, px
        Pixels of the network's input per cell of a map.

    Returns
    -------
    float32 array, shape (n, C)
        The sum over the last 15 of a trajectory's 16 points, each in its own frame, of the map's cell that is nearest to it.

    Notes
    -----
    A point at the middle between two cells counts for the one of larger index, and a point beyond the last cell for that one.

    Examples
    --------
    >>> import numpy as np
    >>> from flowkit import Trajectories
    >>> from flowkit.model.encoding.tdd.pooling import pool_along
    >>> none = Trajectories.concatenate([])
    >>> pool_along(np.ones((20, 512, 15, 20), np.float32), none, frame_size=(240, 320), input_size=(240, 320)).shape
    (0, 512)
    """
    rows, columns = cells_of(trajectories, maps.shape[2:], frame_size=frame_size, input_size=input_size, stride=stride)
    times = np.minimum(frames_of(trajectories), len(maps) - 1)
    if len(trajectories) and times.min() < 0:
        raise ParameterError("a trajectory begins before the first frame; are the maps those of its video?")
    return summed(np.moveaxis(maps, 1, 3), times, rows, columns)


def summed(
    maps: NDArray[np.float32],
    times: NDArray[np.int64],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    divisors: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Return the sum over points of the values of maps there.

    Parameters
    ----------
    maps : float32 array, shape (T, h, w, C)
        The maps, channels last.
    times, rows, columns : int64 array, shape (n, 15)
        The points of each trajectory: which map, and which of its cells.
    divisors : float32 array, shape (T, h, w), optional
        By what the values of each cell are divided.

    Returns
    -------
    float32 array, shape (n, C)
    """
    pooled = np.zeros((len(times), maps.shape[3]), np.float32)
    for step in range(times.shape[1]):  # one point of all trajectories at a time: the values of all steps would be 15 times as many
        at = (times[:, step], rows[:, step], columns[:, step])
        pooled += maps[at] if divisors is None else maps[at] / divisors[at][:, None]
    return pooled


def frames_of(trajectories: Trajectories) -> NDArray[np.int64]:
    """Return the frame of each trajectory's last 15 points: int64 (n, 15)."""
    return trajectories.end_frame[:, None] + np.arange(1 - TRACK_STEPS, 1)


def cells_of(
    trajectories: Trajectories, map_size: tuple[int, ...], *, frame_size: tuple[int, int], input_size: tuple[int, int], stride: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return row and column of the cell that is nearest to each of the last 15 points: two int64 arrays (n, 15)."""
    found = []
    for axis, (cells, before, after) in enumerate(zip(map_size, frame_size, input_size, strict=True)):
        # Points are x, y; sizes are height, width.
        place = trajectories.points[:, 1:, 1 - axis].astype(np.float64) * after / (before * stride)
        found.append(np.clip(np.floor(place + 0.5).astype(np.int64), 0, cells - 1))
    return found[0], found[1]
