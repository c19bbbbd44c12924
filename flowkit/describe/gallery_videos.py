"""The videos that a gallery is about, as plain records, and a sample of them that is spread over classes and subsets."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from flowkit.dataset.clips import ClipSource, StoredClips
from flowkit.dataset.progress import StageProgress
from flowkit.dataset.root import Dataset
from flowkit.describe.statistics import UNLISTED, rows_of_split
from flowkit.errors import FlowkitError, ManifestError
from flowkit.records import RecordFormat
from flowkit.shards.reader import Clip
from flowkit.video.damage import count_words
from flowkit.video.folders import read_layout

VideoStatus = Literal["done", "damaged", "failed"]

_REPORTS = tuple(
    (f"{command}-report.json", RecordFormat(f"flowkit-{command}-report", 1, ManifestError, f"delete it, or run `flowkit {command}` again"))
    for command in ("extract", "import")
)


@dataclass(frozen=True)
class Prediction:
    """What a network says about a video.

    Parameters
    ----------
    class_name : str
        The class with the highest score.
    scores : tuple of (str, float)
        The best classes and their probabilities, in [0, 1], the best first.
    """

    class_name: str
    scores: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class GalleryVideo:
    """A video of a gallery.

    Parameters
    ----------
    video_id, class_name : str
        The video and its true class; the class is empty if it is not known.
    subset : str
        ``train``, ``test``, ``unlisted`` (in the data, but not in the split), or empty if there is no split.
    status : {"done", "damaged", "failed"}
        Whether all of the video could be decoded, only a part, or nothing that gives a clip.
    reason : str
        What was lost, or why there is no clip; empty if nothing is wrong.
    prediction : Prediction, optional
        What a network says about it, if it was tested.
    """

    video_id: str
    class_name: str
    subset: str = ""
    status: VideoStatus = "done"
    reason: str = ""
    prediction: Prediction | None = None


def find_videos(
    dataset: Dataset,
    stored: StoredClips,
    *,
    split: int | None = None,
    predictions: Mapping[str, Prediction] | None = None,
    progress: bool | None = None,
) -> tuple[list[GalleryVideo], list[tuple[str, str]]]:
    """Describe the videos of a data root, those without a clip included.

    Parameters
    ----------
    dataset : flowkit.Dataset
        The data root.
    stored : StoredClips
        Its clips, from `flowkit.dataset.clips.find_clips`.
    split : int, optional
        The split that says which class and subset a video has. Without it, the class is the folder.
    predictions : mapping from video id to Prediction, optional
        What a network says about the videos that it was tested on.
    progress : bool, optional
        Show the progress on stderr. By default it is shown on a terminal and in a notebook.

    Returns
    -------
    videos : list of GalleryVideo
        Sorted by class, subset and id; the classes of a split come in its order.
    unreadable : list of (str, str)
        Files whose videos are left out because they cannot be read, with the reason.

    Raises
    ------
    ManifestError
        If there is no such split, or the report of the extraction is damaged.
    """
    row_of, class_names = rows_of_split(dataset, split)
    results = _reported(dataset.root)
    videos, unreadable = [], list(stored.unreadable)
    with ClipSource(stored) as source, StageProgress(progress) as stages:
        for num_done, (video_id, path) in enumerate(stored.paths.items(), start=1):
            stages.update("gallery: listing videos", num_done, len(stored.paths))
            try:
                video = _described(video_id, source, row_of, results, unlisted=UNLISTED if split else "")
            except (FlowkitError, OSError) as error:
                unreadable.append((str(path), str(error)))
                continue
            videos.append(replace(video, prediction=(predictions or {}).get(video_id)))
    failed = {video_id: reason for video_id, (status, reason) in results.items() if status == "failed" and video_id not in stored.paths}
    class_of = read_layout([*stored.paths, *failed]).class_of
    for video_id, reason in failed.items():
        class_name, subset = row_of.get(video_id, (class_of[video_id], UNLISTED if split else ""))
        videos.append(GalleryVideo(video_id, class_name, subset, "failed", reason))
    place = {name: k for k, name in enumerate(class_names)}
    subsets = ("train", "test", UNLISTED, "")
    videos.sort(key=lambda v: (place.get(v.class_name, len(place)), v.class_name, subsets.index(v.subset), v.video_id))
    return videos, unreadable


def _described(
    video_id: str,
    source: ClipSource,
    row_of: Mapping[str, tuple[str, str]],
    results: Mapping[str, tuple[VideoStatus, str]],
    *,
    unlisted: str,
) -> GalleryVideo:
    """Return the record of a video that has a clip; the clip is opened only for what the manifest and the report do not say."""
    row, result = row_of.get(video_id), results.get(video_id)
    if row is not None and result is not None and result[0] != "failed":
        return GalleryVideo(video_id, *row, *result)
    clip = source.clip(video_id)
    return GalleryVideo(video_id, *(row or (clip.class_name, unlisted)), *_status_of(clip))


def _status_of(clip: Clip) -> tuple[VideoStatus, str]:
    """Return what the clip itself says about what was lost of its video."""
    a = clip.attributes
    if a.losses or a.decode_errors or clip.num_frames < a.header_frames:
        return "damaged", a.losses or ", ".join(count_words(clip.num_frames, a.header_frames, a.decode_errors))
    return "done", ""


def _reported(root: Path) -> dict[str, tuple[VideoStatus, str]]:
    """Return the status of each video and its reason, as the last extraction or import reported them."""
    results: dict[str, tuple[VideoStatus, str]] = {}
    for name, form in _REPORTS:
        if not (root / name).is_file():
            continue
        text = form.read_bytes(root / name).decode("utf-8", "replace")  # names of files need not be UTF-8
        report = form.parse(text.encode("utf-8"), root / name)
        for entry in (entry for key in ("done", "skipped", "failed") for entry in _entries(report.get(key))):
            video_id, status = entry.get("video_id"), entry.get("status")
            if not isinstance(video_id, str) or not isinstance(status, str):
                raise ManifestError(f"{root / name} is not valid: each result needs a video_id and a status; {form.remedy}")
            known: VideoStatus = "done" if status == "ok" else "damaged" if status == "damaged" else "failed"
            results[video_id] = (known, "" if known == "done" else str(entry.get("error", "")))
    return results


def _entries(values: Any) -> Iterable[Mapping[str, Any]]:
    return [entry for entry in values if isinstance(entry, dict)] if isinstance(values, list) else []


def spread_sample(videos: Sequence[GalleryVideo], most: int) -> list[GalleryVideo]:
    """Choose up to `most` videos that are spread over the classes, and in each class over the subsets.

    The same videos always give the same sample. Classes take turns until there are enough videos, and so do the subsets of a class.
    Damaged videos come first in their class and subset, since there are few of them and people want to see them; the others follow in
    an order that is drawn by a hash of their ids.

    Examples
    --------
    >>> from flowkit.describe.gallery_videos import GalleryVideo, spread_sample
    >>> videos = [GalleryVideo(f"run/{k}", "run") for k in range(90)] + [GalleryVideo(f"swim/{k}", "swim") for k in range(3)]
    >>> [video.class_name for video in spread_sample(videos, 7)]
    ['run', 'run', 'run', 'run', 'swim', 'swim', 'swim']
    """
    drawn = {video.video_id: hashlib.sha256(video.video_id.encode("utf-8", "surrogatepass")).digest() for video in videos}

    def in_turns(keys: Mapping[str, tuple[Any, ...]], order: Mapping[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        """Return each video's number among those of the same key in an order, and what the hash drew."""
        groups: dict[tuple[Any, ...], list[str]] = defaultdict(list)
        for video_id in sorted(keys, key=order.__getitem__):
            groups[keys[video_id]].append(video_id)
        return {video_id: (turn, drawn[video_id]) for group in groups.values() for turn, video_id in enumerate(group)}

    first = {video.video_id: (video.status != "damaged", drawn[video.video_id]) for video in videos}
    in_subset = in_turns({video.video_id: (video.class_name, video.subset) for video in videos}, first)
    in_class = in_turns({video.video_id: (video.class_name,) for video in videos}, in_subset)
    chosen = set(sorted(in_class, key=in_class.__getitem__)[:most])
    return [video for video in videos if video.video_id in chosen]
