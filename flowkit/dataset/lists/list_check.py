"""Whether a folder holds the official lists of UCF101 or HMDB51, complete and undamaged, and what to do if it does not.

check_lists    looks at a folder, and returns what it found as `CheckedLists`
"""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from flowkit.dataset.lists.data_sets import DATA_SETS, HMDB51_PER_CLASS, DataSet, names_digest
from flowkit.dataset.lists.entries import ListEntry, SplitLists, read_text
from flowkit.dataset.lists.official import HMDB51_CODES, hmdb51_files, read_class_names, read_hmdb51_list, read_ucf101_list
from flowkit.errors import ManifestError
from flowkit.video.ids import comparable_name, first_few
from flowkit.video.tree import is_hidden, parent_of
from flowkit.words import counted

DataSetName = Literal["ucf101", "hmdb51"]
Read = TypeVar("Read")
Kind = Literal["folder", "archive", "missing", "damaged", "classes", "number", "names", "twice"]

_MOST_LINES = 5  # damaged lines that are named of one file
_MOST_NAMED = 5
_DEPTH = 3  # how many folders deep lists are looked for
_MOST_FOLDERS = 1000  # that are looked into
ARCHIVES = (".zip", ".rar", ".tar", ".tgz", ".tar.gz", ".7z")
_OTHER: dict[str, DataSetName] = {"ucf101": "hmdb51", "hmdb51": "ucf101"}
_IS_LIST = {
    "ucf101": re.compile(r"(train|test)list\d+\.txt|classInd\.txt", re.IGNORECASE),
    "hmdb51": re.compile(r".+_test_split\d+\.txt", re.IGNORECASE),
}


@dataclass(frozen=True)
class ListProblem:
    """Something that is wrong with a folder of lists.

    Parameters
    ----------
    kind : str
        ``folder`` (another folder is meant), ``archive`` (not unpacked), ``missing`` (a file), ``damaged`` (a file or a line),
        ``classes``, ``number`` (of videos), ``names`` (other videos than in the official lists) or ``twice`` (a video).
    text : str
        What is wrong and what to do, without a full stop.
    """

    kind: Kind
    text: str


@dataclass(frozen=True)
class CheckedSplit:
    """One split of the lists: how many videos it names, and how many the official lists have.

    Parameters
    ----------
    number : int
        The number of the split, from 1.
    num_train, num_test : int
        Videos for training and for test.
    official_train, official_test : int
        The numbers of the official lists.
    """

    number: int
    num_train: int
    num_test: int
    official_train: int
    official_test: int


@dataclass(frozen=True)
class CheckedLists:
    """What a folder of official lists holds.

    Parameters
    ----------
    data_set : str
        ``ucf101`` or ``hmdb51``.
    folder : Path
        The folder that holds the lists; the one that was named if none does.
    num_classes : int
        How many classes the lists have.
    splits : tuple of CheckedSplit
        The three splits, as far as there is a list of one.
    problems : tuple of ListProblem
        What is wrong; empty if the lists are complete.
    lists : tuple of SplitLists
        The splits that can be read, for a comparison with videos.
    """

    data_set: DataSetName
    folder: Path
    num_classes: int
    splits: tuple[CheckedSplit, ...]
    problems: tuple[ListProblem, ...]
    lists: tuple[SplitLists, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def check_lists(data_set: DataSetName, folder: str | os.PathLike[str]) -> CheckedLists:
    """Check a downloaded folder of official lists.

    Parameters
    ----------
    data_set : "ucf101" or "hmdb51"
        Whose lists they are.
    folder : path
        The folder, or an archive that was not unpacked.

    Returns
    -------
    CheckedLists
        If the folder above or below was meant, the one that holds the lists is checked, and a problem says so.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from flowkit.dataset.lists.list_check import check_lists
    >>> folder = Path(tempfile.mkdtemp(), "lists")
    >>> folder.mkdir()
    >>> (folder / "UCF101TrainTestSplits-RecognitionTask.zip").touch()
    >>> [problem.kind for problem in check_lists("ucf101", folder).problems]
    ['archive']
    """
    given, facts = Path(folder), DATA_SETS[data_set]
    if given.is_file():
        return CheckedLists(data_set, given, 0, (), (_of_a_file(given, facts),))
    of_other = _holds_lists(_OTHER[data_set], given) and not _holds_lists(data_set, given)
    found = None if of_other else _folder_of_lists(data_set, given)
    if found is None:
        return CheckedLists(data_set, given, 0, (), tuple(_why_none(data_set, given, facts)))
    problems = []
    if found != given:
        where = "below it" if given in found.parents else "beside it" if found.parent == given.parent else "above it"
        problems.append(ListProblem("folder", f"{str(given)!r} holds no list, but a folder {where} does: use {str(found)!r}"))
    check = _check_ucf101 if data_set == "ucf101" else _check_hmdb51
    classes, splits, lists = check(found, facts, problems)
    return CheckedLists(data_set, found, len(classes), splits, tuple(problems), lists)


# -- where the lists are -----------------------------------------------------------------------------------------------------------


def _of_a_file(path: Path, facts: DataSet) -> ListProblem:
    if path.name.lower().endswith(ARCHIVES):
        return ListProblem("archive", f"{str(path)!r} is an archive that has not been unpacked: `{unpack_command(path)}`")
    return ListProblem("folder", f"{str(path)!r} is a file: give the folder of the lists, {str(path.parent)!r} or {facts.folder!r}")


def unpack_command(path: Path, into: Path | None = None, *, all_alike: bool = False) -> str:
    """Return the command that unpacks an archive, or all of its folder that have its suffix, beside it or into another folder."""
    source = '"$part"' if all_alike else shlex.quote(str(path))
    target = shlex.quote(f"{into or path.parent}{os.sep}")
    command = {
        ".zip": f"unzip {source} -d {target}",
        ".rar": f"unrar x {source} {target}",
        ".7z": f"7z x {source} -o{target}",
    }.get(path.suffix.lower(), f"tar xf {source} -C {target}")
    return f"for part in {shlex.quote(str(path.parent))}/*{path.suffix}; do {command}; done" if all_alike else command


def _holds_lists(data_set: str, folder: Path) -> bool:
    try:
        return any(_IS_LIST[data_set].fullmatch(name) for name in os.listdir(folder))
    except OSError:
        return False


def _folder_of_lists(data_set: str, given: Path) -> Path | None:
    """Return the folder that holds lists: the given one, or one below it, or its parent, or one beside it; the nearest."""
    if _holds_lists(data_set, given):
        return given
    below = next((folder for folder in _below(given) if _holds_lists(data_set, folder)), None)
    if below is not None:
        return below
    parent = parent_of(given)
    around = [parent, *(path for path in _subfolders(parent) if path != given)] if given.is_dir() else []
    return next((folder for folder in around if _holds_lists(data_set, folder)), None)


def _below(folder: Path) -> Iterator[Path]:
    """Yield the folders below one, the nearest first."""
    level, num_seen = [folder], 0
    for _ in range(_DEPTH):
        level = [path for upper in level for path in _subfolders(upper)]
        for path in level:
            num_seen += 1
            if num_seen > _MOST_FOLDERS:
                return
            yield path


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))
    except OSError:
        return []


def _why_none(data_set: str, given: Path, facts: DataSet) -> Iterator[ListProblem]:
    """Yield why there are no lists: archives lie there, or the lists of the other data set, or nothing of the kind."""
    other = _OTHER[data_set]
    archives = sorted(path for path in (given.iterdir() if given.is_dir() else ()) if path.name.lower().endswith(ARCHIVES))
    lists = [path for path in archives if "split" in path.name.lower() or "list" in path.name.lower()]
    if _holds_lists(other, given):
        command = f"flowkit lists {other} {shlex.quote(str(given))}"
        yield ListProblem("folder", f"{str(given)!r} holds the lists of {DATA_SETS[other].name}: check them with `{command}`")
    elif archives:
        for path in lists or archives[:_MOST_NAMED]:
            yield ListProblem("archive", f"{str(path)!r} has not been unpacked: `{unpack_command(path)}`")
    else:
        made = f"the lists are in {facts.archive}, which makes a folder {facts.folder!r}"
        yield ListProblem("missing", f"{str(given)!r} holds no list of {facts.name}; {made}")


# -- UCF101 ------------------------------------------------------------------------------------------------------------------------

Found = tuple[tuple[str, ...], tuple[CheckedSplit, ...], tuple[SplitLists, ...]]


def _check_ucf101(folder: Path, facts: DataSet, problems: list[ListProblem]) -> Found:
    names = {name.lower(): name for name in sorted(os.listdir(folder))}
    listed: Sequence[str] = ()
    if "classInd.txt" in names.values():
        path = folder / "classInd.txt"
        listed = _read(path, problems, read_class_names) or ()
        problems += _class_problems(str(path), listed, facts.classes) if listed else ()
        order, official_order = ([comparable_name(name) for name in classes] for classes in (listed, facts.classes))
        if sorted(order) == sorted(official_order) and order != official_order:
            problems.append(ListProblem("classes", f"{path} numbers the classes in another order than UCF101 does, so labels would differ"))
    else:
        problems.append(_missing(folder, "classInd.txt", names, facts))
    classes = listed or facts.classes
    splits, lists = [], []
    for number, official in enumerate(facts.num_videos, start=1):
        halves: list[tuple[ListEntry, ...]] = []
        for half, expected in zip(("train", "test"), official, strict=True):
            spellings = (f"{half}list{number:02d}.txt", f"{half}list{number}.txt")
            name = next((name for name in spellings if name in names.values()), None)
            if name is None:
                problems.append(_missing(folder, spellings[0], names, facts))
                halves.append(())
                continue
            halves.append(_read(folder / name, problems, partial(read_ucf101_list, classes=classes, subset=half)) or ())
            problems += _number_problem(folder / name, len(halves[-1]), expected)
        splits.append(CheckedSplit(number, len(halves[0]), len(halves[1]), *official))
        lists.append(SplitLists("ucf101", tuple(classes), halves[0], halves[1]))
        problems += _split_problems(lists[-1], number, official, facts)
    return tuple(listed), tuple(splits), tuple(lists)


# -- HMDB51 ------------------------------------------------------------------------------------------------------------------------


def _check_hmdb51(folder: Path, facts: DataSet, problems: list[ListProblem]) -> Found:
    splits, lists = [], []
    all_classes: set[str] = set()
    for number, official in enumerate(facts.num_videos, start=1):
        files = hmdb51_files(folder, number)
        all_classes |= set(files)
        if files:
            problems += _class_problems(f"split {number} in {str(folder)!r}", list(files), facts.classes, files=f"_test_split{number}.txt")
        else:
            name = f"<class>_test_split{number}.txt"
            problems.append(ListProblem("missing", f"{str(folder)!r} has no list of split {number} ({name}): unpack {facts.archive} again"))
        codes: dict[str, list[ListEntry]] = {code: [] for code in HMDB51_CODES}
        for class_name, path in files.items():
            found = _read(path, problems, partial(read_hmdb51_list, class_name=class_name)) or {}
            for code, entries in found.items():
                codes[code] += entries
            counts = tuple(len(found.get(code, ())) for code in ("1", "2"))
            if found and counts != HMDB51_PER_CLASS and class_name in facts.classes:
                has, due = (f"{train} training and {test} test videos" for train, test in (counts, HMDB51_PER_CLASS))
                problems.append(ListProblem("number", f"{path} has {has}, and the official list {due}"))
        splits.append(CheckedSplit(number, len(codes["1"]), len(codes["2"]), *official))
        lists.append(SplitLists("hmdb51", tuple(sorted(files)), tuple(codes["1"]), tuple(codes["2"]), tuple(codes["0"])))
        problems += _split_problems(lists[-1], number, official, facts)
    return tuple(sorted(all_classes)), tuple(splits), tuple(lists)


# -- what both have ----------------------------------------------------------------------------------------------------------------


def _missing(folder: Path, name: str, names: dict[str, str], facts: DataSet) -> ListProblem:
    other = names.get(name.lower())
    if other is not None:
        return ListProblem("missing", f"{str(folder)!r} has {other!r} instead of {name!r}: rename it")
    return ListProblem("missing", f"{str(folder)!r} lacks {name!r}: unpack {facts.archive} again")


def _read(path: Path, problems: list[ListProblem], read: Callable[..., Read]) -> Read | None:
    """Read a list with the faults of its lines as problems; return None if it cannot be read at all."""
    faults: list[str] = []
    try:
        text = read_text(path)
        if foreign := _what_it_is(text):
            problems.append(ListProblem("damaged", f"{path} {foreign}: download it again"))
            return None
        entries = read(path, on_fault=faults.append)
    except ManifestError as error:
        problems.append(ListProblem("damaged", str(error)))
        return None
    problems += [ListProblem("damaged", fault) for fault in faults[:_MOST_LINES]]
    if len(faults) > _MOST_LINES:
        problems.append(ListProblem("damaged", f"{path}: {counted(len(faults) - _MOST_LINES, 'more line')} like these"))
    return entries


def _what_it_is(text: str) -> str:
    """Return what a text is if it is no list."""
    start = text.lstrip()[:200].lower()
    if not start:
        return "is empty"
    if start.startswith(("<!doctype", "<html", "<?xml")):
        return "is a web page and no list"
    return "is a pointer of Git LFS and no list" if start.startswith("version https://git-lfs") else ""


def _class_problems(where: str, classes: Sequence[str], official: Sequence[str], *, files: str = "") -> Iterator[ListProblem]:
    """Yield the classes that are missing, and those that the data set does not have."""
    known, there = ({comparable_name(name): name for name in names} for names in (official, classes))
    lacking = [known[name] + files for name in known if name not in there]
    unknown = [there[name] + files for name in there if name not in known]
    if lacking:
        what = counted(len(lacking), "list" if files else "class")
        yield ListProblem("missing" if files else "classes", f"{where} lacks {what}: {first_few(lacking, most=_MOST_NAMED)}")
    if unknown:
        what = f"{counted(len(unknown), 'class')} that the data set does not have"
        yield ListProblem("classes", f"{where} has {what}: {first_few(unknown, most=_MOST_NAMED)}")


def _number_problem(path: Path, number: int, official: int) -> Iterator[ListProblem]:
    if number and number != official:
        yield ListProblem("number", f"{path} has {counted(number, 'video')}, and the official list {official:,}")


def _split_problems(lists: SplitLists, number: int, official: tuple[int, int], facts: DataSet) -> Iterator[ListProblem]:
    """Yield videos that a split names twice; if its numbers are those of the official lists, whether its videos are too."""
    names = Counter(comparable_name(entry.video_id) for entry in (*lists.train, *lists.test))
    twice = sorted(name for name, count in names.items() if count > 1)
    if twice:
        yield ListProblem("twice", f"split {number} names {counted(len(twice), 'video')} twice: {first_few(twice, most=_MOST_NAMED)}")
    elif (len(lists.train), len(lists.test)) == official and names_digest(lists.train, lists.test) != facts.digests[number - 1]:
        yield ListProblem("names", f"split {number} names other videos than the official lists of {facts.name}")
