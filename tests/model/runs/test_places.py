"""Runs and reports in other folders than the data root, which may be read-only; found before any work if they cannot be written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_lines import run_flowkit
from small_videos import write_video
from training_runs import TINY, run, share_root

from flowkit.errors import CheckpointError, ParameterError
from flowkit.model.ablation.run import ablate
from flowkit.model.ablation.variants import Variant
from flowkit.model.compute.execution import Execution
from flowkit.model.evaluation.prediction.predictor import Predictor
from flowkit.model.evaluation.protocol import evaluate
from flowkit.model.evaluation.scores import ScoreTable, read_own_scores, write_scores
from flowkit.model.runs import events
from flowkit.model.runs.places import check_writable, place_options
from flowkit.model.runs.run_folder import phase_folder
from flowkit.model.settings.recipes import TrainSettings

CPU = Execution(device="cpu")


@pytest.fixture(scope="module")
def shared(packed_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data root in which neither runs nor reports can be written, whoever tries; and another folder with a run."""
    root = share_root(packed_root, tmp_path_factory.mktemp("shared"))
    for name in ("runs", "reports"):
        (root / name).write_text("a file, so that there can be no folder\n")
    mine = tmp_path_factory.mktemp("mine")
    report, _ = run(root, runs=mine / "runs", overrides={"steps": 1})
    assert len(report.trained) == 4
    return root, mine


def blocked(path: Path) -> str:
    return rf"{path}.*cannot be written \(Not a directory\): give another folder with"


def test_what_cannot_be_written_is_found_before_any_work(shared: tuple[Path, Path], tmp_path: Path) -> None:
    root, mine = shared
    received: list[Any] = []
    with pytest.raises(ParameterError, match=blocked(root / "runs") + " --runs DIR"):
        _, received = run(root)
    assert not received
    with pytest.raises(ParameterError, match=blocked(root / "reports") + " --reports DIR"):
        ablate(root, [Variant("x", {"injection": "none"})], TrainSettings("small"), runs=tmp_path / "runs", execution=CPU)
    assert not (tmp_path / "runs").exists()
    for options, option in (([], "--reports DIR"), (["--output", root / "reports" / "x"], "--output DIR")):
        ended = run_flowkit("evaluate", "--data", root, "--runs", mine / "runs", *options)
        assert ended.code == 1
        assert "cannot be written (Not a directory)" in ended.err
        assert option in ended.err
        assert "evaluate split" not in ended.err
    ended = run_flowkit("train", "--data", root, "--device", "cpu")
    assert ended.code == 1
    assert "give another folder with --runs DIR" in ended.err


def test_nothing_remains_of_the_trial(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b", option="--runs DIR")
    assert not list(tmp_path.iterdir())


def test_a_run_elsewhere_is_resumed_skipped_and_a_starting_point(shared: tuple[Path, Path]) -> None:
    root, mine = shared
    runs = mine / "runs"
    assert len(run(root, runs=runs, overrides={"steps": 1})[0].skipped) == 4
    one = {"overrides": {"steps": 2}, "phases": ["motion"], "run": "two"}
    report, _ = run(root, runs=runs, stop_after=1, **one)
    assert report.stopped
    report, received = run(root, runs=runs, **one)
    assert [event.first_step for event in received if isinstance(event, events.PhaseStarted)] == [1]
    report, _ = run(root, runs=runs, run="other", base_run="default", phases=["st-resnet"], overrides={"steps": 1})
    assert report.trained == ("st-resnet",)
    assert phase_folder(root, "other", 1, "st-resnet", runs=runs).is_relative_to(runs)
    assert (root / "runs").is_file()


@pytest.mark.slow
def test_every_command_finds_runs_and_reports_elsewhere(shared: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root, mine = shared
    monkeypatch.setenv("FLOWKIT_RUNS", str(mine / "runs"))
    monkeypatch.setenv("FLOWKIT_REPORTS", str(mine / "reports"))
    monkeypatch.setenv("FLOWKIT_DATA", str(root))
    monkeypatch.setenv("FLOWKIT_DEVICE", "cpu")
    assert run_flowkit("evaluate").code == 0
    folder = mine / "reports" / "default" / "split1"
    assert (folder / "report.html").is_file()
    assert (folder / "curves.png").is_file()  # of the runs' metrics
    assert run_flowkit("evaluate", "--redraw").code == 0
    ours, _ = read_own_scores(folder / "scores.h5")
    write_scores(tmp_path / "idt.h5", ScoreTable("idt", ours.video_ids, ours.classes, np.ascontiguousarray(ours.scores[:, ::-1])))
    assert run_flowkit("fuse", tmp_path / "idt.h5", "--split", "all").code == 0
    assert list(folder.glob("fus*"))
    video = write_video(tmp_path / "v.mkv", 12)
    assert run_flowkit("predict", video, "--jobs", "1").code == 0
    assert run_flowkit("convert", "default", tmp_path / "network.safetensors").code == 0
    monkeypatch.delenv("FLOWKIT_RUNS")
    ended = run_flowkit("evaluate", "--runs", tmp_path / "none")
    assert ended.code == 1
    assert f"`flowkit train --split 1 --data {root} --runs {tmp_path / 'none'}` trains it" in ended.err
    assert (root / "reports").is_file()


def test_the_python_api_takes_the_folder_too(shared: tuple[Path, Path]) -> None:
    root, mine = shared
    assert len(evaluate(str(root), runs=str(mine / "runs"), execution=CPU).splits[0].rows) == 5
    assert Predictor.open(root, runs=mine / "runs", device="cpu").row.name == "ST-ResNet*"
    with pytest.raises(CheckpointError, match="has no trained phase"):
        evaluate(root, execution=CPU)


@pytest.mark.slow
def test_variants_are_trained_and_compared_elsewhere(shared: tuple[Path, Path], tmp_path: Path) -> None:
    root, mine = shared
    report = ablate(
        root,
        [Variant("none", {"injection": "none"})],
        TrainSettings("small", overrides={**TINY, "steps": 1}),
        runs=mine / "runs",
        reports=tmp_path / "reports",
        phases=["st-resnet"],
        execution=CPU,
    )
    assert [result.failure for result in report.results] == [None, None]
    assert report.folder == tmp_path / "reports" / "default" / "split1"
    assert (report.folder / "ablation.json").is_file()
    assert (root / "runs").is_file()


def test_suggested_commands_name_only_what_is_not_the_default() -> None:
    assert place_options(Path("flowkit-data")) == ""
    assert place_options(Path("my data"), runs=Path("r"), reports=Path("p")) == " --data 'my data' --runs r --reports p"
