"""The digests of runs: verify tests them without torch, and a run without any is not damaged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest
from command_lines import call_flowkit
from shard_files import make_root

from flowkit.dataset.packing import pack
from flowkit.errors import CheckpointError, ManifestError
from flowkit.run_digests import DIGESTS_NAME, check_digest, read_digests, verify_phase, write_digests

if TYPE_CHECKING:
    from pathlib import Path

FILES = {"config.json": b"{}", "metrics.jsonl": b"1\n2\n", "checkpoint.pt": b"c" * 100, "weights.safetensors": b"w" * 1000}

run = partial(call_flowkit, "verify")


def make_phase(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    write_digests(folder)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = make_root(tmp_path, {f"{name}/v_{name}_g{group:02d}_c01": 12 for name in ("Run", "Jump") for group in range(3)})
    pack(root)
    for phase in ("appearance", "motion", "st-resnet"):
        make_phase(root / "runs/default/split1" / phase)
    (root / "runs/default/split1/motion" / DIGESTS_NAME).unlink()  # as an earlier flowkit left it
    for name in (DIGESTS_NAME, "weights.safetensors"):
        (root / "runs/default/split1/st-resnet" / name).unlink()  # in training
    return root


def test_a_root_lists_its_runs_and_only_damage_is_a_fault(root: Path) -> None:
    result = json.loads(run(root, "--json", code=0).out)
    states = {record["path"].rpartition("/")[2]: record["state"] for record in result["runs"]}
    assert states == {"appearance": "intact", "motion": "no digests", "st-resnet": "in training"}
    assert result["problems"] == []
    assert "no digests" in run(root).err
    (root / "runs/default/split1/appearance/metrics.jsonl").write_bytes(b"1\n3\n")
    result = json.loads(run(root, "--json", code=4).out)
    (problem,) = result["problems"]
    assert problem["path"].endswith("appearance/metrics.jsonl")
    assert "its SHA-256 differs" in problem["what"]


@pytest.mark.parametrize("folder", ["runs", "runs/default", "runs/default/split1", "runs/default/split1/appearance"])
def test_a_folder_of_runs_may_be_given(root: Path, folder: str) -> None:
    assert json.loads(run(root / folder, "--json", code=0).out)["runs"][0]["state"] == "intact"
    path = root / "runs/default/split1/appearance/weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert "weights.safetensors" in run(root / folder, code=4).out


def test_a_folder_without_runs_is_refused(root: Path) -> None:
    with pytest.raises(ManifestError, match=r"not a data root .* nor are there runs"):
        run(root / "clips")


@pytest.mark.parametrize("name", [name for name in FILES if name != "checkpoint.pt"])
def test_a_missing_file_is_damage(tmp_path: Path, name: str) -> None:
    phase = make_phase(tmp_path / "phase")
    (phase / name).unlink()
    assert [path.name for path, _ in verify_phase(phase).faults] == [name]


def test_a_checkpoint_that_nothing_needs_any_more_may_be_deleted(tmp_path: Path) -> None:
    phase = make_phase(tmp_path / "phase")
    (phase / "checkpoint.pt").unlink()
    assert verify_phase(phase).state == "intact"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes in folders")
def test_a_pipe_in_a_files_place_is_damage_and_is_not_waited_for(tmp_path: Path) -> None:
    phase = make_phase(tmp_path / "phase")
    (phase / "config.json").unlink()
    os.mkfifo(phase / "config.json")
    assert verify_phase(phase).state == "damaged"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 100_000,
        '{"format": "flowkit-digests", "format_version": 1}',
        '{"format": "flowkit-digests", "format_version": 1, "files": {"../../secret": "' + "00" * 32 + '"}}',
        '{"format": "flowkit-digests", "format_version": 1, "files": {"config.json": 3}}',
        '{"format": "flowkit-digests", "format_version": 1, "files": {"config.json": "00"}}',
    ],
)
def test_damaged_digests_are_damage_in_one_line(tmp_path: Path, text: str) -> None:
    phase = make_phase(tmp_path / "phase")
    (phase / DIGESTS_NAME).write_text(text)
    verified = verify_phase(phase)
    assert verified.state == "damaged"
    assert "\n" not in verified.faults[0][1]
    with pytest.raises(CheckpointError):
        read_digests(phase)


def test_a_file_of_a_phase_is_checked_before_it_is_used(tmp_path: Path) -> None:
    phase = make_phase(tmp_path / "phase")
    check_digest(phase / "weights.safetensors")
    (phase / "weights.safetensors").write_bytes(b"v" * 1000)
    with pytest.raises(CheckpointError, match="damaged: its SHA-256"):
        check_digest(phase / "weights.safetensors")


def test_torch_is_not_needed(root: Path) -> None:
    script = "import sys; import flowkit; assert flowkit.verify(sys.argv[1]) == []; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script, root], check=True)
