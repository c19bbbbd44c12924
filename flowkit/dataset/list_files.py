"""Read split lists: UCF101's and HMDB51's official ones, and CSV files.

A list names videos, whether they exist or not; `flowkit.dataset.split_lists` finds those that exist.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flowkit.errors import ManifestError
from flowkit.file_versions import FileVersion, versions_in
from flowkit.files import read_file
from flowkit.video.ids import check_video_id, comparable_name

Protocol = Literal["ucf101", "hmdb51", "csv", "automatic"]
CSV_COLUMNS = ("video_id", "class_name", "subset")
MAX_LIST_BYTES = 2**28

_UCF101_LIST = re.compile(r"(train|test)list(\d+)\.txt")
_HMDB51_LIST = re.compile(r"(.+)_test_split(\d+)\.txt")
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{2,5}$")


@dataclass(frozen=True)
class ListEntry:
    """One line of a list: the id of a video as the list spells it, and its class."""

    video_id: str
    class_name: str


@dataclass(frozen=True)
class SplitLists:
    """One split as its lists define it: the classes in order of label, and the videos of each half.

    Parameters
    ----------
    protocol : {"ucf101", "hmdb51", "csv", "automatic"}
        The kind of lists.
    classes : tuple of str
        ``classes[label]``, with labels from 0. UCF101: all of classInd.txt in its order; HMDB51: all that have a list, sorted;
        otherwise the names that occur, sorted by code point.
    train, test : tuple of ListEntry
        The videos of each half.
    unused : tuple of ListEntry
        Videos that the lists name but leave out (code 0 of HMDB51).
    """

    protocol: Protocol
    classes: tuple[str, ...]
    train: tuple[ListEntry, ...]
    test: tuple[ListEntry, ...]
    unused: tuple[ListEntry, ...] = ()


def split_numbers(folder: Path) -> tuple[int, ...]:
    """Return the numbers of the splits whose official lists a folder holds; empty if it holds none."""
    try:
        names = os.listdir(folder)
    except OSError:
        return ()
    ucf101 = {int(match[2]) for name in names if (match := _UCF101_LIST.fullmatch(name)) and match[1] == "train"}
    if "classInd.txt" in names and ucf101:
        return tuple(sorted(ucf101))
    return tuple(sorted({int(match[2]) for name in names if (match := _HMDB51_LIST.fullmatch(name))}))


def read_lists(path: Path, number: int) -> SplitLists:
    """Read one split from a folder of official lists, or from a CSV file.

    Parameters
    ----------
    path : Path
        A folder with UCF101's ``classInd.txt``, ``trainlistNN.txt``, ``testlistNN.txt``, or with HMDB51's
        ``<class>_test_splitN.txt``; or a file with the columns ``video_id,class_name,subset``.
    number : int
        Which split, from 1. A CSV file is one split, whatever its number.

    Raises
    ------
    ManifestError
        If there is no such list, or a line of it cannot be understood or contradicts another; names file and line.
    """
    before = _versions(path)
    if path.is_file():
        lists = _read_csv(path)
    else:
        numbers = split_numbers(path)
        if not numbers:
            raise ManifestError(
                f"{str(path)!r} holds no split lists: name a CSV file with the columns {','.join(CSV_COLUMNS)}, or a folder with "
                "classInd.txt and trainlist01.txt (UCF101) or <class>_test_split1.txt (HMDB51)"
            )
        if number not in numbers:
            raise ManifestError(f"{str(path)!r} has no lists of split {number}; it has {', '.join(map(str, numbers))}")
        lists = _read_ucf101(path, number) if (path / "classInd.txt").is_file() else _read_hmdb51(path, number)
    if _versions(path) != before:
        raise ManifestError(f"the split lists in {str(path)!r} were changed while they were read; once they are complete, pack again")
    _check_unique(lists, path)
    return lists


def _versions(path: Path) -> dict[Path, FileVersion | None]:
    """Return the versions of all files that may be split lists, by which a reader sees that all that it read fits together."""
    if path.is_dir():
        return versions_in([path], wanted=lambda name: name.endswith(".txt"))
    return versions_in([path.parent], wanted=lambda name: name == path.name)


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (where, line) for each line that is not blank; where is for messages."""
    for number, line in enumerate(io.StringIO(_read_text(path), newline=None), start=1):
        if line.strip():
            yield f"{path}, line {number}", line.strip()


def _read_text(path: Path) -> str:
    try:
        return read_file(path, most_bytes=MAX_LIST_BYTES).decode("utf-8-sig")
    except OSError as cause:
        raise ManifestError(f"cannot read the split list {path}: {cause.strerror}") from cause
    except UnicodeDecodeError as cause:
        raise ManifestError(f"{path} is not UTF-8 text ({cause}); save it as UTF-8") from cause


def _without_suffix(name: str, where: str) -> str:
    video_id = _SUFFIX.sub("", name)
    try:
        check_video_id(video_id)
    except ManifestError as cause:
        raise ManifestError(f"{where}: {cause}") from cause
    return video_id


def _read_ucf101(folder: Path, number: int) -> SplitLists:
    """Read ``classInd.txt`` ("1 ApplyEyeMakeup"), ``trainlistNN.txt`` ("Class/video.avi 1") and ``testlistNN.txt``."""
    classes: list[str] = []
    for where, line in _lines(folder / "classInd.txt"):
        index, _, name = line.partition(" ")
        if index != str(len(classes) + 1) or not name.strip():
            raise ManifestError(f"{where}: expected '{len(classes) + 1} <class name>', got {line!r}")
        classes.append(name.strip())
    canonical = {comparable_name(name): name for name in classes}
    if len(canonical) != len(classes):
        raise ManifestError(f"{folder / 'classInd.txt'} names a class twice")

    def half(subset: str) -> tuple[ListEntry, ...]:
        entries = []
        for where, line in _lines(_numbered(folder, subset, number)):
            match = re.fullmatch(r"(.+?)(?:\s+(\d+))?", line)
            assert match is not None
            name, index = match[1], match[2]
            if subset == "train" and index is None:
                raise ManifestError(f"{where}: expected '<class>/<video> <class number>', got {line!r}")
            video_id = _without_suffix(name, where)
            class_name = canonical.get(comparable_name(video_id.rsplit("/", 1)[0])) if "/" in video_id else None
            if class_name is None:
                raise ManifestError(f"{where}: {name!r} is in no class of classInd.txt")
            if index is not None and int(index) != classes.index(class_name) + 1:
                raise ManifestError(f"{where}: {name!r} is numbered {index}, but classInd.txt gives {classes.index(class_name) + 1}")
            entries.append(ListEntry(video_id, class_name))
        return tuple(entries)

    return SplitLists("ucf101", tuple(classes), half("train"), half("test"))


def _numbered(folder: Path, subset: str, number: int) -> Path:
    """Return the path of a UCF101 list, whether it writes its number as 1 or 01."""
    for name in sorted(os.listdir(folder)):
        match = _UCF101_LIST.fullmatch(name)
        if match and match[1] == subset and int(match[2]) == number:
            return folder / name
    raise ManifestError(f"{str(folder)!r} has no {subset}list{number:02d}.txt")


def _read_hmdb51(folder: Path, number: int) -> SplitLists:
    """Read ``<class>_test_splitN.txt`` ("video.avi 1"): 1 is train, 2 is test, 0 is neither."""
    halves: dict[str, list[ListEntry]] = {"0": [], "1": [], "2": []}
    classes = []
    for name in sorted(os.listdir(folder)):
        match = _HMDB51_LIST.fullmatch(name)
        if match is None or int(match[2]) != number:
            continue
        classes.append(match[1])
        for where, line in _lines(folder / name):
            video, _, code = line.rpartition(" ")
            if not video.strip() or code not in halves:
                raise ManifestError(f"{where}: expected '<video> 0', 1 or 2, got {line!r}")
            halves[code].append(ListEntry(_without_suffix(f"{match[1]}/{video.strip()}", where), match[1]))
    return SplitLists("hmdb51", tuple(sorted(classes)), tuple(halves["1"]), tuple(halves["2"]), tuple(halves["0"]))


def _read_csv(path: Path) -> SplitLists:
    """Read ``video_id,class_name,subset`` in any order of columns; further columns are ignored."""
    halves: dict[str, list[ListEntry]] = {"train": [], "test": []}
    reader = csv.DictReader(io.StringIO(_read_text(path), newline=""), restval="", strict=True)
    try:
        missing = [column for column in CSV_COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise ManifestError(f"{path}: its first line must name the columns {','.join(CSV_COLUMNS)}; missing: {', '.join(missing)}")
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if row["subset"] not in halves or not row["class_name"]:
                raise ManifestError(
                    f"{where}: needs a class_name, and a subset 'train' or 'test'; got {row['class_name']!r}, {row['subset']!r}"
                )
            try:
                check_video_id(row["video_id"])
            except ManifestError as cause:
                raise ManifestError(f"{where}: {cause}") from cause
            halves[row["subset"]].append(ListEntry(row["video_id"], row["class_name"]))
    except csv.Error as cause:
        raise ManifestError(f"{path}, line {reader.line_num}: not valid CSV ({cause})") from cause
    classes = sorted({entry.class_name for half in halves.values() for entry in half})
    return SplitLists("csv", tuple(classes), tuple(halves["train"]), tuple(halves["test"]))


def _check_unique(lists: SplitLists, path: Path) -> None:
    """Refuse lists that name a video twice: in one half it would count double, in both it would leak."""
    half_of: dict[str, str] = {}
    for half, entries in (("train", lists.train), ("test", lists.test), ("unused", lists.unused)):
        for entry in entries:
            if entry.video_id in half_of:
                raise ManifestError(f"{path} names {entry.video_id!r} twice, in {half_of[entry.video_id]} and {half}; remove one line")
            half_of[entry.video_id] = half
