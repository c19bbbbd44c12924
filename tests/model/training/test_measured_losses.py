"""What a phase measures: losses per frame and stream, on the same scale in all phases and in runs of earlier versions (L7)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from phases import PHASES
from training_runs import metrics, run, write_uneven_split

from flowkit.model.networks import residual
from flowkit.model.networks.stresnet import SingleStream
from flowkit.model.report.curves import read_curves
from flowkit.model.runs import events
from flowkit.model.runs.metrics import read_metrics
from flowkit.model.systems.configs import make_configs

NUM_CLASSES = 6  # of the packed root


@pytest.fixture
def empty_classifiers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Base streams begin with classifiers of zeros; with a rate of 0 the later phases have them too."""
    initialise = residual.initialise_single_stream

    def with_zeros(network: SingleStream, *given: Any, **named: Any) -> None:
        initialise(network, *given, **named)
        for name, parameter in network.named_parameters():
            if name.startswith(f"{network.stream_name}.fc."):
                torch.nn.init.zeros_(parameter)

    monkeypatch.setattr(residual, "initialise_single_stream", with_zeros)


def test_guessing_gives_ln_c_in_every_phase(root: Path, empty_classifiers: None) -> None:
    _, received = run(root, overrides={"lr": 0, "steps": 1, "bn_renewal_steps": 0})
    shown = {(event.phase, event.loss) for event in received if isinstance(event, events.StepDone)}
    assert {phase for phase, _ in shown} == set(PHASES)
    assert [loss for _, loss in shown] == pytest.approx([math.log(NUM_CLASSES)] * len(shown), rel=1e-6)
    for phase in PHASES:
        for line in metrics(root, phase):
            losses = [value for name, value in line.items() if name.startswith("loss")]
            assert len(losses) == (3 if phase.startswith("st-") else 2)
            assert losses == pytest.approx([math.log(NUM_CLASSES)] * len(losses), rel=1e-6)
            assert line["outputs"] == {"st-resnet": 5, "st-resnet-star": 4}.get(phase, 1)


@pytest.mark.parametrize("balance", ["sampling", "weights"])
def test_guessing_gives_ln_c_for_classes_of_uneven_size(root: Path, empty_classifiers: None, balance: str) -> None:
    write_uneven_split(root, 2)
    run(root, split=2, phases=["motion"], overrides={"lr": 0, "bn_renewal_steps": 0, "balance": balance})
    losses = [line["loss"] for line in metrics(root, "motion", split=2)]
    assert losses == pytest.approx([math.log(NUM_CLASSES)] * 4, rel=1e-6)


def test_metrics_of_an_earlier_flowkit_are_read_on_the_same_scale(tmp_path: Path) -> None:
    configs = make_configs("small", num_classes=3, num_videos=12, short_side=64)
    path = tmp_path / "metrics.jsonl"
    for phase, outputs in (("appearance", 1), ("motion", 1), ("st-resnet", 5), ("st-resnet-star", 4)):
        streams = ("appearance", "motion") if phase.startswith("st-") else (phase,)
        assert configs[phase].num_outputs == outputs
        # A phase that was begun by an earlier version, which recorded sums, and went on in this one.
        old = {"step": 0, "loss": math.log(3) * outputs * len(streams), "lr": 0.5, f"loss_{streams[-1]}": math.log(3) * outputs}
        new = {"step": 1, "loss": math.log(3), "outputs": outputs, "lr": 0.5, f"loss_{streams[-1]}": math.log(3)}
        path.write_text(f'{json.dumps(old)}\n{json.dumps(new)}\n{{"step": 2, "loss": "many", "lr": 0.5}}\n')
        lines = read_metrics(path, configs[phase])
        assert list(lines) == [0, 1, 2]
        for step in (0, 1):
            assert [lines[step]["loss"], lines[step][f"loss_{streams[-1]}"]] == pytest.approx([math.log(3)] * 2)
        assert lines[1] == new
        assert lines[2]["loss"] is None
        curves = read_curves(path, configs[phase])
        assert curves.loss[streams[-1]][:2].tolist() == pytest.approx([math.log(3)] * 2)
        assert curves.learning_rate.tolist() == [0.5] * 3
