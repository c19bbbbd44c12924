"""Kill -9 at any moment, then the same line again: weights and metrics are bit for bit those of an undisturbed run."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from forked_commands import answer_to
from phases import PHASES
from training_runs import TINY, metrics, same, share_root, weights

from flowkit.model.runs.checkpoint import load_checkpoint
from flowkit.model.runs.run_folder import phase_folder

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="needs fork and kill")]

NUM_KILLS = {"a few": 3, "many": 20}
# Kills while a file is being replaced: the temporary file exists, and so does the last complete file.
INTERRUPTED_WRITES = {
    "half of a checkpoint is written": {"kind": "half a checkpoint", "write": 3},
    "a checkpoint is not yet on the disk": {"kind": "before", "call": "fsync", "write": 7},
    "a checkpoint has not yet its name": {"kind": "before", "call": "replace", "write": 5},
    "the final weights have not yet their name": {"kind": "before", "call": "replace", "write": 8},
    "the digests have not yet their name": {"kind": "before", "call": "replace", "write": 9},
}


def command(root: Path, phase: str | None = None) -> list[Any]:
    """Return the line that trains all phases, or one, which refuses settings of the others."""
    concerned = {name: value for name, value in TINY.items() if phase is None or "." not in name or name.startswith(f"{phase}.")}
    settings = [part for name, value in concerned.items() for part in ("--set", f"{name}={value}")]
    settings += [] if phase is None else ["--phase", phase]
    return ["train", "--data", str(root), *settings, "--checkpoint-steps", "1", "--workers", "0", "--device", "cpu"]


def kill_often(root: Path, folder: Path, num_kills: int) -> Any:
    """Train once undisturbed and in runs that are killed repeatedly; return the names of those runs and what happened."""
    return answer_to({"do": "kills", "arguments": command(root), "num_kills": num_kills, "seed": 5}, folder)


@pytest.fixture(scope="module")
def root(packed_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return share_root(packed_root, tmp_path_factory.mktemp("killed"))


@pytest.fixture(scope="module")
def killed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return kill_often(root, tmp_path_factory.mktemp("kills"), NUM_KILLS["a few"])


def assert_as_undisturbed(root: Path, name: str, phases: Any = PHASES) -> None:
    for phase in phases:
        assert same(weights(root, phase, name), weights(root, phase, "undisturbed")), (name, phase)
        assert metrics(root, phase, name) == metrics(root, phase, "undisturbed"), (name, phase)
        momentum, expected = (
            load_checkpoint(phase_folder(root, run, 1, phase) / "checkpoint.pt").momentum for run in (name, "undisturbed")
        )
        assert same(momentum, expected), (name, phase)
        assert not list(phase_folder(root, name, 1, phase).glob("*.part"))


def test_killed_at_random_moments_and_run_again_each_time_all_weights_and_metrics_are_the_same(root: Path, killed: Any) -> None:
    assert len(killed["kills"]) == NUM_KILLS["a few"]
    for name in killed["runs"]:
        assert_as_undisturbed(root, name)


def test_killed_at_twenty_random_moments_and_run_again_each_time_all_weights_and_metrics_are_the_same(
    packed_root: Path, tmp_path: Path
) -> None:
    root = share_root(packed_root, tmp_path / "root")
    killed = kill_often(root, tmp_path, NUM_KILLS["many"])
    moments = [moment for moment, _ in killed["kills"]]
    assert len(moments) == NUM_KILLS["many"]
    assert max(moments) > 5 * min(moments)
    assert len(killed["runs"]) < NUM_KILLS["many"]  # a run was killed more than once
    for name in killed["runs"]:
        assert_as_undisturbed(root, name)


@pytest.fixture(scope="module")
def interrupted(root: Path, killed: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Interrupt each write of the first phase, and then run the same line again."""
    jobs = []
    for number, fault in enumerate(INTERRUPTED_WRITES.values()):
        line = [*command(root, PHASES[0]), "--run", f"write{number}"]
        jobs += [{"arguments": line, "faults": [fault]}, {"arguments": line}]
    results = answer_to({"do": "jobs", "jobs": jobs}, tmp_path_factory.mktemp("interrupted"))
    return dict(zip(INTERRUPTED_WRITES, zip(results[::2], results[1::2], strict=True), strict=True))


@pytest.mark.parametrize("moment", INTERRUPTED_WRITES)
def test_killed_when_a_write_is_not_done_nothing_is_lost(root: Path, interrupted: Any, moment: Any) -> None:
    first, again = interrupted[moment]
    assert first["codes"] == [-signal.SIGKILL]
    (part,) = first["parts"]
    written = {"weights": "weights.safetensors.", "digests": "digests.json."}
    assert part.startswith(next((start for word, start in written.items() if word in moment), "checkpoint.pt."))
    assert again["codes"] == [0], again["said"]
    assert_as_undisturbed(root, f"write{list(INTERRUPTED_WRITES).index(moment)}", PHASES[:1])
