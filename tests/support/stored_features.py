"""Features with a known answer for the videos of the example data root, and splits that have the digests of their clips."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.dataset.clips import ClipSource, find_clips
from flowkit.dataset.example import example_root
from flowkit.dataset.manifest import ClipRecord, Split, write_split
from flowkit.dataset.root import Dataset
from flowkit.model.scoring.feature_files import PlannedFeatures, VideoFeatures, write_features
from flowkit.model.scoring.feature_folder import write_feature_folder

SIZES = {"appearance": 7, "motion": 5}


def write_split_again(root: Path, number: int, train: Any, test: Any) -> Split:
    """Write a split of the same videos, with the digests of their clips."""
    split = Dataset.open(root).split(1)
    with ClipSource(find_clips(root)) as clips:
        records = {record.video_id: replace(record, sha256=clips.clip(record.video_id).sha256) for record in split}
    ids = sorted(records)
    return write_split(
        root,
        number,
        protocol=split.protocol,
        classes=split.classes,
        train=[records[ids[k]] for k in train],
        test=[records[ids[k]] for k in test],
        num_listed_train=len(train),
        num_listed_test=len(test),
        quantiser=split.quantiser,
        shards=split.shards,
    )


def root_with_digests(folder: Path) -> Path:
    """Make the example data root, with two of the three videos of each class for training."""
    home = example_root(folder)
    write_split_again(home, 1, [k for k in range(18) if k % 3], range(0, 18, 3))
    return home


def drawn(record: ClipRecord, width: int) -> NDArray[np.float32]:
    """The features of a video in three time steps; their mean tells its class."""
    draw = np.random.default_rng([sum(record.video_id.encode()), width])
    return np.asarray(draw.normal(size=(3, width)) + 4 * (np.arange(width) == record.label % width), np.float32)


def _same(found: VideoFeatures) -> VideoFeatures:
    return found


def features_of(root: Path, path: Path, *, leave_out: slice = slice(0), trained_on: str = "", **changed: Any) -> Path:
    """Write features of the videos of split 1 but some, to a file or a folder."""
    planned = []
    records = list(Dataset.open(root).split(1))
    del records[leave_out]
    for record in records:
        arrays = {stream: drawn(record, width) for stream, width in SIZES.items()}
        about = {"class_name": record.class_name, "num_frames": 20, "frame_rate": "25/1", "sha256": record.sha256, **changed}
        found = VideoFeatures(record.video_id, frames=np.array([5, 9, 13]), arrays=arrays, **about)
        planned.append(PlannedFeatures.of(found, partial(_same, found)))
    provenance = {"of": "st-resnet", "streams": SIZES, "trained_on": {"split": 1, "protocol": "x", "digest": trained_on}}
    (write_features if path.suffix else write_feature_folder)(path, provenance, planned)
    return path
