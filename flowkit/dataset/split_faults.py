"""What is wrong with a split: nothing to learn or to test, classes without a test video, the same file in both halves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flowkit.dataset.lists.automatic import AUTOMATIC
from flowkit.dataset.manifest import ClipRecord, Split


@dataclass(frozen=True)
class SplitFaults:
    """What is wrong with a split.

    Parameters
    ----------
    errors : tuple of str
        Why nothing can be learnt from it or tested with it, in sentences without a full stop.
    warnings : tuple of str
        Why its test says little.
    untested_classes : tuple of str
        Classes that have a training video but no test video.
    shared_files : tuple of (tuple of str, tuple of str)
        The training and the test videos that were extracted from byte-identical files, or from one file, file by file.
    ambiguous_files : tuple of tuple of str
        The videos of several classes that were extracted from byte-identical files, or from the same frames of them, file by file.
    """

    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    untested_classes: tuple[str, ...] = ()
    shared_files: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = ()
    ambiguous_files: tuple[tuple[str, ...], ...] = ()


def split_faults(split: Split, file_of: Mapping[str, str], segment_of: Mapping[str, str] | None = None) -> SplitFaults:
    """Find what is wrong with a split.

    Parameters
    ----------
    split : Split
        The split, without the videos that are missing or too short.
    file_of : dict of str to str
        The SHA-256 of the file that each video was extracted from; empty if unknown.
    segment_of : dict of str to str, optional
        The part of its file that a video is; missing or empty if it is all of it.

    Examples
    --------
    >>> import flowkit
    >>> from flowkit.dataset.example import example_root
    >>> split_faults(flowkit.Dataset.open(example_root()).split(1), {}).errors
    ()
    """
    trained, tested = ({record.label for record in half} for half in (split.train, split.test))
    untested = sorted(trained - tested) if tested else []
    files = _videos_by_file(split, file_of)
    parts = {video_id: f"{file}/{(segment_of or {}).get(video_id, '')}" for video_id, file in file_of.items() if file}
    same = _videos_by_file(split, parts)
    return SplitFaults(
        tuple(_errors(split, trained, tested)),
        (f"all test videos have the class {split.classes[min(tested)]!r}",) if len(tested) == 1 and len(trained) > 1 else (),
        tuple(split.classes[label] for label in untested),
        tuple(sorted((_ids(train), _ids(test)) for train, test in files if train and test)),
        tuple(sorted(_ids([*train, *test]) for train, test in same if len({record.label for record in (*train, *test)}) > 1)),
    )


def _errors(split: Split, trained: set[int], tested: set[int]) -> list[str]:
    errors = []
    if not trained:
        errors.append(f"no training video, so nothing can be learnt: {_why_empty(split, split.num_listed_train)}")
    elif len(trained) == 1:
        only = "the only class" if trained >= tested else "the only class with a training video"
        errors.append(
            f"{split.classes[min(trained)]!r} is {only}, so there is nothing to tell apart: the class of a video is its folder below the "
            "folder that you extract, or what the lists of --lists say"
        )
    if not tested:
        errors.append(f"no test video, so nothing can be tested: {_why_empty(split, split.num_listed_test)}")
    elif trained and not trained & tested:
        errors.append("no class has both a training and a test video, so every test video will be classified wrongly")
    return errors


def _why_empty(split: Split, num_listed: int) -> str:
    if num_listed:
        return "all that are listed are missing or too short"
    if split.protocol == AUTOMATIC:
        return (
            "no class has two videos or groups (_gNN_) that could be divided (byte-identical files count as one video); add "
            "videos, or name lists with --lists DIR|FILE"
        )
    return "the lists name none"


def _videos_by_file(split: Split, file_of: Mapping[str, str]) -> list[tuple[list[ClipRecord], list[ClipRecord]]]:
    """Return the training and the test videos of each file that is known."""
    halves: dict[str, tuple[list[ClipRecord], list[ClipRecord]]] = defaultdict(lambda: ([], []))
    for half, records in enumerate((split.train, split.test)):
        for record in records:
            file = file_of.get(record.video_id, "")
            if file:
                halves[file][half].append(record)
    return list(halves.values())


def _ids(records: Iterable[ClipRecord]) -> tuple[str, ...]:
    return tuple(record.video_id for record in records)
