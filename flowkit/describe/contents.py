"""What a shard, a clip file or a data root holds, in numbers that are gathered from the files themselves."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flowkit.dataset.clips import ClipSource, find_clips
from flowkit.dataset.paths import clip_paths, shard_paths
from flowkit.dataset.progress import ProgressBar
from flowkit.dataset.root import Dataset
from flowkit.describe.totals import ClipTotals
from flowkit.errors import FlowkitError, ManifestError
from flowkit.records import canonical_json
from flowkit.shards.reader import Clip, ShardReader
from flowkit.shards.schema import FORMAT_VERSION
from flowkit.shards.structure import ShardStructure

INFO_FORMAT, INFO_FORMAT_VERSION = "flowkit-info", 1


@dataclass(frozen=True)
class VideoFacts:
    """One video of a shard or clip file."""

    video_id: str
    class_name: str
    num_frames: int
    width: int
    height: int
    frame_rate: str
    stored_bytes: int
    decode_errors: int
    source_name: str
    sha256: str
    first_seconds: float | None
    last_seconds: float | None


@dataclass(frozen=True)
class Contents:
    """What videos hold, added up.

    Parameters
    ----------
    num_videos, num_classes, num_frames, num_pairs : int
        Counts. A pair is a flow field: two consecutive frames. Videos without flow have none.
    seconds : float
        Duration of the videos whose time stamps or frame rate are known.
    stored_bytes : int
        What frames and flow take, without the structure of the files.
    num_damaged : int
        Videos with decode errors, or with fewer frames than their header announces.
    classes, sizes, codecs, solvers : dict of str to int
        The number of videos of each class name, frame size (``340x256``), codec and solver.
    quantisers, tvl1, methods : dict of str to int
        The number of videos of each set of parameters of their flow, as JSON; there is one set, unless data were mixed.
        `methods` has those of flow methods that are not TV-L1.
    camera_motions : dict of str to int
        The number of videos by how the camera's motion was found that is removed from their flow; without those that have it.
    """

    num_videos: int
    num_classes: int
    num_frames: int
    num_pairs: int
    seconds: float
    stored_bytes: int
    num_damaged: int
    classes: dict[str, int]
    sizes: dict[str, int]
    codecs: dict[str, int]
    solvers: dict[str, int]
    quantisers: dict[str, int]
    tvl1: dict[str, int]
    methods: dict[str, int]
    camera_motions: dict[str, int]


@dataclass(frozen=True)
class FileInfo:
    """A shard or clip file."""

    path: str
    num_bytes: int
    shard_format_version: int
    created_by: str
    contents: Contents
    videos: tuple[VideoFacts, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as built-in types, with the name and version of their format."""
        return {"format": INFO_FORMAT, "format_version": INFO_FORMAT_VERSION, "kind": "file", **asdict(self)}


@dataclass(frozen=True)
class SplitInfo:
    """A split of a data root; `problem` says why it could not be read."""

    number: int
    protocol: str = ""
    num_classes: int = 0
    num_train: int = 0
    num_test: int = 0
    num_listed_train: int = 0
    num_listed_test: int = 0
    digest: str = ""
    problem: str = ""


@dataclass(frozen=True)
class RootInfo:
    """A data root.

    Parameters
    ----------
    path, source : str
        The root, and the folder of its videos.
    settings, versions : dict
        The contents of dataset.json.
    num_clip_files, num_shards, num_packed : int
        The number of files, and of videos that are in shards.
    clip_bytes, shard_bytes : int
        What the files take.
    contents : Contents
        All videos, each counted once.
    splits : tuple of SplitInfo
        Its splits, also those that cannot be read.
    unreadable : tuple of (str, str)
        Files that could not be read, and why.
    """

    path: str
    source: str
    settings: dict[str, Any]
    versions: dict[str, Any]
    num_clip_files: int
    num_shards: int
    num_packed: int
    clip_bytes: int
    shard_bytes: int
    contents: Contents
    splits: tuple[SplitInfo, ...]
    unreadable: tuple[tuple[str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as built-in types, with the name and version of their format."""
        return {"format": INFO_FORMAT, "format_version": INFO_FORMAT_VERSION, "kind": "data root", **asdict(self)}


class _ContentsSum:
    """Adds clips up to `Contents`."""

    def __init__(self) -> None:
        self.totals, self.num_damaged, self.num_pairs = ClipTotals(), 0, 0
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)

    def add(self, clip: Clip) -> None:
        attributes = clip.attributes
        self.totals.add(clip)
        self.num_pairs += clip.num_frames - 1 if clip.has_flow else 0
        self.num_damaged += bool(attributes.losses or attributes.decode_errors or clip.num_frames < attributes.header_frames)
        facts = {
            "classes": attributes.class_name,
            "sizes": f"{clip.width}x{clip.height}",
            "codecs": attributes.codec,
            "solvers": attributes.solver,
        }
        if clip.has_flow:
            facts["quantisers"], facts["tvl1"] = canonical_json(attributes.quantiser), canonical_json(attributes.tvl1)
        if attributes.method:
            facts["methods"] = canonical_json(attributes.method)
        if attributes.camera_motion:
            facts["camera_motions"] = attributes.camera_motion
        for name, value in facts.items():
            self.counts[name][value] += 1

    def contents(self) -> Contents:
        totals = self.totals
        names = ("classes", "sizes", "codecs", "solvers", "quantisers", "tvl1", "methods", "camera_motions")
        return Contents(
            num_videos=totals.num_videos,
            num_classes=len(self.counts["classes"]),
            num_frames=totals.num_frames,
            num_pairs=self.num_pairs,
            seconds=round(totals.seconds, 3),
            stored_bytes=totals.num_bytes,
            num_damaged=self.num_damaged,
            **{name: dict(sorted(self.counts[name].items())) for name in names},
        )


def describe_file(path: str | os.PathLike[str]) -> FileInfo:
    """Describe a shard or clip file from its structure; pixels are not read.

    Parameters
    ----------
    path : path
        The file.

    Raises
    ------
    ShardFormatError
        If it is damaged, foreign or unsafe to read.
    OSError
        If it cannot be opened.
    """
    path, total, videos = Path(path), _ContentsSum(), []
    with ShardStructure(path) as structure:
        created_by = structure.created_by
    with ShardReader(path) as reader:
        for video_id in reader.video_ids:
            clip = reader.clip(video_id)
            total.add(clip)
            a = clip.attributes
            size = (clip.num_frames, clip.width, clip.height, a.frame_rate, clip.stored_bytes, a.decode_errors)
            videos.append(VideoFacts(video_id, a.class_name, *size, a.source_name, clip.sha256, *_span(clip)))
    return FileInfo(str(path), path.stat().st_size, FORMAT_VERSION, created_by, total.contents(), tuple(videos))


def _span(clip: Clip) -> tuple[float | None, float | None]:
    """Return the time stamps of the first and the last frame of a clip, if they are known."""
    return (None, None) if clip.times is None else (float(clip.times[0]), float(clip.times[-1]))


def describe_root(root: str | os.PathLike[str], *, progress: bool | None = None) -> RootInfo:
    """Describe a data root from the structure of its files; pixels are not read.

    Parameters
    ----------
    root : path
        The data root.
    progress : bool, optional
        Show the progress on stderr. By default it is shown on a terminal and in a notebook.

    Raises
    ------
    ManifestError
        If `root` is not a data root.
    """
    dataset = Dataset.open(root)
    root = dataset.root
    stored = find_clips(root)
    unreadable = list(stored.unreadable)
    total = _ContentsSum()
    with ClipSource(stored) as source, ProgressBar("info", total=len(stored.paths), unit="videos", progress=progress) as bar:
        for video_id, path in stored.paths.items():
            try:
                total.add(source.clip(video_id))
            except (FlowkitError, OSError) as error:
                unreadable.append((str(path), str(error)))
            bar.advance()
    clips, shards = clip_paths(root), shard_paths(root)
    return RootInfo(
        path=str(root),
        source=dataset.source,
        settings=dataset.settings.to_dict(),
        versions=dataset.versions,
        num_clip_files=len(clips),
        num_shards=len(shards),
        num_packed=stored.num_packed,
        clip_bytes=sum(path.stat().st_size for path in clips),
        shard_bytes=sum(path.stat().st_size for path in shards),
        contents=total.contents(),
        splits=tuple(_describe_split(dataset, number) for number in dataset.splits),
        unreadable=tuple(unreadable),
    )


def _describe_split(dataset: Dataset, number: int) -> SplitInfo:
    try:
        split = dataset.split(number)
    except ManifestError as error:
        return SplitInfo(number, problem=str(error))
    counts = (len(split.classes), len(split.train), len(split.test), split.num_listed_train, split.num_listed_test)
    return SplitInfo(number, split.protocol, *counts, split.digest)
