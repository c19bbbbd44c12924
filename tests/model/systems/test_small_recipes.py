"""The recipe `small` on generated videos, whose class is a hue and a motion: one stream guesses the other half, and both know it."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipe_bars import Bar, bars_of

import flowkit
from flowkit.dataset.settings import ExtractSettings
from flowkit.demo_videos import SceneSettings, write_scenes
from flowkit.model.compute.execution import Execution
from flowkit.model.evaluation.protocol import evaluate
from flowkit.model.systems.registry import SYSTEMS
from flowkit.model.training.chain import train

VGG_M = SYSTEMS["two-streams-vgg-m"]
CPU = Execution(device="cpu", num_workers=0)
TRAIN, TEST = 16, 8  # videos of each class
# Shorter than the recipe, because there are fewer videos; benchmarks/small_recipes.py takes the recipe as it is, and 40 and 15 videos.
STEPS = {"vgg-m-appearance.steps": 100, "vgg-m-motion.steps": 180}


def test_which_rows_have_a_ceiling_follows_from_what_their_networks_see() -> None:
    ceiling, least = Bar(1 / 3, is_ceiling=True), Bar(0.95, is_ceiling=False)
    assert bars_of(VGG_M) == {"VGG-M appearance": ceiling, "VGG-M motion": ceiling, "VGG-M two-streams": least}
    assert bars_of(SYSTEMS["two-stream-fusion"]) == {"Two-Stream Fusion": least}
    assert bars_of(SYSTEMS["two-streams-lstm"])["LSTM on motion"] == ceiling
    assert not {"LSTM on appearance", "Dynamic images of RGB", "C3D classifier"} & {
        name for system in SYSTEMS.values() for name in bars_of(system)
    }


@pytest.mark.slow  # about two minutes: it makes 216 videos, computes their flow and trains two networks
def test_two_streams_of_vgg_m_know_both_halves_and_each_alone_only_one(tmp_path: Path) -> None:
    write_scenes(tmp_path, train_per_class=TRAIN, test_per_class=TEST, settings=SceneSettings(num_frames=24), progress=False)
    root = tmp_path / "data"
    flowkit.extract(tmp_path / "videos", root, settings=ExtractSettings(short_side=64, solver="fast"), jobs=2, progress=False)
    flowkit.pack(root, lists=tmp_path / "split.csv", progress=False)
    train(root, system=VGG_M.name, recipe="small", overrides=STEPS, execution=CPU, progress=False)
    rows = evaluate(root, system=VGG_M.name, execution=CPU, progress=False).splits[0].rows
    found = {name: (round(row.top1, 3), row.interval) for name, row in rows.items()}
    assert {name: bar.holds(rows[name]) for name, bar in bars_of(VGG_M).items()} == dict.fromkeys(rows, True), found
