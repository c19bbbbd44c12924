"""Classes of uneven size: drawn equally often, or with weighted losses, in a run that stops and resumes too."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from training_runs import TINY, metrics, run, same, weights, write_uneven_split

from flowkit.dataset.root import Dataset
from flowkit.errors import CheckpointError
from flowkit.model.data.training_clips import ClipDataset, training_loader
from flowkit.model.runs.run_folder import phase_folder
from flowkit.model.systems.configs import make_configs

MOTION = {"split": 2, "phases": ["motion"]}


@pytest.mark.parametrize("balance", ["sampling", "weights"])
def test_a_stopped_run_with_balanced_classes_ends_as_one_that_was_not_stopped(root: Path, balance: str) -> None:
    write_uneven_split(root, 2)
    run(root, run="whole", overrides={"balance": balance}, **MOTION)
    run(root, run="parts", overrides={"balance": balance}, stop_after=2, **MOTION)
    run(root, run="parts", overrides={"balance": balance}, **MOTION)
    assert same(weights(root, "motion", "parts", split=2), weights(root, "motion", "whole", split=2))
    assert metrics(root, "motion", "parts", split=2) == metrics(root, "motion", "whole", split=2)
    stored = json.loads((phase_folder(root, "parts", 2, "motion") / "config.json").read_text())
    assert stored["config"]["balance"] == balance
    with pytest.raises(CheckpointError, match=f'balance is "{balance}", now "none"'):
        run(root, run="parts", **MOTION)


def test_sampling_gives_each_class_its_share_of_the_clips_that_are_trained(root: Path) -> None:
    labels = write_uneven_split(root, 2)
    dataset = Dataset.open(root)
    drawn = {}
    for balance in ("none", "sampling"):
        overrides = {**TINY, "steps": 5, "bn_renewal_steps": 0, "balance": balance}
        config = make_configs("small", num_classes=6, num_videos=len(labels), short_side=40, overrides=overrides)["motion"]
        batches = training_loader(ClipDataset(dataset, dataset.split(2), config))
        drawn[balance] = Counter(int(label) for batch in batches for label in batch.labels)
    assert drawn["sampling"] == dict.fromkeys(range(5), 4)
    assert drawn["none"][0] + drawn["none"][1] >= 10  # four videos of seven
