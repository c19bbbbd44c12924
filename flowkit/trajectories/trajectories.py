"""`Trajectories`, and which of the finished tracks become one: those that move, smoothly, and not only with the camera."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ParameterError
from flowkit.trajectories.histograms_reference import SIZES
from flowkit.trajectories.tracks import CELL_STEPS, TIME_CELLS, TRACK_STEPS, FinishedTracks

LEAST_DEVIATION_PX = np.sqrt(3.0)  # a track that varies less than this in x and in y does not move
MOST_DEVIATION_PX = 50.0
LONGEST_STEP_PX, LONGEST_STEP_SHARE = 20.0, 0.7  # a longer step that is also more than this share of the length is an error of the flow
LEAST_OWN_MOTION_PX = 1.0  # a track without a longer step, after camera motion is removed, moves with the camera
MOST_RELATIVE = 0.999

_COLUMNS: dict[str, tuple[int, ...]] = {  # the shape of each field of a trajectory
    "end_frame": (),
    "mean_xy": (2,),
    "std_xy": (2,),
    "length": (),
    "scale": (),
    "position": (3,),
    "points": (TRACK_STEPS + 1, 2),
    "shape": (2 * TRACK_STEPS,),
    **{name: (TIME_CELLS * size,) for name, size in zip(("hog", "hof", "mbh_x", "mbh_y"), SIZES, strict=True)},
}


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Improved dense trajectories of one video [1]_, ordered by the frame in which they end, then by scale.

    Lengths are in px of the full-size frame. ``len()`` gives the number of trajectories n.

    Parameters
    ----------
    end_frame : int64 array, shape (n,)
        The number of the last frame, from 0; a trajectory begins 15 frames before.
    mean_xy, std_xy : float32 array, shape (n, 2), px
        Mean and standard deviation of the 16 points.
    length : float32 array, shape (n,), px
        Length of the way.
    scale : float32 array, shape (n,)
        How many times larger the full-size frame is than the level in which the points were tracked: a power of sqrt(2).
    position : float32 array, shape (n, 3)
        The middle of the trajectory in the video, relative to its width, height and number of frames: from 0 to .999. The third
        number is NaN if the number of frames was not known.
    points : float32 array, shape (n, 16, 2), px
        x and y in each frame.
    shape : float32 array, shape (n, 30)
        The 15 steps without camera motion, u and v of each, divided by the sum of their lengths.
    hog, mbh_x, mbh_y : float32 array, shape (n, 96)
        Histograms of the gradients of the grey frame, and of u and v of the flow: 3 cells in time, each the mean of 5 vectors of
        4 cells in space (upper left, lower left, upper right, lower right) of 8 directions.
    hof : float32 array, shape (n, 108)
        Histograms of the flow, with a ninth bin for no motion.

    Raises
    ------
    ParameterError
        If an array has another shape.

    References
    ----------
    .. [1] Wang, Schmid, "Action recognition with improved trajectories", ICCV 2013.

    Examples
    --------
    See `improved_trajectories`, which makes them.

    >>> from flowkit import Trajectories
    >>> none = Trajectories.concatenate([])
    >>> len(none), none.points.shape, none.hof.shape
    (0, (0, 16, 2), (0, 108))
    """

    end_frame: NDArray[np.int64]
    mean_xy: NDArray[np.float32]
    std_xy: NDArray[np.float32]
    length: NDArray[np.float32]
    scale: NDArray[np.float32]
    position: NDArray[np.float32]
    points: NDArray[np.float32]
    shape: NDArray[np.float32]
    hog: NDArray[np.float32]
    hof: NDArray[np.float32]
    mbh_x: NDArray[np.float32]
    mbh_y: NDArray[np.float32]

    def __post_init__(self) -> None:
        for name, columns in _COLUMNS.items():
            expected, shape = (len(self), *columns), getattr(self, name).shape
            if shape != expected:
                raise ParameterError(f"{name} of {len(self)} trajectories must have the shape {expected}, got {shape}")

    def __len__(self) -> int:
        return len(self.end_frame)

    def __repr__(self) -> str:
        return f"Trajectories({len(self)} trajectories)"

    @classmethod
    def concatenate(cls, blocks: Iterable[Trajectories]) -> Trajectories:
        """Return several blocks as one, in their order; without any, no trajectories."""
        together = [_NONE, *blocks]
        return cls(**{field.name: np.concatenate([getattr(block, field.name) for block in together]) for field in fields(cls)})


def kept(tracks: FinishedTracks, *, scale: float, end_frame: int, width: int, height: int, num_frames: int | None) -> Trajectories:
    """Return those tracks that are trajectories, in px of the full-size frame.

    A track is dropped if its points hardly vary or vary too much, if one step is most of its length, or if the flow without camera
    motion never exceeds 1 px along it.

    Parameters
    ----------
    tracks : FinishedTracks
        The tracks of one level that end in the same frame.
    scale : float
        How many times larger the full-size frame is than the level.
    end_frame : int
        The number of that frame, from 0.
    width, height : int, px
        Size of the full-size frame.
    num_frames : int or None
        Number of frames of the video, if it is known.
    """
    points, displacements = (  # (16, 2, n) and (15, 2, n): NumPy is slow at sums along short last axes
        np.ascontiguousarray(array.transpose(1, 2, 0), np.float64) * scale for array in (tracks.points, tracks.displacements)
    )
    mean, deviation = points.mean(axis=0), points.std(axis=0)
    steps, own_steps = (np.sqrt((vectors**2).sum(axis=1)) for vectors in (np.diff(points, axis=0), displacements))
    length, longest = steps.sum(axis=0), steps.max(axis=0)
    keep = (deviation >= LEAST_DEVIATION_PX).any(axis=0) & (deviation <= MOST_DEVIATION_PX).all(axis=0)
    keep &= (longest <= LONGEST_STEP_PX) | (longest <= LONGEST_STEP_SHARE * length)
    keep &= own_steps.max(axis=0) > LEAST_OWN_MOTION_PX
    num = int(keep.sum())
    end_frames = np.full(num, end_frame, np.int64)
    in_time = np.full(num, np.nan) if num_frames is None else relative_frames(end_frames, num_frames)
    in_space = np.clip(mean[:, keep].T / (width, height), 0, MOST_RELATIVE)
    values: dict[str, NDArray[Any]] = {
        "mean_xy": mean[:, keep].T,
        "std_xy": deviation[:, keep].T,
        "length": length[keep],
        "scale": np.full(num, scale),
        "position": np.column_stack([in_space, in_time]),
        "points": points[..., keep].transpose(2, 0, 1),
        "shape": (displacements[..., keep] / own_steps[:, keep].sum(axis=0)).reshape(2 * TRACK_STEPS, num).T,
    }
    means = tracks.descriptors[keep]
    means /= CELL_STEPS
    for name, part in zip(("hog", "hof", "mbh_x", "mbh_y"), np.split(means, np.cumsum(SIZES)[:-1], axis=2), strict=True):
        values[name] = part.reshape(num, *_COLUMNS[name])
    single = {name: np.ascontiguousarray(value, np.float32) for name, value in values.items()}
    return Trajectories(end_frame=end_frames, **single)


def relative_frames(end_frame: NDArray[np.int64], num_frames: int) -> NDArray[np.float64]:
    """Return the middle frames of trajectories (n,) relative to the number of frames of the video, from 0 to .999."""
    return np.clip((end_frame - TRACK_STEPS / 2) / num_frames, 0, MOST_RELATIVE)


_NONE = Trajectories(
    **{name: np.empty((0, *columns), np.int64 if name == "end_frame" else np.float32) for name, columns in _COLUMNS.items()}
)
