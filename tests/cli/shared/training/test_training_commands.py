"""Options of training that would do nothing are refused; and the commands that its errors name work."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from command_lines import Ended, run_flowkit

from flowkit.cli.shared.training.training_commands import command_in_another_run, command_with_lower_rate, only_for
from flowkit.model.runs.checkpoint import load_checkpoint
from flowkit.model.runs.run_folder import phase_folder
from flowkit.model.settings.network import STResNetConfig
from flowkit.model.settings.training import TrainConfig

TINY = ["--base-width", "4", "--batch", "4", "--bn-group", "2", "--device", "cpu", "--input-size", "32"]


@pytest.fixture
def typed(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that runs a command line of flowkit, which it also puts where the command looks for it."""

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr("sys.argv", ["flowkit", *arguments])
        return run_flowkit(*arguments)

    return run


def suggested(text: str) -> list[str]:
    """Return the commands that a message names between backquotes."""
    found = re.findall("`(flowkit [^`]*)`", text)
    assert found, text
    return found


def follow(typed: Any, line: str) -> Ended:
    """Run a suggested line, whose commands are joined by &&."""
    for command in line.split(" && "):
        name, *arguments = shlex.split(command)
        assert name == "flowkit"
        ended: Ended = typed(*arguments)
        assert ended.code == 0, ended
    return ended


@pytest.mark.parametrize(
    "options",
    [
        "--phase st-resnet --weights none",
        "--phase st-resnet-star --weights resnet50.pth",
        "--phase appearance --injection none",
        "--phase motion --temporal-convolution",
        "--phase motion --temporal-stages 5",
        "--phase appearance --temporal-init center",
        "--phase st-resnet --temporal-pool-position before_pool5",
        "--phase motion --corners diagonal",
        "--phase motion --set appearance.lr=0.1",
        "--phase appearance --set injection_kind=multiplicative",
        "--phase all --base-run other",
        "--base-run other",
        "--phase appearance --base-run other",
        "--phase st-resnet --base-run default",
        "--recipe small --schedule paper",
    ],
)
def test_train_refuses_options_that_would_do_nothing(root: Path, options: str) -> None:
    ended = run_flowkit("train", "--data", root, "--device", "cpu", *options.split())
    assert ended.code == 2, ended
    assert "would do nothing here" in ended.err
    assert not (root / "runs").exists()


@pytest.mark.parametrize(
    "line",
    [
        "predict {video} --checkpoint {file} --run other",
        "predict {video} --checkpoint {file} --split 2",
        "predict {video} --checkpoint {file} --row motion",
        "fuse {file} --folds 3",
        "fuse {file} --seed 3",
        "export --layout rawframes --output {folder} --shard-size 1GiB",
        "ablate stages --dry-run --restart",
        "info {file} --data {folder}",
        "verify {file} --data {folder}",
        "extract {folder} --dry-run --fail-on-damaged",
    ],
)
def test_every_command_refuses_options_that_would_do_nothing(tmp_path: Path, line: str) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    words = {"video": tmp_path / "file", "file": tmp_path / "file", "folder": tmp_path / "folder"}
    ended = run_flowkit(*line.format(**words).split())
    assert ended.code == 2, ended
    assert "would do nothing here" in ended.err


@pytest.mark.parametrize("options", ["--phase motion --corners diagonal --set crop=borders25", "--phase motion --set motion.lr=0.1"])
def test_options_that_do_something_are_accepted(root: Path, options: str) -> None:
    assert run_flowkit("train", "--data", root, *TINY, "--steps-per-phase", "1", *options.split()).code == 0


def test_after_a_loss_that_is_no_number_the_named_command_works(root: Path, typed: Any) -> None:
    start = ["train", "--data", str(root), *TINY, "--steps-per-phase", "2", "--checkpoint-steps", "1", "--injection", "none"]
    ended = typed(*start, "--set", "appearance.lr=0.01", "--set", "motion.lr=1e25")
    assert ended.code == 1
    assert "the loss of motion is" in ended.err
    (line,) = suggested(ended.err)
    assert phase_folder(root, "default", 1, "motion").joinpath("checkpoint.pt").is_file()
    assert line.count("--set motion.lr=1e+24") == 2
    last = follow(typed, line.replace("motion.lr=1e+24", "motion.lr=0.001"))  # a tenth of this rate would not do
    assert "appearance: already done" in last.err
    assert load_checkpoint(phase_folder(root, "default", 1, "motion")).provenance.config.schedule[0][1] == 0.001
    assert phase_folder(root, "default", 1, "st-resnet-star").joinpath("weights.safetensors").is_file()


def test_without_a_checkpoint_one_command_is_enough(root: Path, typed: Any) -> None:
    ended = typed("train", "--data", str(root), *TINY, "--steps-per-phase", "2", "--phase", "motion", "--lr", "1e30")
    assert ended.code == 1
    (line,) = suggested(ended.err)
    assert "&&" not in line
    assert line.endswith("--set motion.lr=1e+29") or "--restart" in line


def test_a_finished_phase_that_should_train_longer_names_commands_that_work(root: Path, typed: Any) -> None:
    start = ["train", "--data", str(root), *TINY, "--phase", "appearance"]
    assert typed(*start, "--steps-per-phase", "1").code == 0
    ended = typed(*start, "--steps-per-phase", "2")
    assert ended.code == 1
    another, again = suggested(ended.err)
    follow(typed, another)
    assert load_checkpoint(phase_folder(root, "default-2", 1, "appearance")).step == 2
    assert load_checkpoint(phase_folder(root, "default", 1, "appearance")).step == 1
    follow(typed, again)
    assert load_checkpoint(phase_folder(root, "default", 1, "appearance")).step == 2


def test_a_finished_st_resnet_starts_again_from_the_run_that_has_its_streams(root: Path, typed: Any) -> None:
    start = ["train", "--data", str(root), *TINY]
    for phase in ("appearance", "motion", "st-resnet"):
        assert typed(*start, "--phase", phase, "--steps-per-phase", "1").code == 0
    another, _ = suggested(typed(*start, "--phase", "st-resnet", "--steps-per-phase", "2").err)
    follow(typed, another)
    assert load_checkpoint(phase_folder(root, "default-2", 1, "st-resnet")).step == 2


CONFIG = TrainConfig("motion", STResNetConfig(num_classes=2), "small", 4, 2, ((10, 0.5), (5, 0.05)))


def test_the_suggested_command_keeps_what_concerns_the_phase() -> None:
    words = "train --data d --phase=all --lr 3 --injection none --weights=w.pth --set appearance.lr=1 --set=motion.batch=8"
    more = "--temporal-stages 4,5 --no-temporal-convolution --set injection_kind=multiplicative --restart"
    arguments = f"{words} {more}".split()
    assert only_for(arguments, "motion") == ["train", "--data", "d", "--lr", "3", "--weights=w.pth", "--set=motion.batch=8", "--restart"]
    assert command_with_lower_rate(arguments[:3], CONFIG, phase="all", begun=True) == (
        "flowkit train --data d --phase motion --set motion.lr=0.05 --restart && flowkit train --data d --set motion.lr=0.05"
    )
    assert command_with_lower_rate(["train", "--restart"], CONFIG, phase="all", begun=False) == "flowkit train --set motion.lr=0.05"


def test_a_schedule_of_the_user_is_lowered_as_a_schedule() -> None:
    arguments = ["train", "--set", "schedule=[[10,0.5],[5,0.05]]"]
    assert command_with_lower_rate(arguments, CONFIG, phase="motion", begun=False) == (
        "flowkit train --set 'schedule=[[10,0.5],[5,0.05]]' --set 'motion.schedule=[[10,0.05],[5,0.005]]'"
    )


def test_another_run_has_a_name_that_is_free(tmp_path: Path) -> None:
    (tmp_path / "a-2").mkdir()
    line = command_in_another_run(["train", "--run=a", "--base-run", "b", "--lr", "1"], runs=tmp_path, run="a", base_run="b")
    assert line == "flowkit train --lr 1 --run a-3 --base-run b"
