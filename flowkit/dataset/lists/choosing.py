"""The lists of a split: those that the user names, the folders of the videos, lists found around them, or a seeded split."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from flowkit.dataset.lists.automatic import automatic_split
from flowkit.dataset.lists.classes import ClassChoice, classes_of_videos, keep_classes
from flowkit.dataset.lists.entries import ListEntry, SplitLists, divide
from flowkit.dataset.lists.matching import Matched, match_lists
from flowkit.dataset.lists.official import split_numbers
from flowkit.dataset.lists.reading import read_lists
from flowkit.dataset.root import Dataset
from flowkit.errors import ManifestError
from flowkit.video.folders import FolderLayout, Subset, read_layout, subset_of_name
from flowkit.video.ids import comparable_name, first_few, name_ends

FOLDERS = "folders"  # instead of lists: the folders of the videos, called train, val and test


@dataclass(frozen=True)
class FoundLists:
    """Folders of official lists: those that name at least one of the videos, and those that name none."""

    matching: tuple[Path, ...]
    others: tuple[Path, ...]


class SeveralListsError(ManifestError):
    """More than one folder of split lists fits the videos."""


@dataclass(frozen=True)
class ChosenLists:
    """The lists of a split, and the videos that they match.

    Parameters
    ----------
    path : Path or None
        Where the lists come from; None if the split comes from the folders of the videos or from a seed.
    lists : SplitLists
        The lists.
    matched : Matched
        The lists against the videos.
    notes : tuple of str
        What the user should know about the choice, in sentences without a full stop.
    """

    path: Path | None
    lists: SplitLists
    matched: Matched
    notes: tuple[str, ...] = ()


def choose_lists(
    dataset: Dataset,
    split: int,
    given: str | Path | None,
    class_of: Mapping[str, str],
    *,
    file_of: Mapping[str, str] | None = None,
    classes: ClassChoice = "all",
    is_long_enough: Callable[[str], bool] = lambda video_id: True,
) -> ChosenLists:
    """Find the lists from which a split is made.

    Parameters
    ----------
    dataset : Dataset
        The data root.
    split : int
        The number of the split.
    given : Path or "folders" or "automatic", optional
        What the user named. By default the folders of the videos give the split if they are called train, val and test;
        otherwise flowkit looks for lists around the videos, and without any the split is automatic.
    class_of : mapping of str to str
        The clips of the root: from video id to the name of the class that the clip has.
    file_of : mapping of str to str, optional
        The SHA-256 of the video file of each clip, as far as it is known, for an automatic split.
    classes : "all" or "present" or sequence of str
        The classes of the lists that the split has; see `flowkit.dataset.lists.classes.keep_classes`.
    is_long_enough : callable
        Whether a clip has enough frames for a split, by its id.

    Raises
    ------
    SeveralListsError
        If lists in several folders fit the clips.
    ManifestError
        If the lists match no clip, or none of those listed for one half, or cannot be read; if clips disagree about what
        their folders mean; or if there is no class of a chosen name.
    """
    chosen = _choose_all(dataset, split, given, class_of, file_of, classes)
    lists, matched = keep_classes(chosen.lists, chosen.matched, classes, is_long_enough=is_long_enough)
    return replace(chosen, lists=lists, matched=matched)


def _choose_all(
    dataset: Dataset,
    split: int,
    given: str | Path | None,
    class_of: Mapping[str, str],
    file_of: Mapping[str, str] | None,
    classes: ClassChoice,
) -> ChosenLists:
    """Find the lists with all classes that they have; an automatic split has the chosen classes only."""
    root, path = dataset.root, None
    notes: tuple[str, ...] = ()
    if isinstance(given, Path):
        path = given
    elif given == FOLDERS:
        return _chosen_folders(read_layout(class_of), class_of)
    elif given is None:
        layout = read_layout(class_of)
        meaning = _meaning_of_folders(layout, class_of, root)
        if meaning == "subsets" and _has_both_halves(layout):
            return _chosen_folders(layout, class_of)
        path = _lists_around_videos(dataset, class_of)
        if path is None and layout.has_subsets:
            notes = (_why_not_folders(layout) if meaning == "subsets" else _OLD_CLASSES.format(example=min(class_of.values())),)
    if path is not None:
        lists = read_lists(path, split)
        matched = match_lists(lists, class_of)
        _check_halves(lists, matched, path, class_of, root)
        return ChosenLists(path, lists, matched)
    lists = automatic_split(classes_of_videos(class_of, classes), seed=split - 1, file_of=file_of)
    if left_out := tuple(sorted({*class_of.values()} - {*lists.classes, ""})):
        lists = replace(lists, left_out=left_out)
    return ChosenLists(None, lists, match_lists(lists, class_of), notes)


def _check_halves(lists: SplitLists, matched: Matched, path: Path, class_of: Mapping[str, str], root: Path) -> None:
    """Refuse lists that match no clip, or none of a half that they do not leave empty."""
    halves = (("training", lists.train, matched.train), ("test", lists.test, matched.test))
    empty = [(name, listed) for name, listed, found in halves if listed and not found]
    if not empty and (lists.train or lists.test):
        return
    which = "no clip" if not (matched.train or matched.test) else f"no clip for {empty[0][0]}"
    first = empty[0][1][0] if empty else None
    names = f"the first list names {first.video_id!r}" if first else "they name no video"
    reason = f" (it {matched.reasons[first.video_id]})" if first and first.video_id in matched.reasons else ""
    raise ManifestError(
        f"the split lists in {str(path)!r} match {which} of {str(root)!r}: {names}{reason}, "
        f"the first clip is {min(class_of)!r}; name other lists with --lists DIR|FILE, or use --lists automatic"
    )


def _meaning_of_folders(layout: FolderLayout, class_of: Mapping[str, str], root: Path) -> Literal["classes", "subsets"]:
    """Return whether folders such as ``train`` are parts of the classes or the subsets of a split, by the classes that clips have.

    Raises
    ------
    ManifestError
        If clips differ in this, because some were extracted by an older flowkit, or because the folders have changed since.
    """
    inner, outer = [], []  # the clips whose class leaves out the folder of the subset, and those whose class begins with it
    for video_id, class_name in sorted(class_of.items()):
        folder = video_id.rpartition("/")[0]
        top, _, rest = folder.partition("/")
        if rest and subset_of_name(top):
            if class_name == rest:
                inner.append(video_id)
            elif class_name == folder:
                outer.append(video_id)
    if inner and (outer or not layout.has_subsets):
        other = f"but {outer[0]!r} the class {class_of[outer[0]]!r}" if outer else f"but {layout.doubt}"
        remedy = "--lists folders for the split of the folders, " if layout.has_subsets else ""
        raise ManifestError(
            f"in {str(root)!r} the clip {inner[0]!r} has the class {class_of[inner[0]]!r}, {other}; the folders have changed, or an older "
            f"flowkit extracted some of the clips: use {remedy}--lists DIR|FILE for lists of your own, or extract into another data root"
        )
    return "subsets" if layout.has_subsets and not outer else "classes"


def _has_both_halves(layout: FolderLayout) -> bool:
    return "train" in layout.subset_folders and len(layout.subset_folders) > 1


def _why_not_folders(layout: FolderLayout) -> str:
    missing = "nothing to test on" if "train" in layout.subset_folders else "nothing to train on"
    return f"the folders give no split, since beside {layout.subset_folder_names} there is {missing}"


_OLD_CLASSES = (
    "an older flowkit extracted these clips and gave them classes such as {example!r}; "
    "`--lists folders` makes the folders at the top the split, and those inside them the classes"
)


def _chosen_folders(layout: FolderLayout, class_of: Mapping[str, str]) -> ChosenLists:
    """Return the split that the folders of the videos give."""
    if not layout.has_subsets or not _has_both_halves(layout):
        why = _why_not_folders(layout) if layout.has_subsets else layout.doubt or "no folder at the top is called train, val or test"
        raise ManifestError(f"the folders of the videos give no split: {why}; name lists with --lists DIR|FILE, or use --lists automatic")
    subsets: dict[Subset, list[ListEntry]] = {"train": [], "val": [], "test": []}
    for video_id, subset in sorted(layout.subset_of.items()):
        subsets[subset].append(ListEntry(video_id, layout.class_of[video_id]))
    lists = divide(FOLDERS, subsets)
    has_test = bool(subsets["test"])
    use: dict[Subset, str] = {"train": "for training", "val": "unused" if has_test else "for test", "test": "for test"}
    parts = [f"{first_few(names, last='and')} {use[subset]}" for subset, names in sorted(layout.subset_folders.items(), key=_subset_order)]
    lists = replace(lists, protocol=f"{FOLDERS} ({', '.join(parts)})")
    return ChosenLists(None, lists, match_lists(lists, class_of))


def _subset_order(item: tuple[Subset, tuple[str, ...]]) -> int:
    return ("train", "val", "test").index(item[0])


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
    ids = [comparable_name(video_id) for video_id in video_ids]
    names = set(ids)
    matching = [folder for folder in folders if any(comparable_name(entry.video_id) in names for entry in _all_entries(folder))]
    if not matching:  # their videos may lie in one folder, or one folder deeper
        ends = {end for name in ids for end in name_ends(name)}

        def fits(entry: ListEntry) -> bool:
            name, *shorter = name_ends(comparable_name(entry.video_id))
            return name in ends or any(end in names for end in shorter)

        matching = [folder for folder in folders if any(map(fits, _all_entries(folder)))]
    return FoundLists(tuple(matching), tuple(folder for folder in folders if folder not in matching))


def _subfolders(folder: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir()]
    except OSError:
        return []


def _all_entries(folder: Path) -> Iterator[ListEntry]:
    for number in split_numbers(folder):
        lists = read_lists(folder, number)
        yield from (*lists.train, *lists.test, *lists.unused)
