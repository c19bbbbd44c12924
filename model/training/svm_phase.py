"""A phase of a run that is a linear SVM on one vector for each video, such as `idt`, whose vectors are Fisher vectors of trajectories.

Its folder holds ``weights.safetensors``, the SVM; ``config.json``, which names the file of features; and ``digests.json``, written last.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.dataset.manifest import ClipRecord, Split
from flowkit.dataset.root import Dataset
from flowkit.errors import CheckpointError
from flowkit.files import file_sha256, remove_leftovers, write_atomically
from flowkit.model.encoding.split_svm import SplitSvm, load_svm, svm_of_split, svm_scores
from flowkit.model.encoding.video_vectors import check_features_of_split, open_features, other_splits, with_features
from flowkit.model.runs.checkpoint import WEIGHTS_NAME
from flowkit.model.runs.run_folder import CONFIG_NAME, PhaseFolder, phase_folder, train_command, untrained_phases
from flowkit.model.scoring.feature_files import FeatureFile
from flowkit.model.scoring.feature_folder import FeatureFolder
from flowkit.model.settings.svm_phase import SvmDescription
from flowkit.model.systems.registry import SVM_PHASES, system_of_svm
from flowkit.model.systems.system import System
from flowkit.records import RecordFormat
from flowkit.run_digests import DIGESTS_NAME, check_digest, write_digests
from flowkit.versions import __version__

FEATURES = "features"  # the folder of the data root


@dataclass(frozen=True)
class SvmPhase:
    """A trained SVM, and the features that it reads.

    Parameters
    ----------
    description : SvmDescription
        What is trained.
    folder : Path
        The folder of the phase.
    features : FeatureFile or FeatureFolder
        The vectors.
    svm : SplitSvm
        The classifier.
    """

    description: SvmDescription
    folder: Path
    features: FeatureFile | FeatureFolder
    svm: SplitSvm

    def scores(self, records: Sequence[ClipRecord], classes: Sequence[str]) -> NDArray[np.float64]:
        """Return the scores of videos that have features: float64 (n, C)."""
        return svm_scores(self.svm, self.features, records, classes)

    def with_features(self, records: Sequence[ClipRecord]) -> list[ClipRecord]:
        """Return those of the records whose video has features."""
        return with_features(records, self.features)

    def about(self) -> dict[str, Any]:
        """Return what the scores depend on, as built-in types."""
        return {
            "features": self.features.path.name,
            "weights_sha256": file_sha256(self.folder / WEIGHTS_NAME),
            "num_training_videos": self.svm.provenance["num_videos"],
            "provenance": self.features.provenance,
        }


def check_trained(system: System, root: Path, *, run: str, split: int, runs: Path | None = None) -> None:
    """Raise `CheckpointError`, with the command that trains them, unless all phases of a system are trained."""
    missing = untrained_phases(system.phases, root, run=run, split=split, runs=runs)
    if missing:
        command = train_command(root, run=run, split=split, runs=runs, options=f" --system {system.name}")
        raise CheckpointError(
            f"{system.name} needs {', '.join(missing)}, which run {run!r} does not have for split {split}; `{command}` trains them"
        )


def record_format(phase: SvmDescription) -> RecordFormat:
    """Return the format of the record of a phase, config.json; its name is older than phases with vectors of other kinds."""
    remedy = f"train it again with `flowkit train --system {system_of_svm(phase.name)} --restart`"
    return RecordFormat("flowkit-trajectories", 1, CheckpointError, remedy)


def features_of_phase(phase: SvmDescription, folder: Path) -> str:
    """Return the name of the file of features that a trained phase names.

    Raises
    ------
    CheckpointError
        If its record is missing, damaged, or names a file elsewhere.
    """
    form = record_format(phase)
    record = form.read(folder / CONFIG_NAME)
    name = record.get("features")
    if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name:
        raise CheckpointError(f"{folder / CONFIG_NAME} must name a file in the folder {FEATURES} of the data root; {form.remedy}")
    return name


def train_phase(
    phase: SvmDescription,
    dataset: Dataset,
    split: Split,
    features: Path,
    folder: Path,
    *,
    restart: bool = False,
    on_class: Callable[[int], None] = lambda done: None,
) -> SvmPhase:
    """Train the SVM of a split, unless it is trained already.

    Parameters
    ----------
    phase : SvmDescription
        The phase.
    dataset : flowkit.Dataset
        The data root.
    split : flowkit.Split
        The split.
    features : Path
        The vectors, in the folder ``features`` of the data root.
    folder : Path
        The folder of the phase.
    restart : bool
        Train it even if it is trained already, on the same features or on others.
    on_class : callable
        Receives the number of classes that are done.

    Raises
    ------
    CheckpointError
        If the folder has an SVM of other features or another split, unless `restart`.
    FeaturesError
        If the features are damaged, of other clips, or of no training video.
    OSError
        If the folder cannot be written.
    """
    weights, stored = folder / WEIGHTS_NAME, open_features(features)
    if restart:
        for name in (DIGESTS_NAME, WEIGHTS_NAME, CONFIG_NAME):
            (folder / name).unlink(missing_ok=True)
    was_trained = PhaseFolder(folder).done
    made = svm_of_split(stored, split, others=other_splits(dataset, split.number), path=weights, on_class=on_class, replace=False)
    if not was_trained or not (folder / DIGESTS_NAME).exists():
        record = {**record_format(phase).header, "created_by": f"flowkit {__version__}", "phase": phase.name, "features": features.name}
        write_atomically(folder / CONFIG_NAME, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        write_digests(folder)
    remove_leftovers(folder, alone=False)  # of a training that was killed while it wrote
    return SvmPhase(phase, folder, stored, made)


def find_phase(phase: SvmDescription, dataset: Dataset, split: Split, *, run: str, runs: Path | None = None) -> SvmPhase | None:
    """Return the trained phase of a run with its features; None if it is not trained.

    Raises
    ------
    CheckpointError
        If its files are damaged, or the SVM was trained on other features than those that are there now, or on another split.
    FeaturesError
        If the features are missing, damaged, or of other clips than the split lists.
    """
    folder = phase_folder(dataset.root, run, split.number, phase.name, runs=runs)
    if not PhaseFolder(folder).done:
        return None
    name, remedy = features_of_phase(phase, folder), record_format(phase).remedy
    try:
        check_digest(folder / WEIGHTS_NAME)
    except CheckpointError as error:
        raise CheckpointError(f"{folder / WEIGHTS_NAME}: {error}") from error
    stored, made = open_features(dataset.root / FEATURES / name), load_svm(folder / WEIGHTS_NAME)
    check_features_of_split(stored, split, other_splits(dataset, split.number))
    if made.provenance.get("features") != stored.provenance:
        raise CheckpointError(f"{folder} was trained on other features than those that are now in {stored.path}; {remedy}")
    if (made.provenance.get("trained_on") or {}).get("digest") not in split.digests:
        raise CheckpointError(f"{folder} was trained on other videos than the training list of split {split.number}; {remedy}")
    return SvmPhase(phase, folder, stored, made)


def find_phases(
    dataset: Dataset, split: Split, *, run: str, runs: Path | None = None, phases: Iterable[SvmDescription] | None = None
) -> tuple[SvmPhase, ...]:
    """Return the phases of a run that are trained, of these or of all SVMs; errors are those of `find_phase`."""
    wanted = SVM_PHASES.values() if phases is None else phases
    found = (find_phase(phase, dataset, split, run=run, runs=runs) for phase in wanted)
    return tuple(phase for phase in found if phase is not None)
