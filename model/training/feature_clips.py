"""Training on features: what the network of an earlier phase computes of each training video, once, kept in a file beside the phases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowkit.dataset.manifest import ClipRecord, Split
from flowkit.errors import ManifestError
from flowkit.model.compute.execution import Execution
from flowkit.model.compute.ranks import any_rank, gathered, wait
from flowkit.model.data.training_clips import sub_batches
from flowkit.model.runs.events import FeaturesComputed, TrainEvent, never
from flowkit.model.scoring.feature_files import FeatureFile
from flowkit.model.scoring.video_features import features
from flowkit.model.settings.training import TrainConfig

FOLDER = "features"  # in the folder of a run's split, beside those of the phases


class FeatureBatch(NamedTuple):
    """Videos that pass through a network together: their features (b, T, D), float32, and labels (b,), int64."""

    features: Tensor
    labels: Tensor


class FeatureClips:
    """The training videos of a phase that learns from features, all in memory: 200 KB for 25 frames of a ResNet-50.

    Parameters
    ----------
    config : TrainConfig
        The settings of the phase; its `num_samples` frames are spread over those that have features.
    labels : sequence of int
        The class of each video.
    arrays : iterable of float32 array, shape (n, D)
        The features of n frames of each video, in their order. Each is copied before the next one is asked for, so that memory has
        the features once.

    Examples
    --------
    >>> import numpy as np
    >>> from flowkit.model import TrainConfig
    >>> from flowkit.model.settings.sequence import SequenceConfig
    >>> from flowkit.model.training.feature_clips import FeatureClips
    >>> network = SequenceConfig(num_classes=2, base_width=1)
    >>> config = TrainConfig("lstm-motion", network, "my own", batch=4, bn_group=2, schedule=((3, 0.1),), num_samples=5)
    >>> clips = FeatureClips(config, [0, 1, 1], [np.zeros((25, 32), np.float32)] * 3)
    >>> next(clips.batches()).features.shape
    torch.Size([2, 5, 32])
    """

    def __init__(self, config: TrainConfig, labels: Sequence[int], arrays: Iterable[NDArray[np.float32]]) -> None:
        self.config, self.labels = config, tuple(labels)
        self._features = torch.empty(0)
        for video, array in enumerate(arrays):
            if not video:
                self._features = torch.empty((len(self.labels), config.num_samples, array.shape[1]))
            places = np.linspace(0, len(array) - 1, config.num_samples).round().astype(np.int64)
            self._features[video] = torch.from_numpy(array[places])

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, *, first_step: int = 0, rank: int = 0, world: int = 1) -> Iterator[FeatureBatch]:
        """Yield every sub-batch of the phase from a step on, as `training_loader` orders them."""
        labels = torch.tensor(self.labels)
        for keys in sub_batches(self.config, self.labels, first_step=first_step, rank=rank, world=world):
            videos = [key.video for key in keys]
            yield FeatureBatch(self._features[videos], labels[videos])


def feature_clips(
    root: Path,
    trained_on: Split,
    config: TrainConfig,
    weights: Path,
    folder: Path,
    *,
    execution: Execution,
    on_event: Callable[[TrainEvent], None],
    should_stop: Callable[[], bool] = never,
) -> FeatureClips | None:
    """Return the features that a trained phase gives the training videos; those that are not kept already are computed.

    Parameters
    ----------
    root : Path
        The data root.
    trained_on : Split
        The split, without the videos that are held out.
    config : TrainConfig
        The settings of the phase that learns from the features.
    weights : Path
        The final weights of the phase from which it starts.
    folder : Path
        Where features are kept. They are used again only with the same weights, data, device and precision; videos are added to them.
    execution : Execution
        Where and how to compute. Each rank computes its share, and reads all.
    on_event, should_stop : callable
        As in `train`.

    Returns
    -------
    FeatureClips or None
        None if a stop was requested before all features were there; what is computed by then is kept.

    Raises
    ------
    ManifestError
        If a video cannot be read.
    BusyError
        If another process computes the same features.

    Notes
    -----
    The features are of the 25 frames of the test, without mirror images, as `flowkit.model.features` computes them. A phase that learns
    from them needs one pass over the videos instead of one in each epoch, and the phases that start from the same network share them.
    """
    name = weights.parent.name
    rank, world = execution.rank, execution.world
    mine = trained_on.train[rank::world]
    stopped, failed = False, ""
    if mine:
        report = features(
            root,
            checkpoint=weights,
            videos=[record.video_id for record in mine],
            output=_path(folder, name, rank, world),
            replace=True,
            execution=execution,
            progress=False,
            should_stop=should_stop,
            on_progress=lambda done, num_videos: on_event(FeaturesComputed(config.phase, name, done, num_videos)),
        )
        stopped = report.stopped
        failed = "; ".join(f"{clip.video_id}: {clip.reason}" for clip in report.failed)
    wait(world)
    for reason in gathered([failed], world):
        if any(reason):
            raise ManifestError(f"{config.phase} needs the features of all training videos, and {name} gives some none: {reason[0]}")
    if any_rank(stopped, execution.torch_device(), world):
        return None
    shares = [_read(_path(folder, name, other, world), trained_on.train[other::world]) for other in range(world)]
    in_order = (next(shares[place % world]) for place in range(len(trained_on.train)))
    return FeatureClips(config, [record.label for record in trained_on.train], in_order)


def _path(folder: Path, name: str, rank: int, world: int) -> Path:
    """Return the file of the share of a rank."""
    return folder / (f"{name}.h5" if world == 1 else f"{name}-{rank + 1}of{world}.h5")


def _read(path: Path, records: Sequence[ClipRecord]) -> Iterator[NDArray[np.float32]]:
    """Yield the features of these videos, in their order."""
    if records:
        stored = FeatureFile(path)
        (stream,) = stored.provenance["streams"]
        for video in stored.read_all([record.video_id for record in records]):
            yield video.arrays[stream]
