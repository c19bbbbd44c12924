"""What ``config.json`` in the folder of a phase says about its training, read as foreign data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flowkit.errors import CheckpointError
from flowkit.files import read_file
from flowkit.model.runs.provenance import Provenance
from flowkit.model.runs.run_folder import CONFIG_NAME, phase_folder, trained_phases
from flowkit.model.settings.training import Phase
from flowkit.records import parse_json

MAX_CONFIG_BYTES = 1 << 22


@dataclass(frozen=True)
class RecordedPhase:
    """What a phase's ``config.json`` records.

    Parameters
    ----------
    provenance : Provenance
        How the phase was trained, and on what.
    weights_file : str, optional
        The file of weights that its training started from, as an absolute path; None if it was none, or is not recorded.
    init_from : str, optional
        The trained network that its training started from, as it was given; None if it was none.
    """

    provenance: Provenance
    weights_file: str | None = None
    init_from: str | None = None


def read_recorded(path: Path) -> RecordedPhase:
    """Read a ``config.json``.

    Raises
    ------
    CheckpointError
        If it cannot be read, is too large, or is not the record of a training.
    """
    try:
        values = parse_json(read_file(path, most_bytes=MAX_CONFIG_BYTES))
    except OSError as cause:
        raise CheckpointError(f"cannot read {path}: {cause.strerror}") from cause
    except ValueError as cause:
        raise CheckpointError(f"{path} is not valid JSON ({cause!s:.200})") from cause
    try:
        provenance = Provenance.from_dict(values)
    except CheckpointError as cause:
        raise CheckpointError(f"{path}: {cause}") from cause
    paths = [values.get(name) for name in ("weights_file", "init_from")]
    weights_file, init_from = (text if isinstance(text, str) and text and "\0" not in text else None for text in paths)
    return RecordedPhase(provenance, weights_file, init_from)


def recorded_run(root: Path, run: str, split: int, *, runs: Path | None = None) -> dict[Phase, Provenance]:
    """Return how the finished phases of a run were trained, as far as their ``config.json`` can be read."""
    found: dict[Phase, Provenance] = {}
    for phase in trained_phases(root, run=run, split=split, runs=runs):
        try:
            found[phase] = read_recorded(phase_folder(root, run, split, phase, runs=runs) / CONFIG_NAME).provenance
        except CheckpointError:  # the weights say it too
            continue
    return found
