"""Phases that are SVMs, by the example of `idt`: trained once, refused where they do not fit, their rows beside those of networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_lines import call_flowkit
from random_networks import random_checkpoints
from stored_features import features_of, root_with_digests, write_split_again

from flowkit.dataset.root import Dataset
from flowkit.errors import CheckpointError, FeaturesError
from flowkit.model.compute.execution import Execution
from flowkit.model.evaluation.protocol import evaluate
from flowkit.model.evaluation.results import read_results
from flowkit.model.runs.checkpoint import save_weights
from flowkit.model.runs.run_folder import phase_folder
from flowkit.model.scoring.metrics import l2_normalised
from flowkit.model.systems.registry import SVM_PHASES
from flowkit.model.training.svm_phase import SvmPhase, find_phase, train_phase
from flowkit.run_digests import verify_phase

CPU = Execution(device="cpu")
IDT = SVM_PHASES["idt"]


def trained(root: Path, path: Path | None = None, **how: Any) -> SvmPhase:
    """Train the phase on features with a known answer."""
    dataset = Dataset.open(root)
    (root / "features").mkdir(exist_ok=True)
    path = path or features_of(root, root / "features/idt-split1.h5")
    return train_phase(IDT, dataset, dataset.split(1), path, phase_folder(root, "default", 1, "idt"), **how)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return root_with_digests(tmp_path / "data")


def with_networks(root: Path, phases: tuple[str, ...]) -> None:
    split = Dataset.open(root).split(1)
    told = {"quantiser": split.quantiser.to_dict(), "protocol": split.protocol, "digest": split.digest}
    for phase, checkpoint in random_checkpoints(split.classes, **told).items():
        if phase in phases:
            save_weights(phase_folder(root, "default", 1, phase) / "weights.safetensors", checkpoint)


def test_trajectories_alone_have_a_table(root: Path) -> None:
    trained(root)
    evaluation = evaluate(root, execution=CPU)
    assert evaluation.protocol == ()  # nothing is said of frames that a network sees
    split = evaluation.splits[0]
    assert list(split.rows) == ["IDT"]
    assert split.rows["IDT"].top1 == 1
    assert split.svms["idt"]["num_training_videos"] == 12
    assert evaluate(root, system="idt", execution=CPU).splits[0].rows["IDT"].num_correct == 6


def test_rows_with_trajectories_are_means_of_normalised_scores(root: Path) -> None:
    trained(root)
    with_networks(root, ("appearance", "motion", "st-resnet-star"))
    rows = evaluate(root, execution=CPU).splits[0].rows
    assert list(rows) == ["appearance", "motion", "two-streams", "ST-ResNet*", "IDT", "two-streams + IDT", "ST-ResNet* + IDT"]
    for one in ("two-streams", "ST-ResNet*"):
        expected = (l2_normalised(rows[one].scores) + l2_normalised(rows["IDT"].scores)) / 2
        assert np.allclose(rows[f"{one} + IDT"].scores, expected)
    only = evaluate(root, system="two-streams+idt", execution=CPU).splits[0].rows
    assert list(only) == ["appearance", "motion", "two-streams", "IDT", "two-streams + IDT"]
    with pytest.raises(
        CheckpointError, match=r"needs st-resnet, which run 'default' .*`flowkit train --system st-resnet-star\+idt .*` trains"
    ):
        evaluate(root, system="st-resnet-star+idt", execution=CPU)


def test_the_command_stores_the_rows_and_fuse_reads_them(root: Path) -> None:
    trained(root)
    with_networks(root, ("appearance", "motion"))
    _, out, _ = call_flowkit("evaluate", "--data", root, "--device", "cpu", code=0)
    assert "| two-streams + IDT" in out
    assert "IDT: a linear SVM on improved trajectories" in out
    folder = root / "reports/default/split1"
    stored = read_results(folder).splits[0]
    assert stored.rows["IDT"].top1 == 1
    assert stored.svms["idt"]["features"] == "idt-split1.h5"
    assert "two-streams + IDT" in (folder / "report.html").read_text(encoding="utf-8")
    _, out, _ = call_flowkit("fuse", root / "features/idt-split1.h5", "--row", "two-streams + IDT", "--data", root, code=0)
    assert "two-streams + IDT + idt-split1" in out
    told = json.loads(call_flowkit("evaluate", "--data", root, "--system", "idt", "--replace", "--json", code=0)[1])
    assert list(told["splits"][0]["rows"]) == ["IDT"]


def test_training_again_changes_nothing_and_other_features_are_refused(root: Path) -> None:
    first = trained(root)
    weights = first.folder / "weights.safetensors"
    before = weights.read_bytes()
    trained(root)
    assert weights.read_bytes() == before
    assert verify_phase(first.folder).state == "intact"
    other = features_of(root, root / "features/other.h5", trained_on="a" * 64)
    with pytest.raises(CheckpointError, match="trained with other values of: features"):
        trained(root, other)
    trained(root, other, restart=True)
    assert verify_phase(first.folder).state == "intact"
    found = find_phase(IDT, Dataset.open(root), Dataset.open(root).split(1), run="default")
    assert found is not None
    assert found.features.path == other


def test_what_does_not_fit_is_refused(root: Path) -> None:
    dataset = Dataset.open(root)
    assert find_phase(IDT, dataset, dataset.split(1), run="default") is None
    folder = trained(root).folder
    features_of(root, root / "features/idt-split1.h5", trained_on="b" * 64)
    with pytest.raises(CheckpointError, match=r"trained on other features .*--restart"):
        find_phase(IDT, dataset, dataset.split(1), run="default")
    (root / "features/idt-split1.h5").unlink()
    with pytest.raises(FeaturesError, match="no file of features"):
        find_phase(IDT, dataset, dataset.split(1), run="default")
    features_of(root, root / "features/idt-split1.h5")
    other = write_split_again(root, 1, range(0, 18, 2), range(1, 18, 2))
    with pytest.raises(CheckpointError, match="other videos than the training list of split 1"):
        find_phase(IDT, dataset, other, run="default")
    for name in ("../dataset.json", 3, ".."):
        record = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(record | {"features": name}))
        with pytest.raises(CheckpointError, match="must name a file in the folder features"):
            find_phase(IDT, dataset, other, run="default")


def test_damaged_weights_are_refused(root: Path) -> None:
    folder = trained(root).folder
    weights = folder / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: it is damaged"):
        evaluate(root, execution=CPU)
    assert verify_phase(folder).state == "damaged"


def test_a_video_without_features_leaves_the_networks_rows(root: Path) -> None:
    (root / "features").mkdir()
    trained(root, features_of(root, root / "features/idt-split1.h5", leave_out=slice(-3, None)))
    with_networks(root, ("appearance",))
    split = evaluate(root, execution=CPU).splits[0]
    assert list(split.rows) == ["appearance"]
    assert split.notes[-1].startswith("no rows with IDT: 3 of 6 videos have no features of trajectories")
    alone = evaluate(root, system="idt", execution=CPU).splits[0]
    assert [clip.reason for clip in alone.failed] == ["it has no features of trajectories"] * 3
