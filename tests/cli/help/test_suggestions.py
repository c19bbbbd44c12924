"""Suggested commands keep the options that the user gave."""

from __future__ import annotations

import shlex
import shutil
from typing import TYPE_CHECKING

import click
import pytest
from command_lines import run_flowkit

from flowkit.cli.help.suggestions import complete, remember_given
from flowkit.cli.main import flowkit

if TYPE_CHECKING:
    from pathlib import Path

    from flowkit.cli.help.suggestions import Given


def given(line: str) -> Given:
    context = click.Context(flowkit)
    name, *arguments = shlex.split(line)
    command = flowkit.get_command(context, name)
    assert command is not None
    remember_given(context, name, command, arguments)
    kept: Given = context.obj["given"]
    return kept


@pytest.mark.parametrize(
    ("line", "suggested", "completed"),
    [
        ("train --data d --split 2", "flowkit pack --split 2", "flowkit pack --split 2 --data d"),
        ("train --data=d", "flowkit pack --split 1", "flowkit pack --split 1 --data=d"),
        ("train --data 'my data'", "flowkit pack", "flowkit pack --data 'my data'"),
        ("evaluate --run slow --runs r --data d", "flowkit train --split 1", "flowkit train --split 1 --run slow --runs r --data d"),
        ("evaluate --device cpu", "flowkit train", "flowkit train --device cpu"),
        ("evaluate --split 1,2 --data d", "flowkit pack", "flowkit pack --data d"),  # one split only
        ("extract videos --device cuda:0,1 --data d", "flowkit train", "flowkit train --data d"),  # one device only
        ("pack --move --data d", "flowkit train", "flowkit train --data d"),
        ("evaluate --amp fp16 --run slow", "flowkit evaluate --amp bf16", "flowkit evaluate --amp bf16 --run slow"),
        ("extract tiny/Run --preset paper", "flowkit extract tiny", "flowkit extract tiny --preset paper"),
        ("evaluate --redraw --data d", "flowkit evaluate", "flowkit evaluate --data d"),
        ("train --data d --restart --lr 0.1", "flowkit train", "flowkit train --data d --lr 0.1"),
        ("train --data d --no-compile", "flowkit train --set lr=1", "flowkit train --set lr=1 --data d --no-compile"),
        ("train --data d", "flowkit pack --data other", "flowkit pack --data other"),
        ("train --data d", "flowkit train --set list", "flowkit train --set list"),
        ("train --data d", "flowkit doctor", "flowkit doctor"),
        ("train --data d", "flowkit pack --lists", "flowkit pack --lists"),  # only says where to look
        ("train --data d", "flowkit nothing", "flowkit nothing"),
        ("train", "flowkit pack", "flowkit pack"),
        (
            "predict a.avi --data d --split 2",
            "flowkit convert net.mat OUT.safetensors",
            "flowkit convert net.mat OUT.safetensors --split 2",
        ),
        ("predict a.avi --data d --runs r", "flowkit convert 'a net.mat' OUT.safetensors", "flowkit convert 'a net.mat' OUT.safetensors"),
        ("predict a.avi --data d", "flowkit convert default OUT.onnx", "flowkit convert default OUT.onnx --data d"),
        ("train --data d", "flowkit evaluate --checkpoint a.safetensors", "flowkit evaluate --checkpoint a.safetensors --data d"),
    ],
)
def test_a_suggested_command_has_what_it_needs_of_what_was_given(line: str, suggested: str, completed: str) -> None:
    assert complete(f"no: `{suggested}` does it", given(line)) == f"no: `{completed}` does it"


def test_names_in_a_suggested_command_cannot_control_the_terminal() -> None:
    assert "\x1b" not in complete("`flowkit pack`", given("train --data '\x1b[2J'"))


@pytest.mark.parametrize(
    "line",
    [
        "train --split 7",
        "stats --split 7",
        "evaluate --split 7",
        "evaluate --split all --run r",
        "fuse scores.csv",
        "predict {video}",
        "convert default {out}.safetensors",
        "export --layout rawframes --output {out} --split 7",
    ],
)
def test_what_an_error_suggests_concerns_the_data_root_that_was_named(line: str, packed_root: Path, tmp_path: Path) -> None:
    """Pasted, the command does what the message promises, and not in another data root."""
    video = tmp_path / "a.avi"
    video.touch()
    words = [word.format(video=video, out=tmp_path / "out") for word in line.split()]
    ended = run_flowkit(*words, "--data", packed_root)
    assert ended.code in (1, 2)
    (suggested,) = [part for part in ended.err.split("`") if part.startswith("flowkit ")]
    assert shlex.split(suggested)[-2:] == ["--data", str(packed_root)] or f"--data {packed_root} " in suggested


def test_info_suggests_a_split_of_the_data_root_that_was_named(packed_root: Path, tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_bytes((packed_root / "dataset.json").read_bytes())
    assert f"`flowkit pack --split 1 --data {tmp_path}`" in run_flowkit("info", "--data", tmp_path).out


@pytest.mark.parametrize("name", ["train.csv", "test.csv"])
def test_a_manifest_that_is_gone_comes_with_the_command_that_makes_it_again(packed_root: Path, tmp_path: Path, name: str) -> None:
    root = tmp_path / "data"
    shutil.copytree(packed_root / "splits", root / "splits")
    shutil.copy(packed_root / "dataset.json", root)
    (root / "splits" / "split1" / name).unlink()
    assert f"{name}: No such file or directory; pack the split again, with the same options: `flowkit pack --split 1 --data {root}`" in (
        run_flowkit("stats", "--data", root).err
    )
