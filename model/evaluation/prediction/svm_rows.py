"""Rows of the results table that have SVMs, at work on video files: IDT, C3D, and networks that are joined with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.dataset.root import Dataset
from flowkit.dataset.settings import ExtractSettings
from flowkit.errors import CheckpointError, FlowkitError, ParameterError
from flowkit.extraction.results import WRITTEN
from flowkit.extraction.sample_apart import count_frames
from flowkit.model.compute.execution import Execution
from flowkit.model.encoding.video_vectors import VideoVectors
from flowkit.model.evaluation.prediction.predictor import Predictor
from flowkit.model.evaluation.prediction.result import FUSED, Prediction
from flowkit.model.evaluation.rows import ROWS, SYSTEM_ROWS
from flowkit.model.evaluation.system_rows import joined_rows
from flowkit.model.evaluation.trained_row import TrainedRow
from flowkit.model.runs.recorded_extraction import Solver
from flowkit.model.runs.run_folder import train_command, trained_phases, untrained_phases
from flowkit.model.scoring.feature_files import FeatureFile
from flowkit.model.scoring.tested_networks import Crops
from flowkit.model.systems.registry import SVM_PHASES, system_of_svm
from flowkit.model.training.svm_phase import SvmPhase, find_phase
from flowkit.model.training.svm_vectors import VectorChoices, VectorRequest, file_vector
from flowkit.temporary import temporary_folder

NO_PROBABILITIES = "scores of SVMs are no probabilities: the percentages are their softmax, and only the order of the classes counts"


@dataclass(frozen=True)
class SvmRow:
    """A row that has SVMs, with what was trained for it.

    Parameters
    ----------
    name : str
        The row.
    svms : tuple of SvmPhase
        Its SVMs.
    networks : TrainedRow, optional
        The row of networks that it joins with them.
    """

    name: str
    svms: tuple[SvmPhase, ...]
    networks: TrainedRow | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """The rows that it joins, or itself."""
        return SYSTEM_ROWS[self.name] or (self.name,)

    @property
    def sources(self) -> dict[str, str]:
        """Where the weights of each phase were found."""
        networks = {} if self.networks is None else self.networks.sources
        return {**networks, **{one.description.name: str(one.folder) for one in self.svms}}

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of the weights of each phase."""
        networks = {} if self.networks is None else self.networks.digests()
        return {**networks, **{one.description.name: one.about()["weights_sha256"] for one in self.svms}}


class SvmPredictor:
    """A row that an SVM gives, or that joins networks and SVMs, for one video file after another.

    What an SVM sees of a video is computed as for the videos of the data root: as `flowkit.model.features` does, or
    `flowkit.model.trajectory_features` with the encoder of the training. The scores are joined as `evaluate` joins them.

    Parameters
    ----------
    row : str
        The row, such as ``IDT`` or ``C3D + IDT``.
    root : path
        The data root.
    run, split, runs : str, int, path
        The run and split of the SVMs, and the folder of the runs if it is not the data root's.
    execution : Execution, optional
        Where and how networks compute.
    solver : {"auto", "strict", "fast", "cuda"}
        What computes the flow for a row of networks; see `Predictor.open`.
    num_threads : int, optional
        Number of threads that solve flow on the CPU for a row of networks.
    weights : (float, float), optional
        The weights of its two streams.
    crops : {"whole", "ten"}
        What these networks see of each frame.

    Attributes
    ----------
    classes : tuple of str
        Class names by label.
    settings : ExtractSettings
        How videos are extracted for networks.
    notes : tuple of str
        What the user should know.

    Raises
    ------
    CheckpointError
        If an SVM or a network of the row is not trained, or is damaged.
    FeaturesError
        If the features of an SVM are missing or damaged.
    ParameterError
        If there is no such row with an SVM.
    """

    def __init__(
        self,
        row: str,
        root: str | Path,
        *,
        run: str = "default",
        split: int = 1,
        runs: str | Path | None = None,
        execution: Execution | None = None,
        solver: Solver = "auto",
        num_threads: int | None = None,
        weights: tuple[float, float] | None = None,
        crops: Crops = "whole",
    ) -> None:
        if row not in SYSTEM_ROWS:
            raise ParameterError(f"row must be one of {', '.join(SYSTEM_ROWS)}, got {row!r}")
        parts = SYSTEM_ROWS[row] or (row,)
        execution = execution or Execution()
        self.device = execution.torch_device()
        dataset, kept = Dataset.open(Path(root)), None if runs is None else Path(runs)
        svms = _svms_of(parts, dataset, run=run, split=split, runs=kept)
        choices = VectorChoices(execution=execution)
        self._requests = {one.description.name: VectorRequest(one.description, dataset.root, split, run, kept, choices) for one in svms}
        self._networks: Predictor | None = None
        for part in (part for part in parts if part in ROWS):  # there is one at most
            where: dict[str, Any] = {"run": run, "split": split, "runs": runs, "device": execution.device}
            how: dict[str, Any] = {"solver": solver, "num_threads": num_threads, "weights": weights, "crops": crops}
            self._networks = Predictor.open(root, row=part, **where, **how)
        networks = self._networks
        self.row = SvmRow(row, svms, None if networks is None else networks.row)
        self.classes = svms[0].svm.svm.classes if networks is None else networks.classes
        self.settings: ExtractSettings = dataset.settings if networks is None else networks.settings
        self.notes = (*(() if networks is None else networks.notes), *_notes(svms), NO_PROBABILITIES)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.row.name}, {len(self.classes)} classes, on {self.device}>"

    def predict(self, path: str | Path, *, progress: bool | None = None) -> Prediction:
        """Classify one video.

        Parameters
        ----------
        path : path
            A video file of any length.
        progress : bool, optional
            Whether to show the progress of networks. Default: on a terminal and in a notebook.

        Returns
        -------
        Prediction
            The scores by part of the row, and the row's own as ``fused``. A video that cannot be decoded has none.
        """
        path = Path(path)
        scores: dict[str, NDArray[np.float64]] = {}
        if self._networks is not None:
            found = self._networks.predict(path, progress=progress)
            if not found.scores:
                return found
            scores[self._networks.row.name] = found.scores[FUSED]
        else:
            video = count_frames(path, settings=self.settings)
            found = Prediction(path, video.status, video.num_frames, video.decode_errors, video.error, self.classes)
            if video.status not in WRITTEN:
                return found
        try:
            for one in self.row.svms:
                scores[one.description.row] = self._svm_scores(one, path)
        except (FlowkitError, OSError) as error:
            return replace(found, status="failed", error=str(error), scores={})
        ordered = {part: scores[part] for part in self.row.parts}
        own = joined_rows(self.row.parts, {part: values[None] for part, values in ordered.items()})[0] if len(ordered) > 1 else None
        return replace(found, scores={**ordered, FUSED: scores[self.row.name] if own is None else own})

    def _svm_scores(self, one: SvmPhase, path: Path) -> NDArray[np.float64]:
        """Return the scores (C,) of an SVM, of a vector that is computed now."""
        with temporary_folder("vector") as folder:
            report = file_vector(self._requests[one.description.name], one.features, path, output=folder / "vector.h5")
            stored = FeatureFile(report.path)
            scores: NDArray[np.float64] = one.svm.svm.scores_of(self.classes, VideoVectors(stored, stored.video_ids))[0]
        return scores


def only_svm_row(root: Path, *, run: str, split: int, runs: Path | None = None) -> str | None:
    """Return the last row of SVMs that a run has, if it has no trained network."""
    if trained_phases(root, run=run, split=split, runs=runs):
        return None
    missing = untrained_phases(SVM_PHASES, root, run=run, split=split, runs=runs)
    return next((phase.row for name, phase in reversed(SVM_PHASES.items()) if name not in missing), None)


def _svms_of(parts: Sequence[str], dataset: Dataset, *, run: str, split: int, runs: Path | None) -> tuple[SvmPhase, ...]:
    """Return the trained SVMs of a row."""
    manifest, found = dataset.split(split), []
    for phase in (phase for phase in SVM_PHASES.values() if phase.row in parts):
        trained = find_phase(phase, dataset, manifest, run=run, runs=runs)
        if trained is None:
            command = train_command(dataset.root, run=run, split=split, runs=runs, options=f" --system {system_of_svm(phase.name)}")
            raise CheckpointError(f"run {run!r} has no trained {phase.name} for split {split}; `{command}` trains it")
        found.append(trained)
    return tuple(found)


def _notes(svms: Sequence[SvmPhase]) -> list[str]:
    """Return in what the vectors of a file differ from those of the training."""
    return [
        f"{one.description.row} was trained on trajectories of stored frames, and those of a file are computed at its own size"
        for one in svms
        if one.features.provenance.get("pixels") == "stored"
    ]
