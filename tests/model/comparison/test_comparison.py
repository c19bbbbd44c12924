"""All systems in one table: what is trained, what is not, and what the publications say."""

from __future__ import annotations

import json
import os
import signal
import statistics
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from command_lines import call_flowkit
from training_runs import share_root

from flowkit.cli.main import flowkit as command
from flowkit.errors import ParameterError
from flowkit.model.comparison.run import compare
from flowkit.model.comparison.table import comparison_dict, comparison_table, notes
from flowkit.model.compute.execution import Execution
from flowkit.model.evaluation.protocol import evaluate
from flowkit.model.scoring import tested_networks
from flowkit.model.settings.recipes import TrainSettings
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
    assert [one.system.name for one in made.systems] == [*SYSTEMS, "transformations"]
    header, rows = comparison_table(made)
    assert header[5:] == ["UCF101, published", "HMDB51, published"]
    for one, row in zip(made.systems, rows, strict=True):
        trained, built = one.system.name == "two-streams-vgg-m", one.system.name in SYSTEMS
        assert (one.result is not None) is trained
        assert (row[2] == "not trained") is (built and not trained)
        assert row[5] == (f"{one.system.published['ucf101']:.1f}" if one.system.published else "-")
        if not built:
            assert row[2:7] == ["not built", "-", "-", "92.4", "62.0"]
            assert any(line.startswith("transformations is not built: no code of its authors is public") for line in notes(made))
            assert not one.to_dict()["trained"]
        elif not trained:
            assert f"--system {one.system.name}" in one.command
            assert any(one.command in line for line in notes(made))
    (compared,) = (one for one in made.systems if one.system.name == "two-streams-vgg-m")
    assert any(text.startswith("other data than the publication's") for text in compared.differences)


def test_a_system_is_tested_once_and_again_after_its_weights_changed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compare(root, systems=["two-streams-vgg-m"], execution=CPU)

    def fail(*_: Any, **__: Any) -> Any:
        raise ParameterError("it is tested again")

    monkeypatch.setattr("flowkit.model.comparison.phase_scores.network_scores", fail)
    again = compare(root, systems=["two-streams-vgg-m"], execution=CPU)
    assert comparison_dict(again) == comparison_dict(first)
    train(root, system="two-streams-vgg-m", recipe="small", overrides={**TINY, "seed": 1}, execution=CPU, restart=True)
    changed = compare(root, systems=["two-streams-vgg-m"], execution=CPU)
    assert changed.systems[0].failure == "it is tested again"


@pytest.fixture(scope="module")
def sharing(packed_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root in which two systems are trained that share phases. Treat its runs as read-only."""
    path = share_root(packed_root, tmp_path_factory.mktemp("sharing"))
    train(path, system="two-stream-fusion", recipe="small", overrides={**TINY, "num_samples": 2}, execution=CPU)
    return path


SHARING = ["two-streams-vgg-16", "two-stream-fusion"]


def scored_videos(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Return a counter of the videos that each phase scores from now on."""
    counts: Counter[str] = Counter()
    score = tested_networks.TestedNetworks.score

    def counted(self: Any, clips: Any) -> Any:
        counts.update({phase: len(clips) for phase in self.phases})
        return score(self, clips)

    monkeypatch.setattr(tested_networks.TestedNetworks, "score", counted)
    return counts


def test_a_phase_that_systems_share_is_scored_once_and_as_evaluate_does(
    sharing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = scored_videos(monkeypatch)
    made = compare(sharing, systems=SHARING, reports=tmp_path, execution=CPU)
    num_videos = len(made.systems[0].video_ids)
    assert counts == dict.fromkeys(("vgg-16-appearance", "vgg-16-motion", "vgg-16-fusion"), num_videos)
    for one in made.systems:
        alone = evaluate(sharing, system=one.system.name, execution=CPU).splits[0].rows[one.system.row]
        assert one.result is not None
        np.testing.assert_array_equal(one.result.scores, alone.scores)


def test_ten_crops_are_for_systems_all_of_whose_networks_can_see_them(
    sharing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = compare(sharing, systems=SHARING, reports=tmp_path, execution=CPU)
    counts = scored_videos(monkeypatch)
    made = compare(sharing, systems=SHARING, reports=tmp_path, execution=CPU, crops="ten")
    assert [one.crops for one in made.systems] == ["ten", "whole"]
    assert set(counts) == {"vgg-16-appearance", "vgg-16-motion"}  # those of whole frames are kept
    assert "tested on ten crops of each frame: two-streams-vgg-16; all others on whole frames" in notes(made)
    streams, fusion = made.systems
    alone = evaluate(sharing, system="two-streams-vgg-16", crops="ten", execution=CPU).splits[0].rows[streams.system.row]
    assert streams.result is not None
    np.testing.assert_array_equal(streams.result.scores, alone.scores)
    assert fusion.to_dict() == whole.systems[1].to_dict()
    assert compare(sharing, systems=SHARING, reports=tmp_path, execution=CPU).systems[0].to_dict() == whole.systems[0].to_dict()


def test_a_stop_between_two_videos_loses_no_score(sharing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = compare(sharing, systems=SHARING, reports=tmp_path / "whole", execution=CPU)
    counts, before, stops = scored_videos(monkeypatch), 0, 0

    def scored_one() -> bool:
        return sum(counts.values()) > before

    while (made := compare(sharing, systems=SHARING, reports=tmp_path / "parts", execution=CPU, should_stop=scored_one)).stopped:
        before, stops = sum(counts.values()), stops + 1
    assert stops > 3
    assert comparison_dict(made) == comparison_dict(whole)
    assert set(counts.values()) == {len(whole.systems[0].video_ids)}  # no video twice


def test_what_is_not_trained_has_an_estimate_of_its_time(packed_root: Path, tmp_path: Path) -> None:
    """It is measured on a few videos, writes nothing, and is that of the phase's own steps once there are some."""
    root, tiny = share_root(packed_root, tmp_path / "root"), {**TINY, "steps": 6}
    settings, names = TrainSettings("small", overrides=tiny), ["two-streams-vgg-m", "two-stream-fusion", "idt"]
    made = compare(root, systems=names, training=settings, execution=CPU)
    assert not (root / "runs").exists()
    streams, fusion, trajectories = (one.estimate for one in made.systems)
    assert streams is not None
    assert set(streams.seconds) == {"vgg-m-appearance", "vgg-m-motion"}
    assert min(streams.seconds.values()) > 0
    assert fusion is not None
    assert set(fusion.seconds) == {"vgg-16-appearance", "vgg-16-motion", "vgg-16-fusion"}
    assert trajectories is not None
    assert set(trajectories.unknown) == {"idt"}
    header, rows = comparison_table(made)
    assert header[-1] == "time to train"
    assert rows[0][-1].startswith("about 1 min")
    assert any("docs/features.md" in line for line in notes(made))
    assert all("--recipe small" in one.command for one in made.systems[:2])

    steps = 0

    def soon() -> bool:
        nonlocal steps
        steps += 1
        return steps == 4

    train(root, phases=["vgg-m-appearance"], recipe="small", overrides=tiny, execution=CPU, should_stop=soon)
    lines = (root / "runs/default/split1/vgg-m-appearance/metrics.jsonl").read_text().splitlines()
    (again,) = compare(root, systems=names[:1], training=settings, execution=CPU).systems
    assert again.estimate is not None
    assert again.estimate.recorded == ("vgg-m-appearance",)
    assert again.estimate.seconds["vgg-m-appearance"] == 2 * statistics.median(json.loads(line)["seconds"] for line in lines)


def test_the_comparison_is_a_page_and_a_section_of_the_report(sharing: Path, tmp_path: Path) -> None:
    names = [option for name in (*SHARING, "idt") for option in ("--system", name)]
    places = ("--data", sharing, "--reports", tmp_path)
    assert call_flowkit("compare", *places, *names, "--device", "cpu")[0] == 0
    folder = tmp_path / "default" / "split1"
    page = (folder / "compare.html").read_text()
    for text in ("2 of 3 systems", "Two-Stream Fusion", "92.5", "flowkit train --system idt", "McNemar", "Feichtenhofer", "not trained"):
        assert text in page
    assert "<script" not in page
    assert call_flowkit("evaluate", *places, "--device", "cpu", "--system", "two-stream-fusion")[0] == 0
    report = (folder / "report.html").read_text()
    assert '<section id="systems"' in report
    assert 'href="#systems"' in report
    (folder / "compare.json").write_text(
        '{"format": "flowkit-comparison", "format_version": 1, "run": "default", "split": 1, "rows": [{}]}'
    )
    assert call_flowkit("evaluate", *places, "--redraw")[0] == 0  # a record that cannot be read is left out
    assert '<section id="systems"' not in (folder / "report.html").read_text()


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
