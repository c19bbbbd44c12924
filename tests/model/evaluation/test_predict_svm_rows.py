"""`predict` with rows that have SVMs: the scores are those of `evaluate`, and what cannot be classified is said in one line."""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
import pytest
from command_lines import call_flowkit
from trajectory_roots import CLASSES, make_trajectory_root

from flowkit.errors import CheckpointError, ParameterError
from flowkit.model.compute.execution import Execution
from flowkit.model.evaluation.prediction.svm_rows import SvmPredictor
from flowkit.model.evaluation.protocol import evaluate
from flowkit.model.scoring.metrics import softmax

CPU = Execution(device="cpu")
TINY = ("--recipe", "small", "--set", "width=0.03", "--set", "input_size=32", "--batch", 2, "--bn-group", 2, "--steps-per-phase", 1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with videos and a data root whose run has C3D, its SVM and that of trajectories. Treat it as read-only."""
    home = tmp_path_factory.mktemp("svm-rows")
    root = make_trajectory_root(home)
    quick = ("--components", 2, "--camera-motion", "none", "--device", "cpu")
    call_flowkit("train", "--system", "c3d+idt", *TINY, *quick, "--data", root, code=0)
    return home


@pytest.mark.parametrize("row", ["C3D", "IDT", "C3D + IDT"])
def test_scores_are_those_of_evaluate(home: Path, row: str) -> None:
    tested = evaluate(home / "data", execution=CPU, system="c3d+idt").splits[0]
    predictor = SvmPredictor(row, home / "data", execution=CPU)
    assert predictor.classes == CLASSES
    for place, video_id in enumerate(tested.video_ids):
        prediction = predictor.predict(home / "videos" / f"{video_id}.avi", progress=False)
        assert (prediction.status, prediction.num_frames) == ("ok", 18)
        np.testing.assert_allclose(prediction.scores["fused"], tested.rows[row].scores[place], rtol=1e-4, atol=1e-5)
        assert list(prediction.scores) == [*row.split(" + "), "fused"]


def test_the_command_says_what_the_percentages_are(home: Path, tmp_path: Path) -> None:
    video = home / "videos" / "Sliding" / "test000.avi"
    broken = tmp_path / "broken.avi"
    broken.write_bytes(b"no video")
    line = ("predict", video, broken, "--data", home / "data", "--row", "idt", "--device", "cpu", "--json")
    _, out, err = call_flowkit(*line, code=3)
    told = json.loads(out)
    assert told["row"] == "IDT"
    assert set(told["weights"]) == {"idt"}
    assert "scores of SVMs are no probabilities" in err
    good, bad = told["videos"]
    scores = SvmPredictor("IDT", home / "data", execution=CPU).predict(video, progress=False).scores["fused"]
    assert good["top"][0]["class_name"] == CLASSES[scores.argmax()]
    assert good["top"][0]["probability"] == pytest.approx(softmax(scores).max())
    assert (bad["status"], bad["top"]) == ("undecodable", [])


def test_what_such_a_row_does_not_have_is_refused(home: Path) -> None:
    line = ("predict", home / "videos" / "Sliding" / "test000.avi", "--data", home / "data", "--device", "cpu")
    with pytest.raises(
        click.UsageError, match="--window would do nothing here: windows are classified by rows of networks, and IDT has an SVM"
    ):
        call_flowkit(*line, "--row", "IDT", "--window", 1)
    with pytest.raises(click.UsageError, match=r"--crops would do nothing here: C3D \+ IDT joins no row of networks"):
        call_flowkit(*line, "--row", "C3D + IDT", "--crops", "ten")
    with pytest.raises(ParameterError, match="row must be one of IDT, "):
        SvmPredictor("motion", home / "data", execution=CPU)
    with pytest.raises(CheckpointError, match=r"run 'other' has no trained idt for split 1; `flowkit train --system idt .*--run other"):
        call_flowkit(*line, "--row", "IDT", "--run", "other")


def test_an_encoder_that_was_replaced_is_noticed(home: Path, tmp_path: Path) -> None:
    encoder = next((home / "data" / "features").glob("idt-*-encoder.safetensors"))
    kept = encoder.rename(tmp_path / encoder.name)
    try:
        prediction = SvmPredictor("IDT", home / "data", execution=CPU).predict(home / "videos" / "Pulsing" / "test000.avi", progress=False)
    finally:
        kept.rename(encoder)
    assert prediction.status == "failed"
    assert encoder.name in prediction.error
