"""The files of one phase: config.json first, metrics.jsonl and checkpoint.pt while it lasts, weights.safetensors when it is done."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

from flowkit import __version__
from flowkit.errors import CheckpointError
from flowkit.files import write_atomically
from flowkit.model.checkpoint import CHECKPOINT_NAME, WEIGHTS_NAME, Provenance, load_checkpoint, save_checkpoint, save_weights

if TYPE_CHECKING:
    from pathlib import Path

    from flowkit.model.checkpoint import Checkpoint

CONFIG_NAME = "config.json"
METRICS_NAME = "metrics.jsonl"


class PhaseFolder:
    """Where a phase keeps its files.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def done(self) -> bool:
        """Whether the phase's final weights are there."""
        return (self.path / WEIGHTS_NAME).is_file()

    def provenance(self) -> Provenance | None:
        """Return what config.json says the phase is trained on and how; None where there is no such file.

        Raises
        ------
        CheckpointError
            If the file is damaged or foreign.
        """
        path = self.path / CONFIG_NAME
        if not path.is_file():
            return None
        try:
            return Provenance.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, CheckpointError) as cause:
            raise CheckpointError(f"{path}: {cause}") from cause

    def claim(self, provenance: Provenance, command: dict[str, Any]) -> None:
        """Begin the phase, or make sure that what was begun here is the same.

        Parameters
        ----------
        provenance : Provenance
        command : dict
            More to keep in config.json, for people; not compared.

        Raises
        ------
        CheckpointError
            If the phase was begun with other settings or data; names all that differs.
        """
        existing = self.provenance()
        if existing is None:
            text = json.dumps({**provenance.to_dict(), "created_by": f"flowkit {__version__}", **command}, indent=1, ensure_ascii=False)
            write_atomically(self.path / CONFIG_NAME, text + "\n")
            return
        differences = existing.differences(provenance)
        if differences:
            raise CheckpointError(
                f"{self.path} was begun with other settings: {'; '.join(differences)}. Use those, or `--run NAME` for a run of its own, "
                "or `--restart` to discard this one"
            )

    def checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint to go on from, if there is one."""
        path = self.path / CHECKPOINT_NAME
        return load_checkpoint(path) if path.is_file() else None

    def write_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint."""
        save_checkpoint(self.path / CHECKPOINT_NAME, checkpoint)

    def write_weights(self, checkpoint: Checkpoint) -> None:
        """Write the final weights: the phase is done."""
        save_weights(self.path / WEIGHTS_NAME, checkpoint)

    def cut_metrics(self, num_steps: int) -> None:
        """Drop the lines of steps that the checkpoint does not hold, and a line that was cut off."""
        path = self.path / METRICS_NAME
        kept = []
        for line in path.read_bytes().splitlines(keepends=True) if path.is_file() else []:
            try:
                step = json.loads(line)["step"]
            except (ValueError, KeyError, TypeError):
                continue
            if line.endswith(b"\n") and step < num_steps:
                kept.append(line)
        write_atomically(path, b"".join(kept))

    def metrics_path(self) -> Path:
        """Return the file with one JSON object a step."""
        return self.path / METRICS_NAME

    def discard(self) -> None:
        """Remove the phase."""
        if self.path.is_dir():
            shutil.rmtree(self.path)
