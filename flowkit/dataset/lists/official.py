"""Read the official lists of UCF101 and HMDB51."""

from __future__ import annotations

import os
import re
from pathlib import Path

from flowkit.dataset.lists.entries import ListEntry, SplitLists, last_number, lines_of, name_in_list
from flowkit.errors import ManifestError
from flowkit.video.ids import comparable_name, name_ends

_UCF101_LIST = re.compile(r"(train|test)list(\d{1,9})\.txt")
_HMDB51_LIST = re.compile(r"(.+)_test_split(\d{1,9})\.txt")
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{2,5}$")


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


def read_official(folder: Path, number: int) -> SplitLists:
    """Read one split from a folder with lists of UCF101 or HMDB51."""
    return _read_ucf101(folder, number) if (folder / "classInd.txt").is_file() else _read_hmdb51(folder, number)


def read_class_names(path: Path) -> list[str]:
    """Read ``classInd.txt`` ("1 ApplyEyeMakeup"): the names of the classes, numbered from 1."""
    classes: list[str] = []
    for where, line in lines_of(path):
        index, _, name = line.partition(" ")
        if index != str(len(classes) + 1) or not name.strip():
            raise ManifestError(f"{where}: expected '{len(classes) + 1} <class name>', got {line!r}")
        classes.append(name.strip())
    return classes


def _read_ucf101(folder: Path, number: int) -> SplitLists:
    """Read ``classInd.txt``, ``trainlistNN.txt`` ("Class/video.avi 1") and ``testlistNN.txt``."""
    classes = read_class_names(folder / "classInd.txt")
    label_of = {name: label for label, name in enumerate(classes)}
    canonical = {comparable_name(name): name for name in classes}
    if len(canonical) != len(classes):
        raise ManifestError(f"{folder / 'classInd.txt'} names a class twice")

    def class_of(video_id: str) -> str | None:
        """Return the class that the folder names, also if it lies in further folders."""
        ends = map(comparable_name, name_ends(video_id.rpartition("/")[0]))
        return next((canonical[end] for end in ends if end in canonical), None)

    def half(subset: str) -> tuple[ListEntry, ...]:
        entries = []
        for where, line in lines_of(_numbered(folder, subset, number)):
            name, index = last_number(line)
            if subset == "train" and index is None:
                raise ManifestError(f"{where}: expected '<class>/<video> <class number>', got {line!r}")
            video_id = _without_suffix(name, where)
            class_name = class_of(video_id)
            if class_name is None and "/" not in video_id and index is not None and 1 <= index <= len(classes):
                class_name = classes[index - 1]  # a list of videos that lie in one folder
            if class_name is None:
                raise ManifestError(f"{where}: {name!r} is in no class of classInd.txt")
            if index is not None and index != label_of[class_name] + 1:
                raise ManifestError(f"{where}: {name!r} is numbered {index}, but classInd.txt gives {label_of[class_name] + 1}")
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
        for where, line in lines_of(folder / name):
            video, _, code = line.rpartition(" ")
            if not video.strip() or code not in halves:
                raise ManifestError(f"{where}: expected '<video> 0', 1 or 2, got {line!r}")
            halves[code].append(ListEntry(_without_suffix(f"{match[1]}/{video.strip()}", where), match[1]))
    return SplitLists("hmdb51", tuple(sorted(classes)), tuple(halves["1"]), tuple(halves["2"]), tuple(halves["0"]))


def _without_suffix(name: str, where: str) -> str:
    return name_in_list(_SUFFIX.sub("", name), where)
