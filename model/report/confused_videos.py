"""The pairs of classes that are confused most often, and pictures of the videos concerned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowkit.dataset.manifest import ClipRecord
from flowkit.dataset.root import Dataset
from flowkit.describe.flow_colour import flow_to_colour, round_scale
from flowkit.describe.pictures import small_moment, spread_indices
from flowkit.errors import FlowkitError
from flowkit.model.evaluation.row_results import RowResult
from flowkit.model.scoring.metrics import Fusion, shares
from flowkit.shards.reader import ShardReader

_CELL_PX = 160  # sides at most
_GAP_PX = 4


@dataclass(frozen=True)
class Mistake:
    """A video that was classified wrongly.

    Parameters
    ----------
    video : int
        Its index among the scored videos.
    label, predicted : int
        The correct class and the predicted one.
    best : tuple of (int, float, float)
        The classes with the highest scores, `predicted` first: label, score, and its share in a softmax over all classes (the score
        itself, if scores are means of softmaxes).
    rank : int
        Rank of the correct class, from 0.
    """

    video: int
    label: int
    predicted: int
    best: tuple[tuple[int, float, float], ...]
    rank: int


@dataclass(frozen=True)
class ConfusedPair:
    """Two classes and the videos that were confused between them.

    Parameters
    ----------
    first, second : int
        Labels; more videos of the first were predicted as the second than the reverse.
    num_first, num_second : int
        Number of videos of the first predicted as the second, and of the second predicted as the first.
    mistakes : tuple of Mistake
        Some of them, those with the highest scores first.
    """

    first: int
    second: int
    num_first: int
    num_second: int
    mistakes: tuple[Mistake, ...]


@dataclass(frozen=True)
class Moments:
    """A few frames of a video and the flow that follows them.

    Parameters
    ----------
    frames, flow : uint8 array, shape (H, W, 3), RGB
        Pictures side by side: the frames, and the flow from each to the next in the colour code.
    indices : tuple of int
        The indices of the frames.
    """

    frames: NDArray[np.uint8]
    flow: NDArray[np.uint8]
    indices: tuple[int, ...]


def most_confused(
    row: RowResult, labels: NDArray[np.int64], *, num_pairs: int, num_videos: int, num_best: int, fusion: Fusion = "logits_mean"
) -> list[ConfusedPair]:
    """Return the pairs of classes between which most videos are confused.

    Parameters
    ----------
    row : RowResult
        The scores and confusion matrix.
    labels : int64 array, shape (n,)
        The correct classes.
    num_pairs, num_videos, num_best : int
        The most pairs, videos per pair, and classes per video to return.
    fusion : {"logits_mean", "softmax_mean"}
        What the row's scores are.

    Returns
    -------
    list of ConfusedPair
        In descending order of the number of videos; among equals, of their share in the videos of both classes.
    """
    both = row.confusion + row.confusion.T
    first, second = np.nonzero(np.triu(both, 1))
    totals = row.confusion.sum(1)
    counts = both[first, second]
    confused_share = counts / np.maximum(totals[first] + totals[second], 1)
    order = np.lexsort((second, first, -confused_share, -counts))[:num_pairs]
    predictions = row.scores.argmax(1)
    share = shares(row.scores, fusion)
    pairs = []
    for a, b in zip(first[order].tolist(), second[order].tolist(), strict=True):
        if row.confusion[b, a] > row.confusion[a, b]:
            a, b = b, a  # noqa: PLW2901
        wrong = np.flatnonzero(((labels == a) & (predictions == b)) | ((labels == b) & (predictions == a)))
        surest = wrong[np.argsort(-share[wrong].max(1), kind="stable")][:num_videos]
        mistakes = tuple(_mistake(row, share, int(video), int(labels[video]), num_best) for video in surest)
        pairs.append(ConfusedPair(a, b, int(row.confusion[a, b]), int(row.confusion[b, a]), mistakes))
    return pairs


def _mistake(row: RowResult, share: NDArray[np.float64], video: int, label: int, num_best: int) -> Mistake:
    order = np.argsort(-row.scores[video], kind="stable")[:num_best].tolist()
    best = tuple((k, float(row.scores[video, k]), float(share[video, k])) for k in order)
    return Mistake(video, label, order[0], best, int(row.ranks[video]))


class Thumbnails:
    """Draws frames and flow of videos from the shards of a data root, all flow at the same scale.

    Parameters
    ----------
    dataset : flowkit.Dataset
        The data root.
    records : sequence of ClipRecord
        The videos that will be drawn.
    num_moments : int
        Number of frames per video.

    Attributes
    ----------
    scale_px : float, px/frame
        The speed of full saturation: the 99th percentile of the speeds that are drawn, rounded.
    exceeds_scale : bool
        Whether some flow that is drawn is faster.
    failures : dict from video id to str
        Why videos could not be read.
    """

    def __init__(self, dataset: Dataset, records: Sequence[ClipRecord], *, num_moments: int = 3) -> None:
        self.failures: dict[str, str] = {}
        self._read: dict[str, tuple[NDArray[np.uint8], NDArray[np.float32], tuple[int, ...]]] = {}
        for record in records:
            try:
                with ShardReader(dataset.shard_path(record)) as shard:
                    clip = shard.clip(record.video_id)
                    indices = tuple(spread_indices(clip.num_frames - 1, num_moments))
                    moments = [small_moment(clip, k, *_cell_size(clip.height, clip.width)) for k in indices]
                    frames, flow = (np.stack(pictures) for pictures in zip(*moments, strict=True))
                    self._read[record.video_id] = (frames, flow, indices)
            except (FlowkitError, OSError) as error:  # one video's pictures must not cost the report
                self.failures[record.video_id] = str(error)
        speeds = [np.hypot(flow[:, 0], flow[:, 1]) for _, flow, _ in self._read.values()]
        self.scale_px = round_scale(max(float(np.percentile(speed, 99)) for speed in speeds)) if speeds else 1.0
        self.exceeds_scale = any(float(speed.max()) > self.scale_px for speed in speeds)

    def moments(self, video_id: str) -> Moments | None:
        """Return a video's pictures, or None where `failures` says why there are none."""
        if video_id not in self._read:
            return None
        frames, flow, indices = self._read[video_id]
        return Moments(_strip(frames), _strip(flow_to_colour(flow, scale_px=self.scale_px)), indices)


def _strip(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Put pictures (n, H, W, 3) side by side, with a pale line between them."""
    gap = np.full((pictures.shape[1], _GAP_PX, 3), (216, 222, 228), np.uint8)
    return np.concatenate([part for picture in pictures for part in (gap, picture)][1:], axis=1)


def _cell_size(height: int, width: int) -> tuple[int, int]:
    """Return the height and width of small pictures of frames of this size: sides of at most `_CELL_PX`, never enlarged."""
    scale = min(_CELL_PX / max(height, width), 1)
    return max(1, round(height * scale)), max(1, round(width * scale))
