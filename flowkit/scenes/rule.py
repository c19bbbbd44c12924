"""The rule by which a pair of neighbouring frames is a cut, and a frame is a repeated one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flowkit.scenes.measures import LEAST_ERROR, NEAR_PAIRS, PairMeasures

if TYPE_CHECKING:
    from numpy.typing import NDArray

RULE = 1  # grows with every change of what is found
_PEAK = 2.0  # times the second largest error on either side
_COMPARED = 4  # pairs on either side, the nearest that are not equal
_MOST_REPEATED_CHANGE = 12.0  # grey levels
_REPEATED_SHARE = 0.3  # of the changes before and after
_MOST_REPEATS = 4  # pairs on either side among which the picture changes


@dataclass(frozen=True)
class SceneChanges:
    """The cuts and the repeated frames of a video.

    Parameters
    ----------
    cuts : tuple of int
        Flow fields that lead across a cut: cut k is between frames k and k + 1.
    num_repeated : int
        The number of frames that repeat the frame before them.
    """

    cuts: tuple[int, ...] = ()
    num_repeated: int = 0


def scene_changes(measures: PairMeasures) -> SceneChanges:
    """Find cuts and repeated frames.

    Parameters
    ----------
    measures : PairMeasures
        What was measured of all pairs of neighbouring frames.

    Returns
    -------
    SceneChanges

    Notes
    -----
    A pair is a cut if the blocks of one frame are not found in the other: their error is at least 0.3 of the contrast, and at least
    twice the second largest of the four nearest pairs on either side (at most 8 pairs away, repeated frames left out), so that pans
    and shaking cameras, whose pairs are all alike, and fades are none. If the scene goes on after at most three frames, it was a flash.

    A frame is repeated if its picture is that of the frame before, byte for byte; or if the change is at most 12 grey levels and
    at most 0.3 of the largest of up to four changes before it, and of up to four after it: encoders change a repeated picture a little.
    """
    is_repeated = _repeated(measures)
    moving = np.flatnonzero(~is_repeated)
    cuts = [
        int(pair)
        for pair in np.flatnonzero((measures.relative >= LEAST_ERROR) & ~measures.goes_back)
        if measures.error[pair] >= _PEAK * max(_second_largest(measures.error[near]) for near in _sides(moving, int(pair)))
    ]
    return SceneChanges(tuple(cuts), int(is_repeated.sum()))


def _sides(moving: NDArray[np.intp], pair: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the nearest pairs before and after a pair, out of those in which something moves."""
    at, after = np.searchsorted(moving, pair), np.searchsorted(moving, pair, side="right")
    before, behind = moving[max(at - _COMPARED, 0) : at], moving[after : after + _COMPARED]
    return before[before >= pair - NEAR_PAIRS], behind[behind <= pair + NEAR_PAIRS]


def _second_largest(errors: NDArray[np.float64]) -> float:
    """Return the second largest error, 0 if there are fewer: one neighbour may be a cut itself."""
    return float(np.sort(errors)[-2]) if len(errors) > 1 else 0.0


def _repeated(measures: PairMeasures) -> NDArray[np.bool_]:
    """Return for each pair whether its second frame repeats the first."""
    change = measures.change
    found = measures.is_equal.copy()
    for pair in np.flatnonzero((change <= _MOST_REPEATED_CHANGE) & ~found):
        sides = (change[max(pair - _MOST_REPEATS, 0) : pair], change[pair + 1 : pair + 1 + _MOST_REPEATS])
        largest = [float(side.max()) for side in sides if len(side)]
        found[pair] = bool(largest) and change[pair] <= _REPEATED_SHARE * min(largest)
    return found
