"""The cuts of training videos, for a training that leaves out what lies across them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from flowkit.dataset.manifest import ClipRecord, Split
from flowkit.dataset.root import Dataset
from flowkit.describe.surveys import surveys
from flowkit.errors import ParameterError, ShardFormatError
from flowkit.model.data.places import has_places
from flowkit.model.settings.training import TrainConfig
from flowkit.records import canonical_json
from flowkit.scenes.rule import RULE
from flowkit.shards.reader import ShardReader
from flowkit.video.ids import first_few
from flowkit.words import counted


@dataclass(frozen=True)
class SkippedCuts:
    """What a training with ``--skip-cuts`` leaves out; nothing by default.

    Parameters
    ----------
    cuts : dict from str to tuple of int
        The flow fields that lead across a cut, of the videos that have some.
    without_places : tuple of str
        Videos that have no sample without a cut, sorted.
    """

    cuts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    without_places: tuple[str, ...] = ()

    def without(self, split: Split) -> Split:
        """Return a split as training sees it: without the videos that have no sample, under the digest of the whole split."""
        gone = set(self.without_places)
        return replace(split, train=tuple(record for record in split.train if record.video_id not in gone))

    @property
    def record(self) -> dict[str, Any]:
        """What `Provenance` stores: the version of the rule, how many fields in how many videos are cuts, and which ones as a digest."""
        listed = canonical_json({video_id: list(cuts) for video_id, cuts in self.cuts.items()})
        return {
            "rule": RULE,
            "num_fields": sum(map(len, self.cuts.values())),
            "num_videos": len(self.cuts),
            "num_left_out": len(self.without_places),
            "sha256": hashlib.sha256(listed.encode()).hexdigest(),
        }

    @property
    def note(self) -> str:
        """What is left out, in a sentence without a full stop."""
        fields = sum(map(len, self.cuts.values()))
        text = f"samples across {counted(fields, 'cut')} of {counted(len(self.cuts), 'training video')} are left out"
        if self.without_places:
            text += f", and {counted(len(self.without_places), 'video')} without any other: {first_few(self.without_places)}"
        return text


def skipped_cuts(dataset: Dataset, records: Sequence[ClipRecord], configs: Sequence[TrainConfig]) -> SkippedCuts:
    """Find the cuts of training videos, and which of the videos have no sample without one.

    Parameters
    ----------
    dataset : Dataset
        The data root.
    records : sequence of ClipRecord
        The training videos.
    configs : sequence of TrainConfig
        The phases that leave out samples across cuts.

    Raises
    ------
    ShardFormatError
        If a clip cannot be read.
    ParameterError
        If no video would be left.
    """
    cuts = cuts_of(dataset, records)
    plans = [config.network.clip_plan for config in configs]
    lost = {r.video_id for r in records if not all(has_places(r.num_frames, plan=plan, cuts=cuts.get(r.video_id, ())) for plan in plans)}
    if records and len(lost) == len(records):
        raise ParameterError("every sample of every training video lies across a cut: train without --skip-cuts")
    return SkippedCuts(cuts, tuple(sorted(lost)))


def cuts_of(dataset: Dataset, records: Sequence[ClipRecord]) -> dict[str, tuple[int, ...]]:
    """Return the flow fields of these videos that lead across a cut, of those that have some; `skipped_cuts` says what is raised."""
    paths, digests = {}, {}
    for _, members in groupby(sorted(records, key=lambda record: record.shard), key=lambda record: record.shard):
        rows = list(members)
        path = dataset.shard_path(rows[0])
        with ShardReader(path) as shard:
            for row in rows:
                paths[row.video_id], digests[row.video_id] = path, row.sha256 or shard.clip(row.video_id).sha256
    found, failures = surveys(dataset, paths, digests)
    for video_id, why in failures.items():
        raise ShardFormatError(f"the cuts of {video_id!r} cannot be found: {why}")
    return {video_id: found[video_id].cuts for video_id in sorted(found) if video_id in paths and found[video_id].cuts}
