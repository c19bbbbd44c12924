"""Errors of the command line say what was probably meant, and name options as they are typed."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_lines import run_flowkit

from flowkit.cli.help.error_hints import near_path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "videos" / "Run").mkdir(parents=True)
    (tmp_path / "videos" / "Run" / "a.avi").touch()
    (tmp_path / "videso.txt").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("extract vidoes", "Did you mean 'videos'?"),
        ("extract videos/Runn", "Did you mean 'videos/Run'?"),
        ("verify videso.tx", "Did you mean 'videso.txt'?"),
        ("train --data videso.txt", "Name the folder in which it lies: '.'."),
        ("train --bn-group 0", "It must be at least 1, got 0."),
        ("train --input-size 5000", "It must be from 32 to 4096, got 5000."),
        ("train --validation 2", "It must be above 0 and below 1, got 2.0."),
        ("train --debug", "`flowkit --debug train ...`"),
        ("pack -q", "`flowkit -q pack ...`"),
        ("extract videos videso.txt", "(videso.txt). VIDEOS is one folder"),
        (f"extract videos {' '.join(map(str, range(999)))}", " ...). VIDEOS is one folder"),
        ("extract videos --short-side 3", "Error: --short-side must be"),
        ("extract videos --bound -1", "Error: --bound must be"),
        ("extract videos --tvl1-tau -3", "Error: --tvl1-tau must be"),
        ("extract videos --tvl1-num-scales 0", "Error: --tvl1-num-scales must be"),
    ],
)
def test_a_mistake_is_answered_with_what_was_meant(line: str, says: str) -> None:
    ended = run_flowkit(*line.split())
    assert ended.code == 2
    assert says in ended.err


def test_only_a_folder_is_suggested_where_a_folder_is_needed(folder: Path) -> None:
    assert near_path(Path("videso"), folders_only=True) == "videos"
    assert near_path(Path("nothing/like/it")) == ""
    assert near_path(Path("quite-different")) == ""


def test_settings_that_do_not_fit_together_are_named_by_their_options(packed_root: Path) -> None:
    ended = run_flowkit("train", "--data", packed_root, "--run", "x", "--recipe", "small", "--batch", 7, "--bn-group", 2)
    assert "--batch must be a multiple of --bn-group (2), got 7" in ended.err


def test_a_data_root_of_a_similar_name_is_suggested(folder: Path, packed_root: Path) -> None:
    (folder / "flow-data").mkdir()
    (folder / "flow-data" / "dataset.json").write_bytes((packed_root / "dataset.json").read_bytes())
    assert "did you mean 'flow-data'?" in run_flowkit("stats", "--data", "flow-dat").err
    assert "did you mean" not in run_flowkit("stats", "--data", "elsewhere").err


@pytest.mark.parametrize("command", ["train", "evaluate", "predict videos/Run/a.avi", "fuse x.csv", "convert default out.onnx"])
def test_a_folder_that_is_no_data_root_is_called_so_by_every_command(command: str) -> None:
    assert "'nowhere' is not a data root" in run_flowkit(*command.split(), "--data", "nowhere").err


def test_a_run_of_a_similar_name_is_suggested(folder: Path, packed_root: Path) -> None:
    (folder / "runs" / "slow").mkdir(parents=True)
    (folder / "dataset.json").write_bytes((packed_root / "dataset.json").read_bytes())
    assert "did you mean --run slow?" in run_flowkit("convert", "solw", "out.onnx", "--data", folder).err
