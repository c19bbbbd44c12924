"""The recipe for users' own data sets learns what the official one does not: little motion, few videos, classes of uneven size."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean, median

import pytest
from generated_sets import LITTLE, packed_motions
from training_runs import metrics

from flowkit.model.compute.execution import Execution
from flowkit.model.training.chain import train

# The recipe's rate is for weights from ImageNet; a narrow network from random weights needs a higher one.
NARROW = {"lr": 0.01, "base_width": 8, "stage_units": (2, 2, 2, 2), "input_size": 40, "batch": 16, "steps": 80}


@pytest.mark.slow
def test_little_motion_before_a_static_camera_is_learnt_without_spikes(tmp_path: Path) -> None:
    root = packed_motions(tmp_path, dict.fromkeys(("Sliding", "Pulsing"), (12, 1)), share=LITTLE, height=48)
    train(root, phases=["motion"], recipe="own", weights="none", overrides=NARROW, execution=Execution(device="cpu", num_workers=0))
    lines = metrics(root, "motion")
    losses = [line["loss"] for line in lines]
    assert max(losses[20:]) <= 10 * median(losses[20:])
    assert fmean(line["accuracy_motion"] for line in lines[-20:]) > 0.7  # guessing: 1 / 2
