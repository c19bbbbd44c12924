"""One row of the results table with its trained weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flowkit.errors import CheckpointError, ParameterError
from flowkit.model.evaluation.rows import ROW_OF_PHASE, ROWS, last_row, rows_of
from flowkit.model.runs.checkpoint import Checkpoint, load_checkpoint
from flowkit.model.runs.provenance import Provenance
from flowkit.model.runs.run_folder import find_weights, trained_phases
from flowkit.model.settings.training import Phase


@dataclass(frozen=True)
class TrainedRow:
    """One row of the results table, with its weights.

    Parameters
    ----------
    name : str
        A key of `ROWS`.
    checkpoints : dict from phase to (str, Checkpoint)
        The weights, and where each was found.

    Raises
    ------
    CheckpointError
        If the checkpoints were not trained on the same data.
    """

    name: str
    checkpoints: dict[Phase, tuple[str, Checkpoint]]

    def __post_init__(self) -> None:
        made = [checkpoint.provenance for _, checkpoint in self.checkpoints.values()]
        same_data = frozenset.intersection(*(provenance.digests for provenance in made))
        if not same_data or len({(provenance.classes, provenance.split) for provenance in made}) > 1:
            raise CheckpointError(f"{' and '.join(source for source, _ in self.checkpoints.values())} were trained on different data")

    @property
    def sources(self) -> dict[Phase, str]:
        """Where the weights of each phase were found."""
        return {phase: source for phase, (source, _) in self.checkpoints.items()}

    def digests(self) -> dict[Phase, str]:
        """Return the SHA-256 of the weights of each phase."""
        return {phase: checkpoint.digest() for phase, (_, checkpoint) in self.checkpoints.items()}

    @property
    def provenance(self) -> Provenance:
        """What the row was trained on."""
        return next(iter(self.checkpoints.values()))[1].provenance


def find_row(root: Path, *, run: str = "default", split: int = 1, row: str | None = None, runs: Path | None = None) -> TrainedRow:
    """Return a row of a run; by default the last of the table whose phases are trained, ``ST-ResNet*`` if it is.

    Raises
    ------
    ParameterError
        If there is no such row.
    CheckpointError
        If one of its phases is not trained, or its weights cannot be read.
    """
    if row is not None and row not in ROWS:
        raise ParameterError(f"row must be one of {', '.join(ROWS)}, got {row!r}")
    find_weights(root, run=run, split=split, runs=runs)  # refuses a run without any trained phase
    name = row or last_row(rows_of(trained_phases(root, run=run, split=split, runs=runs)))
    assert name is not None  # each phase has a row
    paths: dict[Phase, Path] = {phase: find_weights(root, run=run, split=split, phase=phase, runs=runs) for phase, _ in ROWS[name]}
    return TrainedRow(name, {phase: (str(path), load_checkpoint(path)) for phase, path in paths.items()})


def row_of(path: Path) -> TrainedRow:
    """Return the row of one phase's weights, checkpoint or folder; `CheckpointError` if they cannot be read."""
    checkpoint = load_checkpoint(path)
    phase = checkpoint.provenance.config.phase
    return TrainedRow(ROW_OF_PHASE[phase], {phase: (str(path), checkpoint)})
