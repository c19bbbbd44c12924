"""Trajectory-pooled descriptors as a system: from videos to rows of the table, stopped and continued, and never with other networks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from command_lines import call_flowkit
from generated_sets import write_motions
from stop_requests import StopAfter

import flowkit
from flowkit.dataset.settings import ExtractSettings
from flowkit.errors import CheckpointError
from flowkit.model.compute.execution import Execution
from flowkit.model.encoding.descriptors.two_passes import encoder_path_of
from flowkit.model.encoding.encoder_files import load_encoder
from flowkit.model.encoding.tdd.features import pooled_features
from flowkit.model.encoding.trajectory_settings import TrajectorySettings
from flowkit.model.evaluation.prediction.svm_rows import SvmPredictor
from flowkit.model.evaluation.protocol import evaluate
from flowkit.model.runs.checkpoint import load_checkpoint, save_weights
from flowkit.model.scoring.feature_files import FeatureFile
from flowkit.run_digests import write_digests

CLASSES = ("Pulsing", "Sliding")
TINY = ("--recipe", "small", "--set", "width=0.03", "--set", "input_size=64", "--batch", 2, "--bn-group", 2, "--steps-per-phase", 1)
QUICK = ("--components", 2, "--camera-motion", "none", "--device", "cpu")
FAST: dict[str, Any] = {
    "settings": TrajectorySettings("none", num_components=2),
    "execution": Execution(device="cpu"),
    "jobs": 1,
    "progress": False,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root of videos of 18 frames, with the trained system. Treat it as read-only."""
    folder = tmp_path_factory.mktemp("tdd")
    write_motions(folder, dict.fromkeys(CLASSES, (2, 1)), num_frames=18, height=64)
    home = folder / "data"
    flowkit.extract(folder / "videos", home, settings=ExtractSettings(short_side=64), jobs=1, progress=False)
    flowkit.pack(home, lists=folder / "split.csv", progress=False)
    _, _, err = call_flowkit("train", "--system", "tdd+idt", *TINY, *QUICK, "--data", home, code=0)
    assert "tdd: a linear SVM on 4 training videos, vectors of " in err
    assert "idt: a linear SVM on 4 training videos, vectors of 852 numbers" in err
    return home


def test_its_rows_are_in_the_tables_of_evaluate_and_compare(root: Path) -> None:
    told = json.loads(call_flowkit("evaluate", "--system", "tdd+idt", "--device", "cpu", "--json", "--data", root, code=0)[1])
    (split,) = told["splits"]
    assert list(split["rows"]) == ["VGG-M appearance", "VGG-M motion", "VGG-M two-streams", "IDT", "TDD", "TDD + IDT"]
    assert {row["num_videos"] for row in split["rows"].values()} == {2}
    assert set(split["svms"]) == {"tdd", "idt"}
    assert set(split["svms"]["tdd"]["provenance"]["networks"]) == {"vgg-m-appearance", "vgg-m-motion"}
    systems = ("--system", "tdd", "--system", "tdd+idt")
    told = json.loads(call_flowkit("compare", *systems, "--device", "cpu", "--json", "--data", root, code=0)[1])
    assert [row["row"] for row in told["rows"]] == ["TDD", "TDD + IDT"]
    assert all(row["num_videos"] == 2 for row in told["rows"])
    assert flowkit.verify(root) == []


def test_a_vector_has_both_normalisations_of_two_layers_of_each_network(root: Path) -> None:
    path = root / "features" / "default-tdd-k2-camera-none-split1.h5"
    encoder = load_encoder(encoder_path_of(path))
    expected = [
        f"{stream}_{layer}_{norm}"
        for stream, layers in {"appearance": ("conv4", "conv5"), "motion": ("conv3", "conv4")}.items()
        for layer in layers
        for norm in ("spatiotemporal", "channel")
    ]
    assert [one.name for one in encoder.types] == expected
    half = [one.projection.num_inputs // 2 for one in encoder.types]
    assert [one.projection.num_outputs for one in encoder.types] == half
    stored = FeatureFile(path)
    assert stored.provenance["streams"] == {"tdd": sum(2 * 2 * size for size in half)}
    assert stored.provenance["scales"] == [1.0]
    assert len(stored) == 6


def test_a_run_that_is_stopped_goes_on_where_it_was_and_gives_the_same_bytes(root: Path, tmp_path: Path) -> None:
    path, stopped = tmp_path / "vectors.h5", 0
    while (report := pooled_features(root, output=path, **FAST, stop=StopAfter(25))).stopped:
        assert not path.exists()
        stopped += 1
        assert stopped < 60
    assert stopped
    assert report.num_videos == 6
    there = root / "features" / "default-tdd-k2-camera-none-split1.h5"
    assert path.read_bytes() == there.read_bytes()
    assert encoder_path_of(path).read_bytes() == encoder_path_of(there).read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == [encoder_path_of(path).name, path.name]


def test_the_command_computes_what_the_training_did(root: Path, tmp_path: Path) -> None:
    line = ("features", "--of", "tdd", "--components", 2, "--camera-motion", "none", "--device", "cpu", "--data", root)
    _, out, err = call_flowkit(*line, code=0)
    assert "default-tdd-k2-camera-none-split1.h5: 6 videos; features for each video: tdd " in out
    assert "6 videos had them already." in err
    with pytest.raises(click.UsageError, match="--layer would do nothing here: --of tdd has maps of two networks"):
        call_flowkit(*line, "--layer", "logits")
    video = tmp_path / "a.avi"
    video.write_bytes(b"")
    with pytest.raises(click.UsageError, match="--of tdd is for the videos of a data root"):
        call_flowkit(*line, video)


def test_a_video_file_has_the_scores_of_evaluate(root: Path) -> None:
    tested = evaluate(root, system="tdd+idt", execution=Execution(device="cpu")).splits[0]
    predictor = SvmPredictor("TDD + IDT", root, execution=Execution(device="cpu"))
    video_id = tested.video_ids[0]
    prediction = predictor.predict(root.parent / "videos" / f"{video_id}.avi", progress=False)
    assert list(prediction.scores) == ["TDD", "IDT", "fused"]
    for row, part in {"TDD": "TDD", "TDD + IDT": "fused"}.items():
        np.testing.assert_allclose(prediction.scores[part], tested.rows[row].scores[0], rtol=1e-4, atol=1e-5)


def convolutions_of(state: Mapping[str, torch.Tensor]) -> list[int]:
    return sorted(int(name.split(".")[2]) for name, values in state.items() if values.ndim == 4)


def test_maps_that_are_the_same_everywhere_contribute_zeros_and_a_note_says_so(root: Path, tmp_path: Path) -> None:
    home = tmp_path / "data"
    shutil.copytree(root, home, symlinks=True)
    weights = home / "runs/default/split1/vgg-m-appearance/weights.safetensors"
    checkpoint = load_checkpoint(weights)
    conv4, conv5 = [f"appearance.features.{place}." for place in convolutions_of(checkpoint.network)[3:5]]
    # Maps of zeros after conv4, so that those after conv5 are its bias.
    changed = {f"{conv4}bias": torch.full_like(checkpoint.network[f"{conv4}bias"], -1.0)}
    changed |= {f"{conv4}weight": torch.zeros_like(checkpoint.network[f"{conv4}weight"])}
    changed |= {f"{conv5}bias": torch.full_like(checkpoint.network[f"{conv5}bias"], 2.0)}
    save_weights(weights, replace(checkpoint, network={**checkpoint.network, **changed}))
    write_digests(weights.parent)
    report = pooled_features(home, output=tmp_path / "vectors.h5", **FAST)
    names = [f"appearance_{layer}_{norm}" for layer in ("conv4", "conv5") for norm in ("spatiotemporal", "channel")]
    assert report.warnings == (
        f"the descriptors {', '.join(names)} of the training videos are all equal, so their part of each vector is 0",
    )
    encoder = load_encoder(encoder_path_of(report.path))
    size = sum(one.size for one in encoder.types[: len(names)])
    for found in FeatureFile(report.path).read_all():
        (vector,) = found.arrays["tdd"]
        assert not vector[:size].any()
        assert vector[size:].any()


def test_vectors_of_other_networks_are_refused_and_computed_again_with_restart(root: Path, tmp_path: Path) -> None:
    home = tmp_path / "data"
    shutil.copytree(root, home, symlinks=True)
    line = ("train", "--system", "tdd", *TINY, *QUICK, "--seed", 1, "--data", home)
    call_flowkit("train", "--phase", "vgg-m-motion", *TINY, "--seed", 1, "--device", "cpu", "--restart", "--data", home, code=0)
    call_flowkit("train", "--phase", "vgg-m-appearance", *TINY, "--seed", 1, "--device", "cpu", "--restart", "--data", home, code=0)
    with pytest.raises(CheckpointError, match=r"fitted with other settings, which differ in networks; .* --restart` computes them again"):
        call_flowkit(*line)
    before = (home / "runs/default/split1/tdd/weights.safetensors").read_bytes()
    _, _, err = call_flowkit(*line, "--restart", code=0)
    assert "tdd: a linear SVM on 4 training videos" in err
    assert (home / "runs/default/split1/tdd/weights.safetensors").read_bytes() != before


def test_without_trained_networks_there_are_no_maps(root: Path) -> None:
    with pytest.raises(CheckpointError, match="no trained vgg-m-appearance"):
        pooled_features(root, run="other", **FAST)
