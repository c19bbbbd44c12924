"""The points of one level that are being followed, and what is gathered along their way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.trajectories.histograms_reference import TOTAL_SIZE

TRACK_STEPS = 15  # of a trajectory, which has one point more
TIME_CELLS = 3  # over which descriptors are averaged
CELL_STEPS = TRACK_STEPS // TIME_CELLS

Floats = NDArray[np.float32]
AddDescriptors = Callable[[NDArray[np.uint8], Floats, NDArray[np.int64], Floats, NDArray[np.int64]], None]


@dataclass(frozen=True, eq=False)
class FinishedTracks:
    """Tracks of one level that have had 15 steps, in px of their level, in the order in which they began.

    Parameters
    ----------
    points : float32 array, shape (n, 16, 2), px
    displacements : float32 array, shape (n, 15, 2), px
        The flow at each point but the last, after camera motion is removed.
    descriptors : float32 array, shape (n, 3, 132)
        The sums of HOG, HOF, MBHx and MBHy over five steps each.
    """

    points: Floats
    displacements: Floats
    descriptors: Floats


class LiveTracks:
    """The tracks of one level. They are kept in slots of arrays that grow when need be; `_order` lists the slots, oldest track first.

    Parameters
    ----------
    add_descriptors : callable
        Adds the descriptors of points to sums; see `histograms.add_patch_histograms`.
    """

    def __init__(self, add_descriptors: AddDescriptors) -> None:
        self._add_descriptors = add_descriptors
        self._points = np.empty((0, TRACK_STEPS + 1, 2), np.float32)
        self._displacements = np.empty((0, TRACK_STEPS, 2), np.float32)
        self._descriptors = np.empty((0, TIME_CELLS, TOTAL_SIZE), np.float32)
        self._steps = np.empty(0, np.int64)  # that the track in each slot has had
        self._free = np.empty(0, np.int64)
        self._order = np.empty(0, np.int64)

    def positions(self) -> Floats:
        """Return where the tracks are now: float32 (n, 2), px."""
        return self._points[self._order, self._steps[self._order]]

    def start(self, points: Floats) -> None:
        """Begin a track at each of these points (n, 2)."""
        if len(points) > len(self._free):
            self._grow(len(points) - len(self._free))
        slots, self._free = np.split(self._free, [len(points)])
        self._points[slots, 0] = points
        self._descriptors[slots] = 0
        self._steps[slots] = 0
        self._order = np.concatenate([self._order, slots])

    def advance(self, grey: NDArray[np.uint8], flow: Floats, compensated: Floats) -> FinishedTracks:
        """Move every point by the flow, and return the tracks that have had all their steps; they and those that left are forgotten.

        Parameters
        ----------
        grey : uint8 array, shape (h, w)
            The level of the frame in which the points are.
        flow, compensated : float32 array, shape (h, w, 2), px
            The flow to the next frame, as it is, which moves the points, and after camera motion is removed, which describes them.
        """
        height, width = grey.shape
        points = self.positions()
        at = np.clip(np.rint(points).astype(np.int64), 0, (width - 1, height - 1))
        moved = points + flow[at[:, 1], at[:, 0]]
        stays = ((moved > 0) & (moved < (width, height))).all(axis=1)
        self._release(self._order[~stays])
        slots, at = self._order[stays], at[stays]
        if len(slots):
            steps = self._steps[slots]
            self._displacements[slots, steps] = compensated[at[:, 1], at[:, 0]]
            sums = self._descriptors.reshape(-1, TOTAL_SIZE)
            self._add_descriptors(grey, compensated, at, sums, slots * TIME_CELLS + steps // CELL_STEPS)
            self._points[slots, steps + 1] = moved[stays]
            self._steps[slots] += 1
        done = self._steps[slots] == TRACK_STEPS
        finished, self._order = slots[done], slots[~done]
        self._release(finished)
        return FinishedTracks(self._points[finished], self._displacements[finished], self._descriptors[finished])

    def _release(self, slots: NDArray[np.int64]) -> None:
        self._free = np.concatenate([self._free, slots])

    def _grow(self, least: int) -> None:
        """Add slots, at least so many, and at least half as many as there are."""
        num = len(self._steps)
        added = max(least, num // 2)
        for name in ("_points", "_displacements", "_descriptors", "_steps"):
            old: NDArray[Any] = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.zeros((added, *old.shape[1:]), old.dtype)]))
        self._free = np.concatenate([self._free, np.arange(num, num + added)])
