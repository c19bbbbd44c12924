"""Files that change while a training reads them: nothing of two versions is mixed, and the same line goes on afterwards."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from safetensors.torch import save_file
from training_runs import TINY, copy_phases, run, same, weights

from flowkit.errors import CheckpointError, SourceChangedError
from flowkit.model.compute.execution import Execution
from flowkit.model.networks import residual
from flowkit.model.runs import events
from flowkit.model.runs.run_folder import phase_folder
from flowkit.model.training import phases
from flowkit.model.training.chain import train


def change_after(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, path: Path) -> None:
    """Change a file as soon as a function of a module has read it."""
    read = getattr(module, name)

    def disturbed(*args: Any, **kwargs: Any) -> Any:
        result = read(*args, **kwargs)
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([(data[-1] + 1) % 256]))  # one byte of a weight
        return result

    monkeypatch.setattr(module, name, disturbed)


@pytest.mark.slow
def test_a_shard_that_is_replaced_ends_the_training_and_the_same_line_goes_on(
    packed_root: Path, tmp_path: Path, undisturbed: tuple[Path, list[Any]]
) -> None:
    """As `flowkit pack` replaces it in another terminal."""
    root = tmp_path / "data"
    shutil.copytree(packed_root, root)

    def pack_again(event: Any) -> None:
        if isinstance(event, events.PhaseStarted):
            for path in (root / "shards").glob("*.h5"):
                shutil.copy(path, tmp_path / "new")
                (tmp_path / "new").replace(path)

    with pytest.raises(SourceChangedError, match="was replaced, changed or removed while it was in use"):
        train(root, phases=["motion"], overrides=TINY, execution=Execution(device="cpu", checkpoint_steps=2), on_event=pack_again)
    run(root, phases=["motion"])
    assert same(weights(root, "motion"), weights(undisturbed[0], "motion"))


def test_weights_of_an_earlier_phase_that_change_while_they_are_read_are_refused(
    undisturbed: tuple[Path, list[Any]], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a phase records that it started from has the digest of what was read."""
    copy_phases(undisturbed[0], root, "appearance", "motion")
    (phase_folder(root, "default", 1, "motion") / "digests.json").unlink()  # an older run has none
    change_after(monkeypatch, phases, "load_checkpoint", phase_folder(root, "default", 1, "motion") / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"motion.weights\.safetensors was changed while st-resnet began to train from it"):
        run(root, phases=["st-resnet"])


def test_a_file_of_pretrained_weights_that_changes_while_it_is_read_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = root / "mine.safetensors"
    run(root, phases=["appearance"], overrides={"steps": 1})
    save_file({name.removeprefix("appearance."): tensor for name, tensor in weights(root, "appearance").items()}, path)
    change_after(monkeypatch, residual, "pretrained_state", path)
    with pytest.raises(CheckpointError, match=r"mine\.safetensors was changed while it was read"):
        run(root, run="mine", weights=path, phases=["appearance"], overrides={"steps": 1})
