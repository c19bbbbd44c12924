"""Numbers about a data set: how much there is of each class, how it moves, and whether train and test share what they must not.

Flow is measured on a sample that is drawn by hash, so that the same data and seed always give the same numbers. All of it is
exact for the fields that are sampled: a histogram over the 65,536 values that a quantised (u, v) can have loses nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flowkit.dataset.clips import ClipSource, find_clips
from flowkit.dataset.root import Dataset
from flowkit.describe.flow_histogram import FlowHistogram, FlowStats
from flowkit.errors import FlowkitError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from flowkit.shards.reader import Clip

STATS_FORMAT, STATS_FORMAT_VERSION = "flowkit-stats", 1
UNLISTED = "unlisted"  # subset of the videos that a split leaves out

_GROUP = re.compile(r"_g(\d+)_")
_FIELDS_AT_ONCE = 32


@dataclass(frozen=True)
class Sample:
    """Which flow fields are measured.

    Parameters
    ----------
    videos_per_class : int
        Of each class in each subset; 0 is all.
    fields_per_video : int
        Of each of these videos; 0 is all.
    seed : int
        Another seed draws others.
    """

    videos_per_class: int = 20
    fields_per_video: int = 5
    seed: int = 0

    def videos(self, video_ids: Iterable[str]) -> list[str]:
        """Choose among the videos of one class."""
        ids = sorted(video_ids, key=lambda video_id: hashlib.sha256(f"{self.seed}/{video_id}".encode()).digest())
        return sorted(ids[: self.videos_per_class] if self.videos_per_class else ids)

    def fields(self, video_id: str, num_fields: int) -> list[int]:
        """Choose among the flow fields of one video; ascending."""
        if not self.fields_per_video or num_fields <= self.fields_per_video:
            return list(range(num_fields))
        draw = np.random.default_rng(list(hashlib.sha256(f"{self.seed}/fields/{video_id}".encode()).digest()))
        return sorted(int(k) for k in draw.choice(num_fields, self.fields_per_video, replace=False))


ALL = Sample(videos_per_class=0, fields_per_video=0)


@dataclass(frozen=True)
class ClassStats:
    """One class in one subset; or, with an empty class name, a whole subset.

    Parameters
    ----------
    class_name : str
    subset : str
        ``train``, ``test``, ``unlisted`` (in the data, not in the split), or empty where there is no split.
    num_videos, num_frames, num_bytes : int
    seconds : float
        Of the videos whose frame rate is known.
    flow : FlowStats or None
        None if no field could be measured.
    """

    class_name: str
    subset: str
    num_videos: int
    num_frames: int
    seconds: float
    num_bytes: int
    flow: FlowStats | None


@dataclass(frozen=True)
class Leak:
    """Videos that train and test must not share.

    Parameters
    ----------
    what : str
        ``group``: one actor or scene (``_g07_`` in the name) of a class. ``same file``: the same bytes under two names.
    name : str
        The class and group, or the file's SHA-256.
    train, test : tuple of str
        The videos.
    """

    what: str
    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True)
class DataStats:
    """Numbers about a data root; see `measure`."""

    path: str
    split: int | None
    sample: Sample
    subsets: tuple[ClassStats, ...]
    classes: tuple[ClassStats, ...]
    empty_classes: tuple[str, ...]
    leaks: tuple[Leak, ...]
    unreadable: tuple[tuple[str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the model as built-in types, with its format's name and version."""
        return {"format": STATS_FORMAT, "format_version": STATS_FORMAT_VERSION, **asdict(self)}


class _Adding:
    """Adds up the videos of one class in one subset."""

    def __init__(self) -> None:
        self.num_videos, self.num_frames, self.seconds, self.num_bytes = 0, 0, 0.0, 0
        self.flow = FlowHistogram()

    def add(self, clip: Clip) -> None:
        self.num_videos += 1
        self.num_frames += clip.num_frames
        self.seconds += float(clip.num_frames / clip.frame_rate) if clip.frame_rate else 0.0
        self.num_bytes += clip.stored_bytes

    def merge(self, other: _Adding) -> None:
        self.num_videos += other.num_videos
        self.num_frames += other.num_frames
        self.seconds += other.seconds
        self.num_bytes += other.num_bytes
        self.flow.merge(other.flow)

    def stats(self, class_name: str, subset: str) -> ClassStats:
        counts = (self.num_videos, self.num_frames, round(self.seconds, 3), self.num_bytes)
        return ClassStats(class_name, subset, *counts, self.flow.stats())


def measure(
    root: Path, *, split: int | None = None, sample: Sample = Sample(), on_progress: Callable[[int, int], None] | None = None
) -> DataStats:
    """Measure a data root.

    Parameters
    ----------
    root : Path
    split : int, optional
        Which split divides it into train and test. By default the first there is; without any, classes are the folders'.
    sample : Sample
        Which flow fields are read.
    on_progress : callable, optional
        Told (videos done, videos in all), first while videos are counted, then while the sample is measured.

    Returns
    -------
    DataStats
        Classes sorted by label (by name without a split), subsets in the order train, test, unlisted.

    Raises
    ------
    ManifestError
        If it is no data root, or has no such split.
    """
    dataset = Dataset.open(root)
    if split is None and dataset.splits:
        split = dataset.splits[0]
    tell = on_progress or (lambda done, total: None)
    stored = find_clips(root)
    unreadable = list(stored.unreadable)
    places, class_names = _places(dataset, split)
    with ClipSource(stored) as source:
        clips: dict[tuple[str, str], list[str]] = defaultdict(list)
        sums: dict[tuple[str, str], _Adding] = defaultdict(_Adding)
        files: dict[str, str] = {}
        for k, (video_id, path) in enumerate(stored.paths.items()):
            tell(k, len(stored.paths))
            try:
                clip = source.clip(video_id)
            except (FlowkitError, OSError) as error:
                unreadable.append((str(path), str(error)))
                continue
            place = places.get(video_id, (clip.class_name, UNLISTED if split else ""))
            sums[place].add(clip)
            clips[place].append(video_id)
            files[video_id] = clip.attributes.source_sha256
        chosen = {place: sample.videos(ids) for place, ids in clips.items()}
        num_done, num_chosen = 0, sum(map(len, chosen.values()))
        for place, ids in chosen.items():
            for video_id in ids:
                try:
                    _measure_flow(source.clip(video_id), sample, sums[place].flow)
                except (FlowkitError, OSError) as error:
                    unreadable.append((str(stored.paths[video_id]), str(error)))
                num_done += 1
                tell(num_done, num_chosen)
    order = [name for name in ("train", "test", UNLISTED, "") if any(subset == name for _, subset in sums)]
    names = [*class_names, *sorted({name for name, _ in sums} - set(class_names))]
    subsets = {name: _Adding() for name in order}
    for (_, subset), adding in sums.items():
        subsets[subset].merge(adding)
    return DataStats(
        path=str(root),
        split=split,
        sample=sample,
        subsets=tuple(subsets[subset].stats("", subset) for subset in order),
        classes=tuple(sums[name, subset].stats(name, subset) for name in names for subset in order if (name, subset) in sums),
        empty_classes=tuple(name for name in class_names if not any((name, subset) in sums for subset in order)),
        leaks=_leaks(places, files),
        unreadable=tuple(unreadable),
    )


def _places(dataset: Dataset, number: int | None) -> tuple[dict[str, tuple[str, str]], tuple[str, ...]]:
    """Return each video's (class, subset) in a split, and the split's classes."""
    if number is None:
        return {}, ()
    split = dataset.split(number)
    records = [(record, subset) for subset, half in (("train", split.train), ("test", split.test)) for record in half]
    return {record.video_id: (record.class_name, subset) for record, subset in records}, split.classes


def _measure_flow(clip: Clip, sample: Sample, histogram: FlowHistogram) -> None:
    chosen = sample.fields(clip.video_id, clip.num_frames - 1)
    if len(chosen) == clip.num_frames - 1:  # windows are cheaper than single fields
        for start in range(0, len(chosen), _FIELDS_AT_ONCE):
            histogram.add(clip.quantiser, clip.flow(start, min(start + _FIELDS_AT_ONCE, len(chosen))))
        return
    for k in chosen:
        histogram.add(clip.quantiser, clip.flow(k, k + 1))


def group_of(video_id: str) -> str | None:
    """Return the number in the last ``_gNN_`` of a video's name, as UCF101 marks videos of one actor or scene."""
    marks = _GROUP.findall(video_id.rpartition("/")[2])
    return marks[-1] if marks else None


def _leaks(places: dict[str, tuple[str, str]], files: dict[str, str]) -> tuple[Leak, ...]:
    shared: dict[tuple[str, str], list[str]] = defaultdict(list)
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for video_id, (class_name, subset) in sorted(places.items()):
        group, file = group_of(video_id), files.get(video_id)
        for key in (("group", f"{class_name}, group {int(group)}") if group else None, ("same file", file) if file else None):
            if key is not None:
                shared[key].append(video_id)
                counts[key][subset] += 1
    return tuple(
        Leak(what, name, *(tuple(v for v in videos if places[v][1] == subset) for subset in ("train", "test")))
        for (what, name), videos in sorted(shared.items())
        if counts[what, name]["train"] and counts[what, name]["test"]
    )
