"""Which lists make a split: those that were named, those that lie around the videos, or a seeded division of the clips."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flowkit.dataset.split_lists import Matched, SplitLists, automatic_split, find_lists, match_lists, read_lists
from flowkit.errors import ManifestError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowkit.dataset.root import Dataset


AUTOMATIC = "automatic"  # in place of lists: divide the videos


class SeveralListsError(ManifestError):
    """More than one folder of split lists fits the videos."""


@dataclass(frozen=True)
class ChosenLists:
    """Lists of a split, where they are from, and how they fit the videos."""

    path: Path | None
    lists: SplitLists
    matched: Matched


def choose_lists(dataset: Dataset, split: int, given: str | Path | None, class_of: Mapping[str, str]) -> ChosenLists:
    """Find the lists that a split is made from.

    Parameters
    ----------
    dataset : Dataset
        The data root.
    split : int
        The split's number.
    given : Path or "automatic", optional
        What the user named. Otherwise lists are searched around the videos, and without any the split is automatic.
    class_of : mapping of str to str
        The clips that are there: video id to the folder's name.

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
                f"the first clip is {min(class_of)!r}; name other lists by --lists DIR|FILE.csv, or use --lists automatic"
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
        raise SeveralListsError(f"several folders hold split lists of these videos: {folders}; choose one by --lists DIR")
    if around.others and not around.matching:
        folders = " and ".join(repr(str(folder)) for folder in around.others)
        raise ManifestError(
            f"the split lists in {folders} match no clip of {str(dataset.root)!r} (the first clip is {min(class_of)!r}); "
            "name other lists by --lists DIR|FILE.csv, or use --lists automatic"
        )
    return around.matching[0] if around.matching else None
