"""Numbers about a data set: how much there is of each class, how it moves, and what train and test share although they must not.

Flow is measured on a sample that is drawn by hash, so that the same data and seed always give the same numbers. For the fields of
the sample they are exact: a histogram over the 65,536 values that a quantised (u, v) can have loses nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from flowkit.dataset.clips import ClipSource, find_clips
from flowkit.dataset.progress import StageProgress
from flowkit.dataset.root import Dataset
from flowkit.dataset.shard_files import check_stored
from flowkit.describe.flow_histogram import FlowHistogram, FlowStats
from flowkit.describe.surveys import surveys
from flowkit.describe.totals import ClipTotals
from flowkit.errors import FlowkitError, ParameterError
from flowkit.extraction.flow_range import FlowRange, flow_range
from flowkit.shards.reader import Clip
from flowkit.video.ids import group_of

STATS_FORMAT, STATS_FORMAT_VERSION = "flowkit-stats", 1
UNLISTED = "unlisted"  # the subset of the videos that a split leaves out

_FIELDS_AT_ONCE = 32


@dataclass(frozen=True)
class FlowSample:
    """Which flow fields are measured; see `stats`."""

    videos_per_class: int
    fields_per_video: int
    seed: int

    def __post_init__(self) -> None:
        if min(self.videos_per_class, self.fields_per_video) < 0:
            raise ParameterError(
                f"videos_per_class and fields_per_video must not be negative, got {self.videos_per_class!r} and {self.fields_per_video!r}"
            )

    def videos(self, video_ids: Iterable[str]) -> list[str]:
        """Choose among the videos of a class; sorted by id."""
        ids = sorted(video_ids, key=lambda video_id: hashlib.sha256(f"{self.seed}/{video_id}".encode()).digest())
        return sorted(ids[: self.videos_per_class] if self.videos_per_class else ids)

    def fields(self, video_id: str, num_fields: int) -> list[int]:
        """Choose among the flow fields of a video; ascending indices."""
        if not self.fields_per_video or num_fields <= self.fields_per_video:
            return list(range(num_fields))
        draw = np.random.default_rng(list(hashlib.sha256(f"{self.seed}/fields/{video_id}".encode()).digest()))
        return sorted(int(k) for k in draw.choice(num_fields, self.fields_per_video, replace=False))


@dataclass(frozen=True)
class ClassStats:
    """A class in a subset, or a whole subset.

    Parameters
    ----------
    class_name : str or None
        The name of the class; empty for videos without a class. None for a whole subset.
    subset : str
        ``train``, ``test``, ``unlisted`` (in the data, but not in the split), or empty if there is no split.
    num_videos, num_frames : int
        Videos, and their frames.
    seconds : float
        Duration of the videos whose frame rate is known.
    num_bytes : int
        What frames and flow take in the files.
    flow : FlowStats or None
        The measured speeds; None if no field could be measured, or there is none.
    """

    class_name: str | None
    subset: str
    num_videos: int
    num_frames: int
    seconds: float
    num_bytes: int
    flow: FlowStats | None


@dataclass(frozen=True)
class Leak:
    """Videos of one origin that are in both train and test.

    Parameters
    ----------
    what : str
        ``group``: they show one actor or scene of a class (``_g07_`` in the name). ``same file``: they are copies of one file.
    name : str
        The class and group, or the SHA-256 of the file.
    train, test : tuple of str
        The ids of the videos in each half.
    """

    what: str
    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True)
class VideoScenes:
    """A video that has cuts or repeated frames.

    Parameters
    ----------
    video_id : str
        The video.
    num_frames : int
        The number of its frames.
    cuts : tuple of int
        Flow fields that lead across a cut: field k is from frame k to frame k + 1.
    num_repeated : int
        The number of frames that repeat the frame before them.
    """

    video_id: str
    num_frames: int
    cuts: tuple[int, ...]
    num_repeated: int


@dataclass(frozen=True)
class DataStats:
    """Numbers about a data root, as `stats` returns them.

    Parameters
    ----------
    path : str
        The data root.
    method : str
        The flow method of all its videos, with its settings, in words.
    bound : float, px/frame
        The bound at which its flow is clipped.
    split : int or None
        The split that divides it; None if it has none.
    sample : FlowSample
        How many videos and fields were sampled to measure the flow, and with which seed.
    subsets, classes : tuple of ClassStats
        A row for each subset; a row for each class in each subset.
    empty_classes : tuple of str
        Classes of the split without a video.
    leaks : tuple of Leak
        What train and test share although they must not.
    unreadable : tuple of (str, str)
        Files that could not be read, and why.
    flow_range : FlowRange or None
        Which shares of the flow of all videos are clipped at the bound or rounded to zero, which bound would fit, and the still videos;
        None if no video could be read, or none has flow.
    scenes : tuple of VideoScenes
        The videos that have cuts or repeated frames.

    Examples
    --------
    >>> import flowkit
    >>> from flowkit.dataset.example import example_root
    >>> measured = flowkit.stats(example_root(), videos_per_class=1, fields_per_video=1)
    >>> measured.split, len(measured.classes), measured.leaks
    (1, 12, ())
    >>> sorted(measured.to_dict())[:3]
    ['bound', 'classes', 'empty_classes']
    """

    path: str
    method: str
    bound: float
    split: int | None
    sample: FlowSample
    subsets: tuple[ClassStats, ...]
    classes: tuple[ClassStats, ...]
    empty_classes: tuple[str, ...]
    leaks: tuple[Leak, ...]
    unreadable: tuple[tuple[str, str], ...]
    flow_range: FlowRange | None = None
    scenes: tuple[VideoScenes, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as built-in types, with the name and version of their format."""
        return {"format": STATS_FORMAT, "format_version": STATS_FORMAT_VERSION, **asdict(self)}


class _Row:
    """Adds up the videos of one class in one subset."""

    def __init__(self) -> None:
        self.totals, self.flow = ClipTotals(), FlowHistogram()

    def merge(self, other: _Row) -> None:
        self.totals.merge(other.totals)
        self.flow.merge(other.flow)

    def stats(self, class_name: str | None, subset: str) -> ClassStats:
        totals = self.totals
        counts = (totals.num_videos, totals.num_frames, round(totals.seconds, 3), totals.num_bytes)
        return ClassStats(class_name, subset, *counts, self.flow.stats())


def stats(
    root: str | os.PathLike[str],
    *,
    split: int | None = None,
    videos_per_class: int = 20,
    fields_per_video: int = 5,
    seed: int = 0,
    progress: bool | None = None,
) -> DataStats:
    """Count what a data root holds, class by class, measure its flow, and find what train and test must not share.

    Parameters
    ----------
    root : path
        The data root.
    split : int, optional
        The split that divides the videos into train and test. By default the first one; if there is none, classes are the folders.
    videos_per_class : int
        How many videos of each class in each subset are sampled to measure the flow; 0 takes all.
    fields_per_video : int
        How many flow fields of each of these videos are measured; 0 takes all.
    seed : int
        Another seed draws another sample.
    progress : bool, optional
        Show the progress on stderr. By default it is shown on a terminal and in a notebook.

    Returns
    -------
    DataStats
        Classes sorted by label (by name without a split), subsets in the order train, test, unlisted.

    Raises
    ------
    ManifestError
        If `root` is not a data root, or has no such split, or a shard that is needed is missing or truncated.
    ParameterError
        If `videos_per_class` or `fields_per_video` is negative.

    Examples
    --------
    >>> import flowkit
    >>> from flowkit.dataset.example import example_root
    >>> measured = flowkit.stats(example_root())
    >>> [(row.subset, row.num_videos, row.num_frames) for row in measured.subsets]
    [('train', 12, 221), ('test', 6, 109)]
    >>> row = measured.classes[0]
    >>> row.class_name, row.subset, round(row.flow.mean_px)
    ('colour0-motion0', 'train', 3)
    """
    sample = FlowSample(videos_per_class, fields_per_video, seed)
    dataset = Dataset.open(root)
    if split is None and dataset.splits:
        split = dataset.splits[0]
    stored = find_clips(dataset.root)
    check_stored(dataset, stored, split=split)
    unreadable = list(stored.unreadable)
    row_of, class_names = rows_of_split(dataset, split)
    with ClipSource(stored) as source, StageProgress(progress) as stages:
        clips: dict[tuple[str, str], list[str]] = defaultdict(list)
        rows: dict[tuple[str, str], _Row] = defaultdict(_Row)
        files: dict[str, str] = {}
        digests: dict[str, str] = {}
        for num_done, (video_id, path) in enumerate(stored.paths.items(), start=1):
            stages.update("stats: counting videos", num_done, len(stored.paths))
            try:
                clip = source.clip(video_id)
            except (FlowkitError, OSError) as error:
                unreadable.append((str(path), str(error)))
                continue
            key = row_of.get(video_id, (clip.class_name, UNLISTED if split else ""))
            rows[key].totals.add(clip)
            clips[key].append(video_id)
            files[video_id] = clip.attributes.source_sha256
            digests[video_id] = clip.sha256
        chosen = [(key, video_id) for key, ids in clips.items() for video_id in sample.videos(ids)]
        for num_done, (key, video_id) in enumerate(chosen, start=1):
            try:
                _measure_flow(source.clip(video_id), sample, rows[key].flow)
            except (FlowkitError, OSError) as error:
                unreadable.append((str(stored.paths[video_id]), str(error)))
            stages.update("stats: measuring flow", num_done, len(chosen))
    surveyed, failures = surveys(dataset, {video_id: stored.paths[video_id] for video_id in digests}, digests, progress=progress)
    named = {path for path, _ in unreadable}
    unreadable += [(str(stored.paths[video_id]), why) for video_id, why in failures.items() if str(stored.paths[video_id]) not in named]
    subset_names = [name for name in ("train", "test", UNLISTED, "") if any(subset == name for _, subset in rows)]
    names = [*class_names, *sorted({name for name, _ in rows} - set(class_names))]
    subsets = {name: _Row() for name in subset_names}
    for (_, subset), row in rows.items():
        subsets[subset].merge(row)
    return DataStats(
        path=str(root),
        method=dataset.settings.flow_in_words(),
        bound=dataset.settings.quantiser.bound,
        split=split,
        sample=sample,
        subsets=tuple(subsets[subset].stats(None, subset) for subset in subset_names),
        classes=tuple(rows[name, subset].stats(name, subset) for name in names for subset in subset_names if (name, subset) in rows),
        empty_classes=tuple(name for name in class_names if not any((name, subset) in rows for subset in subset_names)),
        leaks=_leaks(row_of, files),
        unreadable=tuple(unreadable),
        flow_range=flow_range(surveyed.values()),
        scenes=tuple(
            VideoScenes(each.video_id, each.num_frames, each.cuts, each.num_repeated)
            for _, each in sorted(surveyed.items())
            if each.cuts or each.num_repeated
        ),
    )


def rows_of_split(dataset: Dataset, number: int | None) -> tuple[dict[str, tuple[str, str]], tuple[str, ...]]:
    """Return each video's (class, subset) in a split, and the split's classes."""
    if number is None:
        return {}, ()
    split = dataset.split(number)
    records = [(record, subset) for subset, half in (("train", split.train), ("test", split.test)) for record in half]
    return {record.video_id: (record.class_name, subset) for record, subset in records}, split.classes


def _measure_flow(clip: Clip, sample: FlowSample, histogram: FlowHistogram) -> None:
    if not clip.has_flow:
        return
    chosen = sample.fields(clip.video_id, clip.num_frames - 1)
    if len(chosen) == clip.num_frames - 1:  # windows are cheaper than single fields
        for start in range(0, len(chosen), _FIELDS_AT_ONCE):
            fields = clip.flow(start, min(start + _FIELDS_AT_ONCE, len(chosen)))
            histogram.add(clip.quantiser, fields, frame_rate=clip.frame_rate)
        return
    for k in chosen:
        histogram.add(clip.quantiser, clip.flow(k, k + 1), frame_rate=clip.frame_rate)


def _leaks(row_of: dict[str, tuple[str, str]], files: dict[str, str]) -> tuple[Leak, ...]:
    """Return the groups and files with videos in both train and test."""
    shared: dict[tuple[str, str], list[str]] = defaultdict(list)
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for video_id, (class_name, subset) in sorted(row_of.items()):
        group, file = group_of(video_id), files.get(video_id)
        keys = [("group", f"{class_name}, group {group}")] * (group is not None) + [("same file", file or "")] * bool(file)
        for key in keys:
            shared[key].append(video_id)
            counts[key][subset] += 1
    return tuple(
        Leak(what, name, *(tuple(v for v in videos if row_of[v][1] == subset) for subset in ("train", "test")))
        for (what, name), videos in sorted(shared.items())
        if counts[what, name]["train"] and counts[what, name]["test"]
    )
