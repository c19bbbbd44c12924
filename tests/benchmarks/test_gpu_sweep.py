"""The fit of the cost model's constants to measured speeds."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from flowkit.flow.cuda.card import KNOWN_CARDS
from flowkit.flow.cuda.cost import CostModel, tilings_of

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from gpu_sweep import BARRIER_CYCLES, CYCLES_PER_INSTRUCTION, LAUNCH_CYCLES, fit, frame_levels, modelled_seconds

CARD, LEVELS = KNOWN_CARDS[90], frame_levels(256, 340)
TILINGS = tilings_of(CARD)[::3]


def seconds_per_pair(model: CostModel, noise: float = 0) -> dict:  # type: ignore[type-arg]
    random = np.random.default_rng(0)
    exact = {tiling: 50e-6 + 20e6 * modelled_seconds(model, [tiling] * len(LEVELS), CARD, LEVELS) for tiling in TILINGS}
    return {tiling: seconds * float(np.exp(random.normal(0, noise))) for tiling, seconds in exact.items()}


def test_constants_behind_exact_measurements_are_found() -> None:
    truth = CostModel(CYCLES_PER_INSTRUCTION[2], BARRIER_CYCLES[4], LAUNCH_CYCLES[3])
    found = fit(seconds_per_pair(truth), CARD, LEVELS)
    assert found.model == truth
    assert found.other_seconds == pytest.approx(50e-6, rel=1e-3)
    assert found.scale == pytest.approx(20e6, rel=1e-3)
    assert found.worst_ratio == pytest.approx(1, abs=1e-6)
    speed = found.pairs_per_second([TILINGS[0]] * len(LEVELS), CARD, LEVELS)
    assert speed == pytest.approx(1 / seconds_per_pair(truth)[TILINGS[0]], rel=1e-3)


def test_noisy_measurements_are_explained_within_their_noise() -> None:
    found = fit(seconds_per_pair(CostModel(), noise=0.05), CARD, LEVELS)
    assert found.other_seconds >= 0
    assert 1.01 < found.worst_ratio < 1.2
