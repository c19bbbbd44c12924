"""Read the official lists of UCF101 and HMDB51."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from flowkit.dataset.lists.entries import ListEntry, SplitLists, last_number, lines_of, name_in_list
from flowkit.errors import ManifestError
from flowkit.video.ids import comparable_name, name_ends

_UCF101_LIST = re.compile(r"(train|test)list(\d{1,9})\.txt")
_HMDB51_LIST = re.compile(r"(.+)_test_split(\d{1,9})\.txt")
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{2,5}$")
_MOST_SHOWN = 100  # characters of a line in a message
HMDB51_CODES = ("0", "1", "2")

OnFault = Callable[[str], None]


def _refuse(fault: str) -> None:
    raise ManifestError(fault)


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


def read_class_names(path: Path, on_fault: OnFault = _refuse) -> list[str]:
    """Read ``classInd.txt`` ("1 ApplyEyeMakeup"): the names of the classes, numbered from 1.

    `on_fault` receives what is wrong with a line, which is then left out; by default it is an error.
    """
    classes: list[str] = []
    for where, line in lines_of(path):
        index, _, name = line.partition(" ")
        if index != str(len(classes) + 1) or not name.strip():
            on_fault(f"{where}: expected '{len(classes) + 1} <class name>', got {_shown(line)}")
        else:
            classes.append(name.strip())
    if len({comparable_name(name) for name in classes}) != len(classes):
        on_fault(f"{path} names a class twice")
    return classes


def _read_ucf101(folder: Path, number: int) -> SplitLists:
    """Read ``classInd.txt``, ``trainlistNN.txt`` ("Class/video.avi 1") and ``testlistNN.txt``."""
    classes = read_class_names(folder / "classInd.txt")
    train, test = (read_ucf101_list(_numbered(folder, subset, number), classes, subset) for subset in ("train", "test"))
    return SplitLists("ucf101", tuple(classes), train, test)


def read_ucf101_list(path: Path, classes: Sequence[str], subset: str, on_fault: OnFault = _refuse) -> tuple[ListEntry, ...]:
    """Read ``trainlistNN.txt`` or ``testlistNN.txt``, given the names of the classes.

    `on_fault` receives what is wrong with a line, which is then left out; by default it is an error.
    """
    label_of = {name: label for label, name in enumerate(classes)}
    canonical = {comparable_name(name): name for name in classes}
    entries = []
    for where, line in lines_of(path):
        try:
            entries.append(_ucf101_entry(line, where, classes, label_of, canonical, is_numbered=subset == "train"))
        except ManifestError as error:
            on_fault(str(error))
    return tuple(entries)


def _ucf101_entry(
    line: str, where: str, classes: Sequence[str], label_of: Mapping[str, int], canonical: Mapping[str, str], *, is_numbered: bool
) -> ListEntry:
    name, index = last_number(line)
    if is_numbered and index is None:
        raise ManifestError(f"{where}: expected '<class>/<video> <class number>', got {_shown(line)}")
    video_id = _without_suffix(name, where)
    ends = map(comparable_name, name_ends(video_id.rpartition("/")[0]))  # the class may lie in further folders
    class_name = next((canonical[end] for end in ends if end in canonical), None)
    if class_name is None and "/" not in video_id and index is not None and 1 <= index <= len(classes):
        class_name = classes[index - 1]  # a list of videos that lie in one folder
    if class_name is None:
        raise ManifestError(f"{where}: {_shown(name)} is in no class of classInd.txt")
    if index is not None and index != label_of[class_name] + 1:
        raise ManifestError(f"{where}: {_shown(name)} is numbered {index}, but classInd.txt gives {label_of[class_name] + 1}")
    return ListEntry(video_id, class_name)


def _numbered(folder: Path, subset: str, number: int) -> Path:
    """Return the path of a UCF101 list, whether it writes its number as 1 or 01."""
    for name in sorted(os.listdir(folder)):
        match = _UCF101_LIST.fullmatch(name)
        if match and match[1] == subset and int(match[2]) == number:
            return folder / name
    raise ManifestError(f"{str(folder)!r} has no {subset}list{number:02d}.txt")


def _read_hmdb51(folder: Path, number: int) -> SplitLists:
    """Read ``<class>_test_splitN.txt`` of all classes."""
    halves: dict[str, list[ListEntry]] = {code: [] for code in HMDB51_CODES}
    classes = []
    for class_name, path in hmdb51_files(folder, number).items():
        classes.append(class_name)
        for code, entries in read_hmdb51_list(path, class_name).items():
            halves[code] += entries
    return SplitLists("hmdb51", tuple(sorted(classes)), tuple(halves["1"]), tuple(halves["2"]), tuple(halves["0"]))


def hmdb51_files(folder: Path, number: int) -> dict[str, Path]:
    """Return the lists of one split of HMDB51 that a folder holds, by class."""
    matches = [match for name in sorted(os.listdir(folder)) if (match := _HMDB51_LIST.fullmatch(name)) and int(match[2]) == number]
    return {match[1]: folder / match[0] for match in matches}


def read_hmdb51_list(path: Path, class_name: str, on_fault: OnFault = _refuse) -> dict[str, list[ListEntry]]:
    """Read ``<class>_test_splitN.txt`` ("video.avi 1") by code: 1 is train, 2 is test, 0 is neither.

    `on_fault` receives what is wrong with a line, which is then left out; by default it is an error.
    """
    entries: dict[str, list[ListEntry]] = {code: [] for code in HMDB51_CODES}
    for where, line in lines_of(path):
        video, _, code = line.rpartition(" ")
        try:
            if not video.strip() or code not in entries:
                raise ManifestError(f"{where}: expected '<video> 0', 1 or 2, got {_shown(line)}")
            entries[code].append(ListEntry(_without_suffix(f"{class_name}/{video.strip()}", where), class_name))
        except ManifestError as error:
            on_fault(str(error))
    return entries


def _shown(line: str) -> str:
    """Return the beginning of a line, quoted."""
    return repr(line if len(line) <= _MOST_SHOWN else line[:_MOST_SHOWN] + "...")


def _without_suffix(name: str, where: str) -> str:
    return name_in_list(_SUFFIX.sub("", name), where)
