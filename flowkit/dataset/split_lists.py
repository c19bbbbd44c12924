"""The lists of a split: those that the user names, those found around the videos, or a seeded split; and the videos that they match."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from flowkit.dataset.list_files import CSV_COLUMNS, ListEntry, SplitLists, read_lists, split_numbers
from flowkit.dataset.root import Dataset
from flowkit.errors import ManifestError
from flowkit.video.ids import comparable_name, group_of

AUTOMATIC = "automatic"  # instead of lists: a seeded split of the videos
TEST_FRACTION = 0.3  # of each class's videos, in the automatic split; as in UCF101's and HMDB51's lists


@dataclass(frozen=True)
class FoundLists:
    """Folders of official lists: those that name at least one of the videos, and those that name none."""

    matching: tuple[Path, ...]
    others: tuple[Path, ...]


@dataclass(frozen=True)
class Matched:
    """The lists of a split compared with the videos of a data root.

    Parameters
    ----------
    train, test : tuple of ListEntry
        Entries whose video was found, with the id of the video and the class name of the list, sorted by id.
    missing_train, missing_test : tuple of ListEntry
        Entries whose video was not found, in the spelling and order of the list.
    unlisted : tuple of str
        Ids of the videos that are in neither half, sorted.
    untrained_classes : tuple of str
        Classes with a test video but no training video, in order of label.
    """

    train: tuple[ListEntry, ...]
    test: tuple[ListEntry, ...]
    missing_train: tuple[ListEntry, ...]
    missing_test: tuple[ListEntry, ...]
    unlisted: tuple[str, ...]
    untrained_classes: tuple[str, ...]


class SeveralListsError(ManifestError):
    """More than one folder of split lists fits the videos."""


@dataclass(frozen=True)
class ChosenLists:
    """The lists of a split, where they come from (None: a seeded split), and the videos that they match."""

    path: Path | None
    lists: SplitLists
    matched: Matched


def choose_lists(dataset: Dataset, split: int, given: str | Path | None, class_of: Mapping[str, str]) -> ChosenLists:
    """Find the lists from which a split is made.

    Parameters
    ----------
    dataset : Dataset
        The data root.
    split : int
        The number of the split.
    given : Path or "automatic", optional
        What the user named. By default, flowkit looks for lists around the videos, and without any the split is automatic.
    class_of : mapping of str to str
        The clips of the root: from video id to the name of the folder.

    Raises
    ------
    SeveralListsError
        If lists in several folders fit the clips.
    ManifestError
        If the lists match no clip, or cannot be read.
    """
    root, path = dataset.root, None
    if isinstance(given, Path):
        path = given
    elif given is None:
        path = _lists_around_videos(dataset, class_of)
    if path is not None:
        lists = read_lists(path, split)
        matched = match_lists(lists, class_of)
        if not matched.train and not matched.test:
            names = [entry.video_id for entry in (*lists.train, *lists.test)][:1]
            raise ManifestError(
                f"the split lists in {str(path)!r} match no clip of {str(root)!r}: the first list names {names}, "
                f"the first clip is {min(class_of)!r}; name other lists with --lists DIR|FILE.csv, or use --lists automatic"
            )
        return ChosenLists(path, lists, matched)
    lists = automatic_split(class_of, seed=split - 1)
    return ChosenLists(None, lists, match_lists(lists, class_of))


def _lists_around_videos(dataset: Dataset, class_of: Mapping[str, str]) -> Path | None:
    if not dataset.source:
        return None
    around = find_lists(Path(dataset.source), class_of)
    if len(around.matching) > 1:
        folders = " and ".join(repr(str(folder)) for folder in around.matching)
        raise SeveralListsError(f"several folders hold split lists of these videos: {folders}; choose one with --lists DIR")
    if around.others and not around.matching:
        folders = " and ".join(repr(str(folder)) for folder in around.others)
        raise ManifestError(
            f"the split lists in {folders} match no clip of {str(dataset.root)!r} (the first clip is {min(class_of)!r}); "
            "name other lists with --lists DIR|FILE.csv, or use --lists automatic"
        )
    return around.matching[0] if around.matching else None


def find_lists(videos: Path, video_ids: Iterable[str]) -> FoundLists:
    """Look for official lists in the folder of the videos, in its parent, and in the immediate subfolders of the parent.

    Parameters
    ----------
    videos : Path
        The folder of the videos, which may no longer exist.
    video_ids : iterable of str
        The videos that were extracted.

    Returns
    -------
    FoundLists
        Folders, sorted. CSV files are not looked for; the user names them.

    Raises
    ------
    ManifestError
        If a list that was found cannot be read.
    """
    videos = Path(os.path.abspath(videos))  # not resolved: the parent is the one the user sees
    around = [videos, videos.parent, *_subfolders(videos.parent)]
    folders = sorted({folder for folder in around if split_numbers(folder)})
    names = {comparable_name(video_id) for video_id in video_ids}
    matching = [folder for folder in folders if any(comparable_name(entry.video_id) in names for entry in _all_entries(folder))]
    return FoundLists(tuple(matching), tuple(folder for folder in folders if folder not in matching))


def match_lists(lists: SplitLists, video_ids: Iterable[str]) -> Matched:
    """Find the videos that lists name: by the same name, or else by one that differs only in case or Unicode composition.

    Parameters
    ----------
    lists : SplitLists
        The lists.
    video_ids : iterable of str
        The videos that were extracted.

    Raises
    ------
    ManifestError
        If a name without an exact match fits two videos, or two names fit one video; the error names both.
    """
    there = set(video_ids)
    exact = {entry.video_id for entry in (*lists.train, *lists.test, *lists.unused)} & there
    alike: dict[str, list[str]] = defaultdict(list)
    for video_id in sorted(there - exact):
        alike[comparable_name(video_id)].append(video_id)
    matched_names: dict[str, str] = {}

    def find(entry: ListEntry) -> str | None:
        if entry.video_id in exact:
            return entry.video_id
        fitting = alike.get(comparable_name(entry.video_id), [])
        if len(fitting) > 1:
            raise ManifestError(
                f"{entry.video_id!r} of the split lists fits both {fitting[0]!r} and {fitting[1]!r}; rename one of the videos"
            )
        if not fitting:
            return None
        matched_name = matched_names.setdefault(fitting[0], entry.video_id)
        if matched_name != entry.video_id:
            raise ManifestError(
                f"{matched_name!r} and {entry.video_id!r} of the split lists both fit {fitting[0]!r}; rename the video as one of them"
            )
        return fitting[0]

    def divide(entries: tuple[ListEntry, ...]) -> tuple[tuple[ListEntry, ...], tuple[ListEntry, ...]]:
        found = [(entry, find(entry)) for entry in entries]
        present = sorted((ListEntry(video_id, entry.class_name) for entry, video_id in found if video_id is not None), key=_by_id)
        return tuple(present), tuple(entry for entry, video_id in found if video_id is None)

    train, missing_train = divide(lists.train)
    test, missing_test = divide(lists.test)
    listed = {entry.video_id for entry in (*train, *test)}
    untrained = {entry.class_name for entry in test} - {entry.class_name for entry in train}
    return Matched(
        train,
        test,
        missing_train,
        missing_test,
        unlisted=tuple(sorted(there - listed)),
        untrained_classes=tuple(name for name in lists.classes if name in untrained),
    )


def automatic_split(class_of: Mapping[str, str], *, seed: int = 0) -> SplitLists:
    """Divide videos into train and test without lists: by a seed, class by class, and without dividing groups.

    Parameters
    ----------
    class_of : mapping of str to str
        From video id to class name.
    seed : int
        Another seed gives another split.

    Returns
    -------
    SplitLists
        About 30 % of each class's videos are in test. Videos of a class whose ids share a ``_gNN_`` (one actor or
        scene, as in UCF101) stay together; a class of one group, or one video, is all in train.

    Raises
    ------
    ManifestError
        If a video has no class (it lies in no folder).
    """
    groups: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for video_id, class_name in sorted(class_of.items()):
        if not class_name:
            raise ManifestError(
                f"{video_id!r} lies in no class folder, so its class is unknown: list it in a CSV file with the columns "
                f"{','.join(CSV_COLUMNS)} and pass it with --lists FILE.csv"
            )
        number = group_of(video_id)
        groups[class_name][video_id if number is None else f"g{number}"].append(video_id)
    train: list[ListEntry] = []
    test: list[ListEntry] = []
    for class_name, members in groups.items():
        chosen = _test_groups({group: len(ids) for group, ids in members.items()}, f"{seed}/{class_name}")
        for group, ids in members.items():
            (test if group in chosen else train).extend(ListEntry(video_id, class_name) for video_id in ids)
    return SplitLists("automatic", tuple(sorted(groups)), tuple(sorted(train, key=_by_id)), tuple(sorted(test, key=_by_id)))


def _test_groups(sizes: dict[str, int], salt: str) -> set[str]:
    """Return the groups of a class that go to test: in an order by hash, each that brings the share closer to the target."""
    if len(sizes) < 2:
        return set()
    drawn = sorted(sizes, key=lambda group: hashlib.sha256(f"{salt}/{group}".encode()).digest())
    target = TEST_FRACTION * sum(sizes.values())
    chosen: set[str] = set()
    num_chosen = 0
    for group in drawn:
        if abs(num_chosen + sizes[group] - target) < abs(num_chosen - target):
            chosen.add(group)
            num_chosen += sizes[group]
    return chosen or {min(drawn, key=lambda group: sizes[group])}


def _by_id(entry: ListEntry) -> str:
    return entry.video_id


def _subfolders(folder: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir()]
    except OSError:
        return []


def _all_entries(folder: Path) -> Iterator[ListEntry]:
    for number in split_numbers(folder):
        lists = read_lists(folder, number)
        yield from (*lists.train, *lists.test, *lists.unused)
