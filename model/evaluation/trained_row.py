"""One row of the results table with its trained weights, and how videos are extracted for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from flowkit.dataset.root import Dataset
from flowkit.dataset.settings import ExtractSettings, ForeignTool
from flowkit.errors import CheckpointError, ManifestError, ParameterError
from flowkit.flow.params import PRESETS, TVL1Params
from flowkit.model.evaluation.rows import ROW_OF_PHASE, ROWS, rows_of
from flowkit.model.runs.checkpoint import Checkpoint, load_checkpoint
from flowkit.model.runs.provenance import Provenance
from flowkit.model.runs.run_folder import find_weights, trained_phases
from flowkit.model.settings.training import Phase
from flowkit.quantise import Quantiser

Solver = Literal["auto", "strict", "fast", "cuda"]
# The preset whose parameters are nearest to a tool's own, for networks whose training flow was imported from it.
_PRESET_OF_TOOL: dict[ForeignTool, str] = {"gpu_flow": "paper", "dense_flow": "denseflow", "denseflow": "denseflow"}


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
    name = row or rows_of(trained_phases(root, run=run, split=split, runs=runs))[-1]
    paths: dict[Phase, Path] = {phase: find_weights(root, run=run, split=split, phase=phase, runs=runs) for phase, _ in ROWS[name]}
    return TrainedRow(name, {phase: (str(path), load_checkpoint(path)) for phase, path in paths.items()})


def row_of(path: Path) -> TrainedRow:
    """Return the row of one phase's weights, checkpoint or folder; `CheckpointError` if they cannot be read."""
    checkpoint = load_checkpoint(path)
    phase = checkpoint.provenance.config.phase
    return TrainedRow(ROW_OF_PHASE[phase], {phase: (str(path), checkpoint)})


def extraction_of(provenance: Provenance, root: Path | None) -> tuple[ExtractSettings, str]:
    """Return how videos must be extracted for a network, and a note on what had to be assumed (empty if nothing).

    Parameters
    ----------
    provenance : Provenance
        What the network was trained on.
    root : Path, optional
        The data root whose settings to take where the weights do not record theirs.

    Raises
    ------
    CheckpointError
        If the settings that the weights record are impossible.
    """
    try:
        quantiser = Quantiser.from_dict(provenance.quantiser)
        stored: dict[str, Any] = provenance.extraction
        note = ""
        if not stored:
            settings, source = _settings_of(root, quantiser)
            return settings, f"the weights are from before flowkit recorded how their videos were extracted; using {source}"
        solver, params = stored["solver"], TVL1Params.from_dict(stored["tvl1"])
        if solver in get_args(ForeignTool):
            preset = _PRESET_OF_TOOL[solver]
            note = f"the network was trained on flow of {solver}; flowkit's solver with preset {preset} stands in for it"
            params, solver = TVL1Params.preset(preset), "strict"
        preset = next((name for name in PRESETS if TVL1Params.preset(name) == params), PRESETS[0])
        return ExtractSettings(preset, params, solver, quantiser, stored["short_side"], stored["codec"]), note
    except (ParameterError, KeyError, TypeError) as cause:
        raise CheckpointError(f"the extraction that the weights record is impossible: {cause}") from cause


def _settings_of(root: Path | None, quantiser: Quantiser) -> tuple[ExtractSettings, str]:
    """Return a data root's settings if they have the weights' quantiser, else the defaults; and in words which."""
    if root is not None:
        try:
            dataset = Dataset.open_if_present(root)
        except ManifestError:
            dataset = None
        if dataset is not None and dataset.settings.quantiser == quantiser and not dataset.settings.is_imported:
            return dataset.settings, f"the settings of {root}"
    settings = ExtractSettings(quantiser=quantiser)
    return settings, f"the defaults (TV-L1 {settings.preset}, short side {settings.short_side} px)"


def with_solver(settings: ExtractSettings, solver: Solver, device: str) -> tuple[ExtractSettings, str]:
    """Return the settings with the solver to use on this machine, and a note if it is not that of the training.

    ``auto`` is the training's solver; the cuda solver if `device` names a GPU that it can use; the strict solver if the training's is
    the cuda solver and there is no such GPU.
    """
    from flowkit.flow.cuda import device as gpu

    chosen: str = solver
    if solver == "auto":
        chosen = settings.solver
        if device.startswith("cuda") and gpu.has_gpu():
            chosen = "cuda"
        elif chosen == "cuda" and not gpu.has_gpu():
            chosen = "strict"
    elif solver == "cuda":
        gpu.list_devices()  # says what is missing
    if chosen == settings.solver:
        return settings, ""
    note = f"the flow is from the {chosen} solver, that of the training data from the {settings.solver} solver; "
    return replace(settings, solver=chosen), note + "they differ by hundredths of a pixel"  # type: ignore[arg-type]
