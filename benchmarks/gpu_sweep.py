"""Measure tilings of `iterate` on a GPU, and fit the constants of the cost model to what was measured."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flowkit.flow.cuda.cost import CostModel
from flowkit.flow.cuda.plan import Level
from flowkit.flow.params import TVL1Params

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowkit.flow.cuda.card import Card
    from flowkit.flow.cuda.tiles import Tiling

# The constants that are tried: each is multiplied with each.
CYCLES_PER_INSTRUCTION = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 3.9, 4.5, 5.0, 6.0)
BARRIER_CYCLES = (0.0, 60.0, 120.0, 250.0, 400.0, 600.0, 900.0)
LAUNCH_CYCLES = (0.0, 500.0, 1000.0, 1500.0, 2500.0, 4000.0, 6000.0)


@dataclass(frozen=True)
class Fit:
    """The best constants, and how well they explain the measurements."""

    model: CostModel
    other_seconds: float  # of a pair outside of `iterate`
    scale: float  # seconds of `iterate` per pair and second that the model gives for a pixel-iteration
    worst_ratio: float  # of the measured to the explained time, or the reverse

    def pairs_per_second(self, tilings: Sequence[Tiling], card: Card, levels: Sequence[Level]) -> float:
        """Return the speed that these constants explain or forecast for one tiling per level."""
        return 1 / (self.other_seconds + self.scale * modelled_seconds(self.model, tilings, card, levels))


def modelled_seconds(model: CostModel, tilings: Sequence[Tiling], card: Card, levels: Sequence[Level]) -> float:
    """Return the seconds per pixel-iteration that a model gives, as the mean over the levels by their pixels."""
    pixels = np.array([level.num_padded_pixels for level in levels], np.float64)
    seconds = [
        model.seconds_per_pixel_iteration(tiling, card, level.pitch, level.height) for tiling, level in zip(tilings, levels, strict=True)
    ]
    return float(pixels @ seconds / pixels.sum())


def frame_levels(height: int, width: int) -> tuple[Level, ...]:
    """Return the levels of the pyramid of a frame with default parameters."""
    return tuple(Level(width, height) for height, width in TVL1Params().level_sizes(height, width))


def fit(measured: dict[Tiling, float], card: Card, levels: Sequence[Level]) -> Fit:
    """Return the constants that explain best the time per pair, s, of each tiling (for all levels).

    The time of a pair is ``other + scale * model``; for each set of constants both are found by least squares of relative errors, and
    the set with the smallest sum of squares wins.
    """
    seconds = np.array([*measured.values()])
    best: tuple[float, Fit] | None = None
    for constants in itertools.product(CYCLES_PER_INSTRUCTION, BARRIER_CYCLES, LAUNCH_CYCLES):
        model = CostModel(*constants)
        modelled = np.array([modelled_seconds(model, [tiling] * len(levels), card, levels) for tiling in measured])
        table = np.stack([np.ones_like(modelled), modelled / modelled.mean()], axis=1) / seconds[:, None]
        (other, scale), *_ = np.linalg.lstsq(table, np.ones_like(seconds), rcond=None)
        if other < 0 or scale <= 0:
            other, scale = 0.0, float(1 / np.mean(modelled / modelled.mean() / seconds))
        ratios = (other + scale * modelled / modelled.mean()) / seconds
        error = float(((ratios - 1) ** 2).sum())
        if best is None or error < best[0]:
            worst = float(np.exp(np.abs(np.log(ratios)).max()))
            best = error, Fit(model, float(other), float(scale / modelled.mean()), worst)
    assert best is not None
    return best[1]
