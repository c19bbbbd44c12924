"""Scores of complete videos by one or several networks: each rank reads and scores its share, and all ranks have all results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from flowkit.model.compute.execution import VIDEOS_AT_ONCE
from flowkit.model.compute.ranks import gathered
from flowkit.model.data.whole_videos import Unreadable, WholeClip, WholeClipDataset, whole_clip_loader
from flowkit.model.scoring.tested_networks import TestedNetworks
from flowkit.model.settings.training import Phase

NOT_FINITE = "its scores are not finite numbers; if float32 gives finite ones, the precision was too low for this network"
Scores = dict[tuple[Phase, str], NDArray[np.float64]]  # (phase, stream) -> (n, C)
VideoScores = dict[tuple[Phase, str], NDArray[np.float64]]  # (phase, stream) -> (C,)


def score_videos(
    networks: TestedNetworks,
    clips: WholeClipDataset,
    *,
    known: Mapping[str, VideoScores] = MappingProxyType({}),
    on_scored: Callable[[dict[str, VideoScores]], None] = lambda _: None,
    on_progress: Callable[[int, int, int], None] = lambda *_: None,
) -> tuple[dict[str, VideoScores], list[Unreadable]]:
    """Score each video once by all networks; each rank scores its share.

    Parameters
    ----------
    networks : TestedNetworks
        The networks.
    clips : WholeClipDataset
        The videos.
    known : mapping from video id to scores
        Videos whose scores are known already, in all ranks.
    on_scored : callable
        Receives the scores of further videos of this rank's share, by video.
    on_progress : callable
        Receives how many videos of this rank's share are done, how many there are, and how many failed.

    Returns
    -------
    scored : dict from video id to (dict from (phase, stream) to float64 array, shape (C,))
        The mean logits of the videos of all ranks, those that were known included.
    failed : list of Unreadable
        Videos that could not be read, or whose scores are not finite numbers.
    """
    execution = networks.execution
    missing = [index for index, record in enumerate(clips.records) if record.video_id not in known]
    mine = missing[execution.rank :: execution.world]
    on_progress(0, len(mine), 0)
    loader = whole_clip_loader(clips, mine, num_workers=execution.workers(networks.device))
    scored: dict[str, VideoScores] = {}
    failed: list[Unreadable] = []
    for batch in _batches(loader, VIDEOS_AT_ONCE[networks.device.type]):
        failed += [clip for clip in batch if isinstance(clip, Unreadable)]
        readable = [clip for clip in batch if not isinstance(clip, Unreadable)]
        finite: dict[str, VideoScores] = {}
        if readable:
            for clip, values in zip(readable, networks.score(readable), strict=True):
                if all(np.isfinite(scores).all() for scores in values.values()):
                    finite[clip.video_id] = values
                else:
                    failed.append(Unreadable(clip.video_id, NOT_FINITE))
        on_scored(finite)
        scored |= finite
        on_progress(len(scored) + len(failed), len(mine), len(failed))
    everything = dict(known) | {name: values for part in gathered(scored, execution.world) for name, values in part.items()}
    return everything, [clip for part in gathered(failed, execution.world) for clip in part]


def stream_scores(
    scored: Mapping[str, VideoScores], video_ids: Iterable[str], *, parts: Iterable[tuple[Phase, str]], num_classes: int
) -> Scores:
    """Return the scores of these videos as one array (n, C) per phase and stream."""
    ids = list(video_ids)
    return {
        (phase, stream): np.array([scored[video_id][phase, stream] for video_id in ids]).reshape(-1, num_classes) for phase, stream in parts
    }


def _batches(clips: Iterable[WholeClip | Unreadable], size: int) -> Iterator[list[WholeClip | Unreadable]]:
    """Group neighbours that have the same frame size, at most `size` of them."""
    batch: list[WholeClip | Unreadable] = []
    for clip in clips:
        shapes = {member.rgb.shape for member in (*batch, clip) if not isinstance(member, Unreadable)}
        if batch and (len(batch) == size or len(shapes) > 1):
            yield batch
            batch = []
        batch.append(clip)
    if batch:
        yield batch
