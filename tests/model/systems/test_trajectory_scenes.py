"""Improved trajectories tell motions apart, also before a camera that shakes: from videos to the row IDT, on generated scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from generated_sets import write_motions

import flowkit
from flowkit.dataset.settings import ExtractSettings
from flowkit.demo_videos import MOTIONS, SceneSettings, draw_scene
from flowkit.model.compute.execution import Execution
from flowkit.model.evaluation.protocol import evaluate
from flowkit.model.systems.registry import SVM_PHASES
from flowkit.model.training.svm_training import train_svm_phase
from flowkit.model.training.svm_vectors import VectorChoices

MANY, FEW = (16, 14), (4, 26)  # training and test videos of each motion
MUCH = 10  # times the shake of the demo: 2.5 px per frame along each axis


def accuracy(folder: Path, camera_motions: tuple[Any, ...], numbers: tuple[int, int], *, shake: float) -> dict[str, float]:
    """Return the accuracy of the row IDT on the test videos of three motions, for each way to find the motion of the camera."""
    write_motions(folder, dict.fromkeys(MOTIONS, numbers), num_frames=24, width=160, height=120, shake=shake)
    root = folder / "data"
    flowkit.extract(folder / "videos", root, settings=ExtractSettings(short_side=32), progress=False)  # their flow is not used
    flowkit.pack(root, lists=folder / "split.csv", progress=False)
    found = {}
    for how in camera_motions:
        train_svm_phase(SVM_PHASES["idt"], root, run=how, choices=VectorChoices(16, how), progress=False)
        found[how] = evaluate(root, run=how, execution=Execution(device="cpu"), progress=False).splits[0].rows["IDT"].top1
    return found


@pytest.mark.slow
def test_trajectories_tell_three_motions_apart(tmp_path: Path) -> None:
    assert accuracy(tmp_path, ("sift",), MANY, shake=1)["sift"] >= 0.95


@pytest.mark.slow
def test_the_motion_of_a_camera_that_shakes_is_removed(tmp_path: Path) -> None:
    # With more training videos the SVM learns to see through the shake: benchmarks/trajectory_scenes.py compares their numbers.
    found = accuracy(tmp_path, ("sift", "flow", "none"), FEW, shake=MUCH)
    assert found["sift"] >= 0.9
    assert min(found["sift"], found["flow"]) >= found["none"] + 0.05


def test_the_setting_of_the_shake_multiplies_it() -> None:
    scenes = [draw_scene("Sliding", np.random.default_rng(3), SceneSettings(num_frames=24, shake=shake)) for shake in (0, 1, MUCH)]
    assert not scenes[0].shake.any()
    assert np.allclose(scenes[2].shake, MUCH * scenes[1].shake)
    drawn = [draw_scene("Sliding", np.random.default_rng(k), SceneSettings(num_frames=24, shake=MUCH)).shake for k in range(200)]
    steps = np.abs(np.diff(np.stack(drawn), axis=1)) * 120
    assert 2 < steps.mean() < 3
    with pytest.raises(flowkit.FlowkitError, match="shake of a generated video"):
        SceneSettings(shake=-1)
