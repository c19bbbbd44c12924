"""Scores out of features: those that a linear SVM gives the test videos after it was trained on the training list."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from flowkit.dataset.root import Dataset
from flowkit.errors import FeaturesError
from flowkit.model.encoding.split_svm import svm_of_split, svm_scores
from flowkit.model.encoding.video_vectors import open_features, other_splits, with_features
from flowkit.model.evaluation.scores import ScoreTable
from flowkit.words import counted

SVM_SUFFIX = ".safetensors"


def svm_path(features: Path, split: int) -> Path:
    """Return where the SVM of a split is stored: beside its features."""
    return features.with_name(f"{features.stem if features.is_file() else features.name}-svm{split}{SVM_SUFFIX}")


def scores_of_features(
    path: Path, root: Path, split: int, *, normalise: bool = True, on_class: Callable[[int], None] = lambda done: None
) -> tuple[ScoreTable, tuple[str, ...]]:
    """Train a linear SVM on the features of a split's training list, or read the one that is stored, and score its test list.

    Parameters
    ----------
    path : Path
        The file or folder of features, of the videos of this data root.
    root : Path
        The data root.
    split : int
        The number of the split.
    normalise : bool
        Divide each video's vector by its Euclidean length.
    on_class : callable
        Receives the number of classes that are done, while an SVM is trained.

    Returns
    -------
    table : ScoreTable
        The scores of those test videos that have features.
    notes : tuple of str
        What else is worth knowing.

    Raises
    ------
    FeaturesError
        If the features are damaged, of other clips, of a network that saw test videos, or of no video of one of the lists.
    ManifestError
        If the split is not packed.
    CheckpointError
        If the stored SVM is damaged.
    ParameterError
        If scikit-learn is missing, or there are fewer than two classes.
    """
    dataset, stored = Dataset.open(root), open_features(path)
    manifest = dataset.split(split)
    others = other_splits(dataset, split)
    made = svm_of_split(stored, manifest, others=others, path=svm_path(path, split), normalise=normalise, on_class=on_class)
    records = with_features(manifest.test, stored)
    if not records:
        raise FeaturesError(f"{path} has features of no test video of split {split}")
    scores = svm_scores(made, stored, records, manifest.classes)
    labels = np.array([record.label for record in records], np.int64)
    notes = [f"{path.name}: a linear SVM on the features of {counted(made.provenance['num_videos'], 'training video')}"]
    if made.provenance["num_videos"] < len(manifest.train):
        notes[0] += f"; {len(manifest.train) - made.provenance['num_videos']} of the training list have none"
    missing = [name for name in manifest.classes if name not in made.svm.classes]
    notes += [f"{path.name}: {counted(len(missing), 'class')} without training videos, which the SVM cannot name"] if missing else []
    return ScoreTable(str(path), tuple(record.video_id for record in records), manifest.classes, scores, labels), tuple(notes)
