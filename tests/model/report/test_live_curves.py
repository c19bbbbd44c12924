"""Curves for TensorBoard: each step once, also after a kill; a clear error where TensorBoard is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flowkit.cli.main import flowkit
from flowkit.errors import ParameterError
from flowkit.model.compute.execution import Execution
from flowkit.model.report.live_curves import LiveCurves
from flowkit.model.runs import events
from flowkit.model.runs.run_folder import phase_folder
from flowkit.model.training.chain import train

pytest.importorskip("tensorboard", reason="needs the extra `tensorboard`")

TINY = {"base_width": 4, "input_size": 32, "batch": 4, "bn_group": 2, "steps": 6, "warmup_steps": 0}


def curves(root: Path, phase: str = "motion") -> Any:
    """What TensorBoard shows: tag to (steps, values)."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(phase_folder(root, "default", 1, phase) / "tensorboard"))
    shown.Reload()
    found = {}
    for tag in shown.Tags()["scalars"]:
        points = shown.Scalars(tag)
        found[tag] = ([point.step for point in points], [point.value for point in points])
    return found


def run(root: Path, on_event: Any, *, more: Any = None, **settings: Any) -> Any:
    with LiveCurves(root, run="default", split=1) as live:
        return train(
            root,
            phases=["motion"],
            overrides={**TINY, **(more or {})},
            execution=Execution(device="cpu", checkpoint_steps=2),
            on_event=lambda event: (live.record(event), on_event(event)),
            **settings,
        )


def test_a_killed_and_resumed_phase_shows_each_step_once_with_the_numbers_of_its_metrics(root: Path) -> None:
    def kill(event: object) -> None:
        if isinstance(event, events.StepDone) and event.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(root, kill)
    assert curves(root)["loss_per_frame/all"][0] == [0, 1, 2]
    run(root, lambda event: None)  # from the checkpoint of two steps: the third is taken again
    lines = [json.loads(line) for line in (phase_folder(root, "default", 1, "motion") / "metrics.jsonl").read_text().splitlines()]
    shown = curves(root)
    for tag, name in {
        "loss_per_frame/all": "loss",
        "loss_per_frame/motion": "loss_motion",
        "accuracy/motion": "accuracy_motion",
        "learning_rate": "lr",
        "seconds/step": "seconds",
        "seconds/data_wait": "data_seconds",
    }.items():
        assert shown.pop(tag) == ([*range(6)], pytest.approx([line[name] for line in lines], rel=1e-6))
    assert not shown


def test_what_was_measured_on_validation_videos_is_a_curve(root: Path) -> None:
    run(root, lambda event: None, validation=0.5, more={"validation_steps": 3, "bn_renewal_steps": 1})
    lines = [json.loads(line) for line in (phase_folder(root, "default", 1, "motion") / "metrics.jsonl").read_text().splitlines()]
    measured = [line for line in lines if "validation_loss" in line]
    steps, values = curves(root)["validation/loss_motion"]
    assert steps == [line["step"] for line in measured] == [2, 5]
    assert values == pytest.approx([line["validation_loss_motion"] for line in measured], rel=1e-6)
    assert curves(root)["validation/accuracy"][0] == [2, 5]


def test_a_phase_begun_anew_shows_nothing_of_the_one_before(root: Path) -> None:
    run(root, lambda event: None)
    run(root, lambda event: None, restart=True)
    assert curves(root)["loss_per_frame/all"][0] == [*range(6)]


def test_the_command_writes_curves_only_when_asked(root: Path) -> None:
    line = ["train", "--data", str(root), "--phase", "motion", "--base-width", "4", "--batch", "4", "--steps-per-phase", "1"]
    folder = phase_folder(root, "default", 1, "motion")
    assert CliRunner().invoke(flowkit, line).exit_code == 0
    assert not (folder / "tensorboard").exists()
    assert CliRunner().invoke(flowkit, [*line, "--restart", "--tensorboard"]).exit_code == 0
    assert curves(root)["loss_per_frame/motion"][0] == [0]


def test_without_tensorboard_the_error_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ParameterError, match=r"flowkit-video\[tensorboard\]"):
        LiveCurves(tmp_path, run="default", split=1)


def test_training_without_curves_does_not_load_tensorboard() -> None:
    code = "import sys, flowkit.model.training.chain, flowkit.cli.commands.train; assert not [m for m in sys.modules if 'tensorboard' in m]"
    subprocess.run([sys.executable, "-c", code], check=True)
