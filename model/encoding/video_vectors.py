"""One vector for each video, out of a file or folder of features: the mean over time of each stream, one stream after the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flowkit.dataset.manifest import ClipRecord, Split
from flowkit.dataset.root import Dataset
from flowkit.errors import FeaturesError
from flowkit.model.scoring.feature_files import FORMAT, FeatureFile
from flowkit.model.scoring.feature_folder import RECORD_NAME, FeatureFolder
from flowkit.model.scoring.plain_hdf5 import format_of
from flowkit.video.ids import first_few


def is_stored_features(path: Path) -> bool:
    """Return whether a path is a file or folder of features, damaged or not, rather than of anything else."""
    return (path / RECORD_NAME).is_file() if path.is_dir() else format_of(path) == FORMAT


def open_features(path: Path) -> FeatureFile | FeatureFolder:
    """Open a file or folder of features.

    Raises
    ------
    FeaturesError
        If it is missing, damaged or of another kind or version.
    """
    return FeatureFolder(path) if path.is_dir() else FeatureFile(path)


class VideoVectors:
    """The vectors of some videos, read from their features when they are needed.

    Parameters
    ----------
    stored : FeatureFile or FeatureFolder
        The features.
    video_ids : sequence of str
        The videos, in the order of the rows.

    Attributes
    ----------
    shape : (int, int)
        The number of videos, and of features of all streams.
    """

    def __init__(self, stored: FeatureFile | FeatureFolder, video_ids: Sequence[str]) -> None:
        self._stored, self._ids = stored, tuple(video_ids)
        self._streams: dict[str, int] = stored.provenance["streams"]
        self.shape = (len(self._ids), sum(self._streams.values()))

    def __getitem__(self, rows: slice, /) -> NDArray[np.float32]:
        """Return the vectors of some videos: float32 (k, D)."""
        wanted = self._ids[rows]
        vectors = np.zeros((len(wanted), self.shape[1]), np.float32)
        for vector, found in zip(vectors, self._stored.read_all(wanted), strict=True):
            vector[:] = np.concatenate([found.arrays[stream].mean(axis=0, dtype=np.float64) for stream in self._streams])
        return vectors


def other_splits(dataset: Dataset, number: int) -> list[Split]:
    """Return the splits of a data root but one."""
    return [dataset.split(other) for other in dataset.splits if other != number]


def check_features_of_split(stored: FeatureFile | FeatureFolder, split: Split, others: Sequence[Split]) -> None:
    """Raise `FeaturesError` unless features can be used to train on a split and to test on it.

    They must be those of the clips that the split lists; and what computed them must not have been trained on another split of the
    same data root, since that split's training list may have videos of this one's test list.

    Parameters
    ----------
    stored : FeatureFile or FeatureFolder
        The features.
    split : Split
        The split.
    others : sequence of Split
        The other splits of the data root.
    """
    digests = stored.digests()
    other_clips = [r.video_id for r in split if r.sha256 and digests.get(r.video_id, r.sha256) != r.sha256]
    if other_clips:
        raise FeaturesError(
            f"{stored.path} has features of other clips than split {split.number} lists: {first_few(other_clips, most=3)}; they were "
            "extracted differently, or from other files. Compute the features of this data root with `flowkit features --replace`"
        )
    trained_on = (stored.provenance.get("trained_on") or {}).get("digest")
    for other in others:
        if trained_on in other.digests and trained_on not in split.digests:
            learned = {record.video_id for record in other.train}
            seen = [record.video_id for record in split.test if record.video_id in learned]
            if seen:
                raise FeaturesError(
                    f"{stored.path} has features of a network that was trained on split {other.number}, whose training list has "
                    f"{len(seen)} of the {len(split.test)} test videos of split {split.number}; train on split {split.number} and "
                    f"compute the features again with `flowkit features --split {split.number}`"
                )


def with_features(records: Sequence[ClipRecord], stored: FeatureFile | FeatureFolder) -> list[ClipRecord]:
    """Return those of the records whose video has features."""
    there = set(stored.video_ids)
    return [record for record in records if record.video_id in there]
