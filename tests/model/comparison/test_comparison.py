"""All systems in one table: what is trained, what is not, and what the publications say."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from command_lines import call_flowkit
from training_runs import share_root

from flowkit.cli.main import flowkit as command
from flowkit.errors import ParameterError
from flowkit.model.comparison.run import compare
from flowkit.model.comparison.table import comparison_dict, comparison_table, notes
from flowkit.model.compute.execution import Execution
from flowkit.model.systems.registry import SYSTEMS
from flowkit.model.training.chain import train
from flowkit.workers.stopping import StopRequest

CPU = Execution(device="cpu")
TINY = {"width": 0.03, "input_size": 64, "batch": 4, "bn_group": 2, "steps": 1}


@pytest.fixture(scope="module")
def root(packed_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root in which one system is trained. Treat its runs as read-only."""
    path = share_root(packed_root, tmp_path_factory.mktemp("compared"))
    train(path, system="two-streams-vgg-m", recipe="small", overrides=TINY, execution=CPU)
    return path


def test_every_system_has_a_row_with_its_figures_or_the_command_that_trains_it(root: Path) -> None:
    made = compare(root, execution=CPU)
    assert [one.system.name for one in made.systems] == list(SYSTEMS)
    header, rows = comparison_table(made)
    assert header[5:] == ["UCF101, published", "HMDB51, published"]
    for one, row in zip(made.systems, rows, strict=True):
        trained = one.system.name == "two-streams-vgg-m"
        assert (one.result is not None) is trained
        assert (row[2] == "not trained") is not trained
        assert row[5] == (f"{one.system.published['ucf101']:.1f}" if one.system.published else "-")
        if not trained:
            assert f"--system {one.system.name}" in one.command
            assert any(one.command in line for line in notes(made))
    (compared,) = (one for one in made.systems if one.system.name == "two-streams-vgg-m")
    assert any(text.startswith("other data than the publication's") for text in compared.differences)


def test_a_system_is_tested_once_and_again_after_its_weights_changed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compare(root, systems=["two-streams-vgg-m"], execution=CPU)

    def fail(*_: Any, **__: Any) -> Any:
        raise ParameterError("it is tested again")

    monkeypatch.setattr("flowkit.model.comparison.run.evaluate", fail)
    again = compare(root, systems=["two-streams-vgg-m"], execution=CPU)
    assert comparison_dict(again) == comparison_dict(first)
    train(root, system="two-streams-vgg-m", recipe="small", overrides={**TINY, "seed": 1}, execution=CPU, restart=True)
    changed = compare(root, systems=["two-streams-vgg-m"], execution=CPU)
    assert changed.systems[0].failure == "it is tested again"


def test_the_command_trains_what_is_missing_and_prints_rows_and_tests(packed_root: Path, tmp_path: Path) -> None:
    root = share_root(packed_root, tmp_path / "root")
    line = ["compare", "--data", str(root), "--train", "--recipe", "small", "--device", "cpu", "--workers", "0", "--json"]
    line += ["--system", "two-streams-vgg-m", "--system", "two-streams-vgg-16", "--steps-per-phase", "1", "--batch", "4"]
    line += ["--set", "width=0.03", "--set", "input_size=64", "--base-width", "4"]
    for _ in range(2):  # the second time there is nothing to do
        done = CliRunner().invoke(command, line)
        assert done.exit_code == 0, done.output
        values = json.loads(done.stdout)
        assert [row["system"] for row in values["rows"]] == ["two-streams-vgg-m", "two-streams-vgg-16"]
        assert all(row["trained"] and row["num_videos"] for row in values["rows"])
        assert [pair["rows"] for pair in values["paired_tests"]] == [["VGG-M two-streams", "VGG-16 two-streams"]]
    text = (root / "reports" / "default" / "split1" / "compare.md").read_text()
    assert "88.0" in text
    assert "Simonyan" in text
    assert "random first weights (paper: ImageNet)" in text


def test_options_of_training_are_refused_without_training(root: Path) -> None:
    done = CliRunner().invoke(command, ["compare", "--data", str(root), "--components", "4"])
    assert done.exit_code == 2
    assert "--components" in done.output


def test_a_stop_during_trajectories_ends_the_comparison(packed_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that comes while trajectories are computed, which handle it by themselves, stops the other systems too."""
    calls: list[Path] = []

    def stopped(_: Any, data: Path, *__: Any, stop: StopRequest, **___: Any) -> SimpleNamespace:
        calls.append(data)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested()
        return SimpleNamespace(failed=(), stopped=True)

    monkeypatch.setattr("flowkit.model.training.svm_training.train_svm_phase", stopped)
    root = share_root(packed_root, tmp_path / "root")
    systems = ("--system", "idt", "--system", "two-streams-vgg-m")
    code, _, err = call_flowkit("compare", "--data", root, "--train", "--device", "cpu", *systems)
    assert (code, len(calls)) == (130, 1)
    assert err.count("to resume: flowkit") == 1
    assert not (root / "runs").exists()  # the next system was not begun


@pytest.mark.parametrize("failed", [(), (SimpleNamespace(video_id="Sliding/train000", reason="it cannot be read"),)])
def test_training_videos_without_trajectories_are_an_exit_code(
    packed_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failed: Any
) -> None:
    report = SimpleNamespace(failed=failed, stopped=False, num_videos=3, num_features=10, folder=tmp_path)
    monkeypatch.setattr("flowkit.model.training.svm_training.train_svm_phase", lambda *_, **__: report)
    root = share_root(packed_root, tmp_path / "root")
    code, _, _ = call_flowkit("compare", "--data", root, "--train", "--device", "cpu", "--system", "idt")
    assert code == (3 if failed else 0)
