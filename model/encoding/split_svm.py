"""The linear SVM of a split: trained on the features of its training list, stored beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.dataset.manifest import ClipRecord, Split
from flowkit.errors import CheckpointError, FeaturesError, ParameterError
from flowkit.model.encoding.linear_svm import SVM_C, LinearSvm, train_svm
from flowkit.model.encoding.video_vectors import VideoVectors, check_features_of_split, with_features
from flowkit.model.runs.array_files import ArrayFormat
from flowkit.model.scoring.feature_files import FeatureFile
from flowkit.model.scoring.feature_folder import FeatureFolder

SVM_FORMAT = ArrayFormat("flowkit-svm", 1, "a linear SVM", "delete it, and it is trained again")


@dataclass(frozen=True)
class SplitSvm:
    """A linear SVM and what it was trained on.

    Parameters
    ----------
    svm : LinearSvm
        The classifier.
    provenance : dict
        The features, the split, the number of training videos and the settings that it depends on.
    """

    svm: LinearSvm
    provenance: dict[str, Any]

    def save(self, path: Path) -> None:
        """Write it as safetensors. The same SVM gives the same bytes.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        about = {"classes": list(self.svm.classes), "normalise": self.svm.normalise, "trained": self.provenance}
        SVM_FORMAT.write(path, {"planes": self.svm.planes, "offsets": self.svm.offsets}, about)


def load_svm(path: Path) -> SplitSvm:
    """Read an SVM.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, of another kind or version, or its numbers are no SVM.
    """
    arrays, about = SVM_FORMAT.read(path)
    classes, normalise, provenance = about.get("classes"), about.get("normalise"), about.get("trained")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes) or len(set(classes)) < len(classes):
        raise CheckpointError(f"{path} does not name its classes; {SVM_FORMAT.remedy}")
    if not isinstance(normalise, bool) or not isinstance(provenance, dict) or arrays.keys() != {"planes", "offsets"}:
        raise CheckpointError(f"{path} lacks its planes, its offsets, or what it was trained on; {SVM_FORMAT.remedy}")
    try:
        return SplitSvm(LinearSvm(tuple(classes), arrays["planes"], arrays["offsets"], normalise), provenance)
    except ParameterError as cause:
        raise CheckpointError(f"{path}: {cause}; {SVM_FORMAT.remedy}") from cause


def svm_of_split(
    stored: FeatureFile | FeatureFolder,
    split: Split,
    *,
    others: Sequence[Split] = (),
    path: Path,
    normalise: bool = True,
    replace: bool = True,
    on_class: Callable[[int], None] = lambda done: None,
) -> SplitSvm:
    """Return the SVM that was trained on the features of a split's training list: the one at `path` if it is this one, else a new one.

    Parameters
    ----------
    stored : FeatureFile or FeatureFolder
        The features.
    split : Split
        The split.
    others : sequence of Split
        The other splits of the data root, on which the network of the features must not have been trained.
    path : Path
        Where the SVM is stored.
    normalise : bool
        Divide each video's vector by its Euclidean length.
    replace : bool
        Replace a stored SVM of other features, of another split or of other settings.
    on_class : callable
        Receives the number of classes that are done, while a new one is trained.

    Raises
    ------
    CheckpointError
        If the stored SVM is damaged, or it is another one and must not be replaced.
    FeaturesError
        If the features are of other clips, of a network that saw the test videos, or of no training video.
    ParameterError
        If scikit-learn is missing, or there are fewer than two classes.
    OSError
        If the SVM cannot be written.
    """
    check_features_of_split(stored, split, others)
    records = with_features(split.train, stored)
    if not records:
        raise FeaturesError(f"{stored.path} has features of no training video of split {split.number}")
    provenance = {
        "features": stored.provenance,
        "trained_on": {"split": split.number, "protocol": split.protocol, "digest": split.digest},
        "num_videos": len(records),
        "num_listed": len(split.train),
        "c": SVM_C,
    }
    if path.is_file():
        there = load_svm(path)
        if there.provenance == provenance and there.svm.normalise == normalise:
            return there
        if not replace:
            different = sorted(name for name in provenance if there.provenance.get(name) != provenance[name]) or ["normalise"]
            raise CheckpointError(f"{path} was trained with other values of: {', '.join(different)}")
    vectors = VideoVectors(stored, [record.video_id for record in records])
    labels = [record.label for record in records]
    made = SplitSvm(train_svm(vectors, labels, split.classes, normalise=normalise, on_class=on_class), provenance)
    made.save(path)
    return made


def svm_scores(
    made: SplitSvm, stored: FeatureFile | FeatureFolder, records: Sequence[ClipRecord], classes: Sequence[str]
) -> NDArray[np.float64]:
    """Return the scores of videos: float64 (n, C). A class without training videos scores below all others."""
    return made.svm.scores_of(classes, VideoVectors(stored, [record.video_id for record in records]))
