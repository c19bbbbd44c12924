"""``--seeds``: the same training for several seeds, each in a run that is like any other."""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
from pathlib import Path

import pytest
from command_lines import Ended, run_flowkit
from training_runs import same, share_root, weights

from flowkit.model.runs import events
from flowkit.model.runs.checkpoint import load_checkpoint
from flowkit.model.runs.progress import RunProgress
from flowkit.model.runs.run_folder import PhaseFolder, phase_folder

TINY = ["--base-width", "4", "--batch", "4", "--bn-group", "2", "--device", "cpu", "--input-size", "32", "--steps-per-phase", "2"]


def train(root: Path, *options: str) -> Ended:
    return run_flowkit("train", "--data", root, *TINY, *options)


def folder(root: Path, run: str, phase: str = "motion") -> PhaseFolder:
    return PhaseFolder(phase_folder(root, run, 1, phase))  # type: ignore[arg-type]


def runs_of(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "runs").iterdir()) if (root / "runs").exists() else []


@pytest.fixture
def interrupt_after(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Press Ctrl-C after as many steps as the list says; nothing while it is empty."""
    left: list[int] = []
    shown = RunProgress.__call__

    def show(self: RunProgress, event: events.AblationEvent) -> None:
        shown(self, event)
        if isinstance(event, events.StepDone) and left:
            left[0] -= 1
            if not left[0]:
                left.clear()
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(RunProgress, "__call__", show)
    return left


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--seeds 0,0", "given twice"),
        ("--seeds 1,01", "given twice"),
        ("--seeds -1", "is not a list of seeds"),
        ("--seeds 1,-2", "is not a list of seeds"),
        ("--seeds=", "is not a list of seeds"),
        ("--seeds 1,,2", "is not a list of seeds"),
        ("--seeds 0.5", "is not a list of seeds"),
        ("--seeds 1,two", "is not a list of seeds"),
        (f"--seeds {'9' * 5000}", "is not a list of seeds"),
        (f"--seeds {','.join(map(str, range(2000)))}", "too many"),
        ("--seeds 0,1 --seed 2", "--seed and --seeds exclude each other"),
        ("--seeds 0,1 --set seed=2", "--set seed=2 and --seeds exclude each other"),
        ("--seeds 0,1 --set motion.seed=2", "--set motion.seed=2 and --seeds exclude each other"),
    ],
)
def test_lists_that_are_no_lists_of_seeds_are_refused(root: Path, options: str, message: str) -> None:
    ended = train(root, *options.split())
    assert ended.code == 2, ended
    assert message in ended.err
    assert len(ended.err) < 400
    assert runs_of(root) == []


def test_each_seed_is_a_run_that_equals_one_trained_alone(root: Path) -> None:
    ended = train(root, "--phase", "motion", "--seeds", "3,0")
    assert ended.code == 0, ended
    assert ended.err.index("seed 3 (1 of 2): run default-seed3") < ended.err.index("seed 0 (2 of 2): run default-seed0")
    assert runs_of(root) == ["default-seed0", "default-seed3"]
    assert train(root, "--phase", "motion", "--run", "alone", "--seed", "3").code == 0
    assert same(weights(root, "motion", "alone"), weights(root, "motion", "default-seed3"))
    assert not same(weights(root, "motion", "alone"), weights(root, "motion", "default-seed0"))
    assert "already done" in train(root, "--phase", "motion", "--run", "default-seed3", "--seed", "3").err  # the run by itself


def test_ctrl_c_in_the_second_seed_names_the_command_that_continues_with_all(
    root: Path, interrupt_after: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["train", "--data", str(root), *TINY, "--phase", "motion", "--seeds", "0,1,2"]
    monkeypatch.setattr("sys.argv", ["flowkit", *line])
    interrupt_after.append(3)
    ended = run_flowkit(*line)
    assert ended.code == 130, ended
    assert f"to resume: flowkit {' '.join(line)}" in ended.err
    assert folder(root, "default-seed0").done
    assert not folder(root, "default-seed1").done
    assert load_checkpoint(folder(root, "default-seed1").path).step == 1
    assert runs_of(root) == ["default-seed0", "default-seed1"]
    ended = run_flowkit(*line)
    assert ended.code == 0, ended
    assert "continues at step 1 of 2" in ended.err
    assert all(folder(root, f"default-seed{seed}").done for seed in range(3))


def test_a_restart_discards_all_seeds_before_the_first_begins(root: Path, interrupt_after: list[int]) -> None:
    assert train(root, "--phase", "motion", "--seeds", "0,1").code == 0
    interrupt_after.append(1)
    assert train(root, "--phase", "motion", "--seeds", "0,1", "--restart").code == 130
    assert not folder(root, "default-seed0").done
    assert not folder(root, "default-seed1").begun  # so that the same line without --restart leaves no old training


def test_a_later_seed_of_other_settings_is_found_before_the_first_is_trained(root: Path) -> None:
    assert train(root, "--phase", "motion", "--run", "default-seed1", "--seed", "1", "--lr", "0.5").code == 0
    ended = train(root, "--phase", "motion", "--seeds", "0,1")
    assert ended.code == 1
    assert "default-seed1" in ended.err
    assert "lr" in ended.err or "schedule" in ended.err
    assert runs_of(root) == ["default-seed1"]


@pytest.mark.slow
def test_each_seed_starts_from_the_base_run_of_its_seed_where_there_are_such_runs(root: Path) -> None:
    for phase in ("appearance", "motion"):
        assert train(root, "--phase", phase, "--run", "base", "--seeds", "0,1").code == 0
    ended = train(root, "--phase", "st-resnet", "--run", "late", "--base-run", "base", "--seeds", "0,1")
    assert ended.code == 0, ended
    assert "run late-seed1, from run base-seed1" in ended.err
    made = [load_checkpoint(folder(root, f"late-seed{seed}", "st-resnet").path).provenance for seed in (0, 1)]
    assert made[0].started_from["motion"] != made[1].started_from["motion"]
    ended = train(root, "--phase", "st-resnet", "--run", "late", "--base-run", "base", "--seeds", "0,1,2")
    assert ended.code == 1
    assert "base-seed2 does not exist" in ended.err
    ended = train(root, "--phase", "st-resnet", "--run", "same", "--base-run", "base-seed0", "--seeds", "5")
    assert ended.code == 0, ended
    assert load_checkpoint(folder(root, "same-seed5", "st-resnet").path).provenance.started_from == made[0].started_from


def test_another_run_is_suggested_whose_seeds_are_all_free(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "runs" / "default-2-seed1").mkdir(parents=True)
    line = ["train", "--data", str(root), *TINY, "--phase", "motion", "--seeds", "0,1"]
    assert run_flowkit(*line).code == 0
    changed = [*line, "--lr", "0.5"]
    monkeypatch.setattr("sys.argv", ["flowkit", *changed])
    ended = run_flowkit(*changed)
    assert ended.code == 1
    assert f"`flowkit {' '.join(changed)} --run default-3`" in ended.err


def test_one_seed_on_the_command_line_wins_over_seeds_of_a_file(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("flowkit.toml").write_text("[train]\nseeds = [4, 5]\n", encoding="utf-8")
    assert train(root, "--phase", "motion", "--seed", "1").code == 0
    assert runs_of(root) == ["default"]
    assert train(root, "--phase", "motion", "--steps-per-phase", "1").code == 0
    assert runs_of(root) == ["default", "default-seed4", "default-seed5"]
    monkeypatch.setenv("FLOWKIT_SEED", "1")
    assert train(root, "--phase", "motion").code == 2


@pytest.fixture(scope="module")
def two_seeds(packed_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the appearance phase of two seeds, evaluated. Treat it as read-only."""
    path = share_root(packed_root, tmp_path_factory.mktemp("two_seeds"))
    assert train(path, "--phase", "appearance", "--seeds", "0,1").code == 0
    assert evaluate(path, "--seeds", "0,1").code == 0
    return path


@pytest.fixture
def evaluated(two_seeds: Path, tmp_path: Path) -> Path:
    """A data root for one test."""
    return share_root(two_seeds, tmp_path / "evaluated", "runs", "reports")


def evaluate(root: Path, *options: str) -> Ended:
    return run_flowkit("evaluate", "--data", root, "--device", "cpu", "--no-report", *options)


def seeds_of(root: Path) -> list[int]:
    stored: list[int] = json.loads((root / "reports/default/split1/seeds.json").read_text(encoding="utf-8"))["seeds"]
    return stored


def test_each_seed_has_its_report_and_the_table_has_their_mean_and_deviation(two_seeds: Path) -> None:
    single = [json.loads((two_seeds / f"reports/default-seed{k}/split1/results.json").read_text(encoding="utf-8")) for k in (0, 1)]
    values = [results["rows"]["appearance"]["top1"] for results in single]
    stored = json.loads((two_seeds / "reports/default/split1/seeds.json").read_text(encoding="utf-8"))
    expected = {"values": values, "n": 2, "mean": statistics.fmean(values), "sd": statistics.stdev(values)}
    assert stored["rows"]["appearance"]["top1"] == expected
    assert stored["runs"] == {"0": "default-seed0", "1": "default-seed1"}
    assert "n - 1" in (two_seeds / "reports/default/split1/seeds.md").read_text(encoding="utf-8")
    assert not (two_seeds / "reports/default/split1/results.json").exists()
    assert not any((two_seeds / "runs").glob("default"))


def test_stored_results_of_the_seeds_give_the_table_again_without_a_test(evaluated: Path) -> None:
    before = (evaluated / "reports/default/split1/seeds.json").read_bytes()
    shutil.rmtree(evaluated / "reports/default")
    ended = run_flowkit("evaluate", "--data", evaluated, "--seeds", "0,1", "--redraw", "--json")
    assert ended.code == 0, ended
    assert json.loads(ended.out)["splits"][0]["rows"] == json.loads(before)["rows"]
    assert (evaluated / "reports/default/split1/seeds.json").is_file()
    assert (evaluated / "reports/default-seed1/split1/report.html").is_file()


def test_a_table_of_more_seeds_is_replaced_only_on_request(evaluated: Path) -> None:
    ended = evaluate(evaluated, "--seeds", "1")
    assert ended.code == 1, ended
    assert "seeds.json has seed 0 too" in ended.err
    assert "evaluate split" not in ended.err  # before any work
    assert seeds_of(evaluated) == [0, 1]
    assert evaluate(evaluated, "--seeds", "1", "--replace").code == 0
    assert seeds_of(evaluated) == [1]
    assert evaluate(evaluated, "--seeds", "0,1").code == 0  # more seeds lose nothing
    assert seeds_of(evaluated) == [0, 1]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ("--seeds 0,0", 2, "given twice"),
        ("--seeds 0,1,5", 1, "'default-seed5'"),
        ("--seeds 0,1 --output out", 2, "--output would do nothing here"),
        ("--seeds 0,1 --checkpoint runs/default-seed0/split1/appearance", 2, "--seeds would do nothing here"),
    ],
)
def test_seeds_that_cannot_be_evaluated_are_refused(
    evaluated: Path, monkeypatch: pytest.MonkeyPatch, options: str, code: int, message: str
) -> None:
    monkeypatch.chdir(evaluated)
    ended = evaluate(evaluated, *options.split())
    assert ended.code == code, ended
    assert message in ended.err


def test_runs_of_other_settings_are_refused_before_any_test(evaluated: Path) -> None:
    assert train(evaluated, "--phase", "appearance", "--run", "default-seed2", "--seed", "2", "--lr", "0.5").code == 0
    ended = evaluate(evaluated, "--seeds", "0,1,2")
    assert ended.code == 1
    assert "default-seed0 and default-seed2 differ in more than their seed" in ended.err
    assert "evaluate split" not in ended.err
    shutil.move(evaluated / "runs/default-seed1", evaluated / "runs/default-seed3")
    assert "was trained with seed 1" in evaluate(evaluated, "--seeds", "0,3").err


def test_the_folder_of_the_table_is_locked(evaluated: Path) -> None:
    from flowkit.model.runs.places import report_folder
    from flowkit.model.runs.run_folder import writing_report

    with writing_report(report_folder(evaluated, "default", 1), "evaluate"):
        ended = evaluate(evaluated, "--seeds", "0,1")
    assert ended.code == 1
    assert "reports/default/split1" in ended.err


def test_an_evaluation_that_is_stopped_in_the_second_seed_scores_no_video_again(evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flowkit.model.data.whole_videos import WholeClipDataset

    reads: list[int] = []
    read = WholeClipDataset._read

    def counting(self: WholeClipDataset, index: int) -> object:
        reads.append(index)
        if len(reads) == 9 and stop:
            raise KeyboardInterrupt
        return read(self, index)

    monkeypatch.setattr(WholeClipDataset, "_read", counting)
    line = ["evaluate", "--data", str(evaluated), "--device", "cpu", "--no-report", "--seeds", "0,1"]
    monkeypatch.setattr("sys.argv", ["flowkit", *line])
    stop = True
    ended = run_flowkit(*line)
    assert ended.code == 130, ended
    assert f"to resume: flowkit {' '.join(line)}" in ended.err
    stop = False
    reads.clear()
    assert run_flowkit(*line).code == 0
    assert 1 <= len(reads) < 6  # of the second seed; the first has all its scores
    assert not list((evaluated / "reports").rglob("unfinished*"))
