"""The folders of phases and of results: who may write there, and what is deleted."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
from command_lines import run_flowkit
from shard_files import make_root

from flowkit.dataset.packing import pack
from flowkit.errors import BusyError
from flowkit.model.runs.places import report_folder
from flowkit.model.runs.run_folder import PhaseFolder, writing_report

if TYPE_CHECKING:
    from pathlib import Path

LEFT = ".node7-0123abcd-77-89abcdef.part"
VIDEOS = {f"{name}/v_{name}_g{group:02d}_c01": 12 for name in ("Run", "Jump") for group in range(4)}
locks = pytest.mark.skipif(os.name == "nt", reason="Windows has no fcntl")


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_phase_that_is_discarded_leaves_the_files_of_the_user(tmp_path: Path) -> None:
    phase = tmp_path / "runs" / "default" / "split1" / "motion"
    made = ("config.json", "videos.json", "metrics.jsonl", "checkpoint.pt", "weights.safetensors", "digests.json")
    fill(phase, *made, "tensorboard/events.out.tfevents.17.host", "checkpoint.pt" + LEFT)
    PhaseFolder(phase).discard()
    assert not phase.exists()
    fill(phase, *made, "notes.txt", "tensorboard/layout.json", "plots/weights.safetensors")
    PhaseFolder(phase).discard()
    assert names(phase) == {"notes.txt", "tensorboard/layout.json", "plots/weights.safetensors"}


@locks
def test_who_trains_a_phase_removes_what_killed_processes_left(tmp_path: Path) -> None:
    phase = tmp_path / "motion"
    fill(phase, "checkpoint.pt", "checkpoint.pt.part", "weights.safetensors" + LEFT, "download.part")
    with PhaseFolder(phase).alone():
        assert names(phase) == {"checkpoint.pt", "download.part"}


@locks
def test_the_results_of_a_command_are_written_by_one_process(tmp_path: Path) -> None:
    folder = tmp_path / "reports" / "default" / "split1"
    fill(folder, "results.json", "results.json.part", "report.html" + LEFT)
    with writing_report(folder, "evaluate"):
        assert names(folder) == {"results.json", ".evaluate.lock"}
        with pytest.raises(BusyError, match="another process writes the results of evaluate to"), writing_report(folder, "evaluate"):
            pass
        with writing_report(folder, "fuse"):
            pass
    assert names(folder) == {"results.json"}


def test_a_folder_in_which_nothing_was_written_is_removed_with_its_parents(tmp_path: Path) -> None:
    with writing_report(tmp_path / "reports" / "default" / "split1", "evaluate"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_not_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(path: object, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr("pathlib.Path.mkdir", read_only)
    with writing_report(tmp_path / "reports", "evaluate"):
        pass


@locks
@pytest.mark.parametrize("command", ["evaluate", "fuse"])
def test_a_second_command_that_writes_to_the_same_folder_is_refused_before_it_begins(tmp_path: Path, command: str) -> None:
    root = make_root(tmp_path, VIDEOS)
    pack(root)
    fill(tmp_path, "scores.csv")
    arguments = [tmp_path / "scores.csv"] if command == "fuse" else ["--device", "cpu"]
    with writing_report(report_folder(root, "default", 1), command):
        done = run_flowkit(command, *arguments, "--data", root)
    assert done.code == 1
    assert f"another process writes the results of {command} to" in done.err
