"""All systems in one table: what is trained, what is not, and what the publications say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from training_runs import share_root

from flowkit.cli.main import flowkit as command
from flowkit.errors import ParameterError
from flowkit.model.comparison.run import compare
from flowkit.model.comparison.table import comparison_dict, comparison_table, notes
from flowkit.model.compute.execution import Execution
from flowkit.model.systems.registry import SYSTEMS
from flowkit.model.training.chain import train

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
