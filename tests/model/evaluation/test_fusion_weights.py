"""Fusion weights that are chosen on validation videos: the best of a grid, the nearest to equal; refused where there are no such videos."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from command_lines import call_flowkit
from training_runs import run, share_root

from flowkit.dataset.root import Dataset
from flowkit.errors import CheckpointError, ParameterError
from flowkit.model.compute.execution import Execution
from flowkit.model.evaluation.fusion_weights import ChosenWeights, choose_weights
from flowkit.model.evaluation.protocol import evaluate
from flowkit.model.evaluation.results import read_results
from flowkit.model.scoring.metrics import combine_scores


@pytest.mark.parametrize("fusion", ["logits_mean", "softmax_mean"])
def test_no_other_weights_of_the_grid_are_better_and_none_as_good_are_nearer_to_equal(fusion: Any) -> None:
    for seed in range(20):
        draw = np.random.default_rng(seed)
        labels = draw.integers(0, 4, 15)
        scores = [draw.normal(size=(15, 4)) * scale for scale in (1, 3)]
        scores[0][np.arange(15), labels] += 1
        chosen = choose_weights(scores, labels, fusion=fusion)

        def accuracy(motion: int, scores: Any = scores, labels: Any = labels) -> float:
            joined = combine_scores(scores, weights=(10 - motion, motion), fusion=fusion)
            return float((joined.argmax(1) == labels).mean())

        accuracies = [accuracy(motion) for motion in range(11)]
        good = [motion for motion in range(11) if accuracies[motion] == max(accuracies)]
        nearest = min(good, key=lambda motion: (abs(motion - 5), motion))
        assert chosen == ChosenWeights((10.0 - nearest, float(nearest)), max(accuracies), accuracies[5], 15)


def test_equal_weights_win_all_ties() -> None:
    scores = np.eye(3)
    assert choose_weights([scores, scores], np.arange(3)).weights == (5.0, 5.0)


QUICK = {"steps": 2, "lr": 0.001}


@pytest.fixture(scope="module")
def held(packed_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with base streams that held out half of the training videos."""
    root = share_root(packed_root, tmp_path_factory.mktemp("held"))
    run(root, phases=["appearance", "motion"], validation=0.5, overrides=QUICK)
    return root


def test_weights_are_chosen_printed_stored_and_used(held: Path) -> None:
    code, out, _ = call_flowkit("evaluate", "--data", held, "--fusion-weights", "auto", "--device", "cpu", "--no-report")
    assert code == 0
    folder = held / "reports" / "default" / "split1"
    stored = json.loads((folder / "results.json").read_text())["fusion"]
    chosen = ChosenWeights.from_dict(stored["chosen"]["two-streams"])
    assert (stored["kind"], stored["weights"], list(stored["chosen"]), chosen.num_videos) == ("logits_mean", "auto", ["two-streams"], 6)
    line = f"weights (appearance : motion) chosen on 6 validation videos: two-streams {chosen}"
    assert f"split 1: {line}" in out
    assert line in (folder / "table.md").read_text()
    read = read_results(folder)
    assert read.weights == "auto"
    assert read.splits[0].fusion_weights == {"two-streams": chosen}
    parts = [read.splits[0].stream_scores[name, name] for name in ("appearance", "motion")]
    assert np.allclose(read.splits[0].rows["two-streams"].scores, combine_scores(parts, weights=chosen.weights))


def test_they_are_chosen_on_the_held_out_videos_and_no_others(held: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flowkit.model.evaluation import protocol

    seen: list[Any] = []

    def spy(networks: Any, clips: Any, **settings: Any) -> Any:
        seen.append({record.video_id for record in clips.records})
        return real(networks, clips, **settings)

    real = protocol.score_videos
    monkeypatch.setattr(protocol, "score_videos", spy)
    result = evaluate(held, weights="auto", execution=Execution(device="cpu"))
    split = Dataset.open(held).split(1)
    assert seen == [set(result.splits[0].provenances["motion"].validation_ids), {record.video_id for record in split.test}]


def test_auto_is_refused_without_validation_videos(undisturbed: Any, held: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"appearance and motion and st-resnet and st-resnet-star held out none: train with --validation"
    ):
        evaluate(undisturbed[0], weights="auto", execution=Execution(device="cpu"))
    one = held / "runs" / "default" / "split1" / "motion"
    with pytest.raises(ParameterError, match="rows that join two streams, and only motion is trained"):
        evaluate(held, weights="auto", checkpoint=one, execution=Execution(device="cpu"))
    with pytest.raises(click.UsageError, match="two numbers joined by a comma"):
        call_flowkit("evaluate", "--data", held, "--fusion-weights", "1,2,3")


def test_networks_that_held_out_other_videos_cannot_choose(held: Path) -> None:
    run(held, phases=["appearance"], run="mixed", validation=0.5, overrides={**QUICK, "seed": 1})
    run(held, phases=["motion"], run="mixed", validation=0.5, overrides=QUICK)
    with pytest.raises(CheckpointError, match="the networks held out different videos"):
        evaluate(held, run="mixed", weights="auto", execution=Execution(device="cpu"))


def test_the_grid_is_said_in_the_protocol(held: Path) -> None:
    result = evaluate(held, weights="auto", execution=Execution(device="cpu"))
    assert "chosen on the validation videos from 0 : 10, 1 : 9, ... 10 : 0" in result.protocol[-1]
    assert all(a != b for a, b in itertools.pairwise(result.protocol))
