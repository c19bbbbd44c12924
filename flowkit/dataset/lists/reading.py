"""Read split lists in whatever form they are published.

A list names videos, whether they exist or not; `flowkit.dataset.lists.matching` finds those that exist.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from flowkit.dataset.lists.annotations import is_annotation, read_annotations, read_json
from flowkit.dataset.lists.entries import SplitLists, check_unique, lines_of
from flowkit.dataset.lists.official import read_official, split_numbers
from flowkit.dataset.lists.something import is_id_and_class, is_something_json, read_somethings
from flowkit.dataset.lists.tables import CSV_COLUMNS, is_table, read_tables
from flowkit.errors import ManifestError
from flowkit.file_versions import FileVersion, versions_in
from flowkit.video.folders import SUBSET_OF_NAME, Subset
from flowkit.video.ids import first_few, without_suffix

FORMS = (
    f"a CSV file with the columns {','.join(CSV_COLUMNS)}, a JSON file of 3D-ResNets, or a folder with classInd.txt and trainlist01.txt "
    "(UCF101), <class>_test_split1.txt (HMDB51), train.csv and val.csv (Kinetics), the lists of Something-Something, or annotation files "
    "of mmaction2"
)

# The subset that a file of a folder holds is a word of its name, and the split a number after "split": ucf101_train_split_1_videos.txt.
_SUBSET = re.compile(rf"(?<![a-z0-9])({'|'.join(sorted(SUBSET_OF_NAME, key=len, reverse=True))}|validate)(?![a-z0-9])", re.IGNORECASE)
_TEXT_SUFFIXES = (".txt", ".csv", ".tsv")
_NUMBER = re.compile(r"split_?0*(\d{1,9})(?!\d)", re.IGNORECASE)
_JSON_NUMBER = re.compile(r".*?0*(\d{1,9})\.json", re.IGNORECASE)


@dataclass(frozen=True)
class _Family:
    """Files of a folder whose names differ only in the subset; together they are one split."""

    pattern: str
    number: int | None  # of the split, if the names have one
    files: dict[Subset, Path]

    @property
    def is_whole(self) -> bool:
        """Whether there is something to train on and something to test on."""
        return "train" in self.files and len(self.files) > 1


def read_lists(path: Path, number: int) -> SplitLists:
    """Read one split from a folder of lists, or from a file.

    Parameters
    ----------
    path : Path
        A folder with UCF101's ``classInd.txt``, ``trainlistNN.txt``, ``testlistNN.txt``; with HMDB51's ``<class>_test_splitN.txt``;
        with annotation files of mmaction2, CSV files of Kinetics, or lists of Something-Something or Jester, one for each subset; or with
        3D-ResNets' ``<name>_NN.json``.
        Or one file: a CSV file, a JSON file, or an annotation file whose counterpart lies beside it.
    number : int
        Which split, from 1. A CSV or JSON file is one split, whatever its number.

    Raises
    ------
    ManifestError
        If there is no such list, or a line of it cannot be understood or contradicts another; names file and line.
    """
    before = _versions(path)
    if path.is_file():
        lists = _read_file(path)
    elif numbers := split_numbers(path):
        if number not in numbers:
            raise ManifestError(f"{str(path)!r} has no lists of split {number}; it has {', '.join(map(str, numbers))}")
        lists = read_official(path, number)
    else:
        lists = _read_folder(path, number)
    if _versions(path) != before:
        raise ManifestError(f"the split lists in {str(path)!r} were changed while they were read; once they are complete, pack again")
    check_unique(lists, path)
    return lists


def _versions(path: Path) -> dict[Path, FileVersion | None]:
    """Return the versions of all files that may be split lists, by which a reader sees that all that it read fits together."""
    if path.is_dir():
        return versions_in([path], wanted=lambda name: name.lower().endswith((*_TEXT_SUFFIXES, ".json")))
    return versions_in([path.parent], wanted=lambda name: name == path.name or _is_half(name))


def _is_half(name: str) -> bool:
    """Return whether a file may hold one subset of a split, by its name."""
    return _SUBSET.search(name) is not None and name.lower().endswith((*_TEXT_SUFFIXES, ".json"))


def _read_file(path: Path) -> SplitLists:
    has_subset_alone = is_something_json(path)
    if path.suffix.lower() == ".json" and not has_subset_alone:
        return read_json(path)
    first_line = "" if has_subset_alone else _first_line(path)
    if not has_subset_alone and (is_table(first_line) or not (is_annotation(first_line) or is_id_and_class(first_line))):
        return read_tables([path])
    family = next((found for found in _families(path.parent) if path in found.files.values()), None)
    if family is None or not family.is_whole:
        raise ManifestError(
            f"{str(path)!r} has one label per video, but no subset: give its name the word train, and put a file beside it whose name "
            "differs only in having val or test instead"
        )
    return _read_family(family)


def _read_folder(folder: Path, number: int) -> SplitLists:
    families = [family for family in _families(folder) if family.is_whole]
    chosen = [family for family in families if family.number in (None, number)]
    documents = sorted(folder.glob("*.json")) if folder.is_dir() else []
    of_number = [path for path in documents if (match := _JSON_NUMBER.fullmatch(path.name)) and int(match[1]) == number]
    if chosen:
        lists = [_read_family(family) for family in chosen]
        for other, family in zip(lists[1:], chosen[1:], strict=True):
            if _videos(other) != _videos(lists[0]):
                raise ManifestError(
                    f"{str(folder)!r} holds lists of different videos, {chosen[0].pattern} and {family.pattern} (* is the subset); "
                    "name one of the files instead of the folder"
                )
        return lists[0]
    if len(of_number) == 1 or (len(documents) == 1 and not families):
        return read_json((of_number or documents)[0])
    if families:
        numbers = sorted({family.number for family in families if family.number is not None})
        raise ManifestError(f"{str(folder)!r} has no lists of split {number}; it has {', '.join(map(str, numbers))}")
    raise ManifestError(f"{str(folder)!r} holds no split lists: name {FORMS}")


def _videos(lists: SplitLists) -> list[set[tuple[str, str]]]:
    """Return the videos of each half, and their classes: the same for lists of videos and of folders of their images."""
    return [{(without_suffix(entry.video_id), entry.class_name) for entry in half} for half in (lists.train, lists.test, lists.unused)]


def _families(folder: Path) -> list[_Family]:
    """Group the text files of a folder by their names without the subset, sorted."""
    files: dict[str, dict[Subset, Path]] = {}
    for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
        match = _SUBSET.search(name)
        if match is None or not _is_half(name) or (name.lower().endswith(".json") and not is_something_json(folder / name)):
            continue
        subset = SUBSET_OF_NAME.get(match[1].lower(), "val")
        other = files.setdefault(name[: match.start()] + "*" + name[match.end() :], {}).setdefault(subset, folder / name)
        if other != folder / name:
            raise ManifestError(
                f"{first_few(map(repr, map(str, (other, folder / name))), last='and')} are lists of the same subset; keep one"
            )
    return [
        _Family(pattern, int(match[1]) if (match := _NUMBER.search(pattern)) else None, found) for pattern, found in sorted(files.items())
    ]


def _read_family(family: _Family) -> SplitLists:
    if any(path.suffix.lower() == ".json" for path in family.files.values()):
        return read_somethings(family.files)
    first_lines = [_first_line(path) for path in family.files.values()]
    if any(map(is_table, first_lines)):
        return read_tables(list(family.files.values()), subset_of={path: subset for subset, path in family.files.items()})
    if any(is_id_and_class(line) and not is_annotation(line) for line in first_lines):
        return read_somethings(family.files)
    return read_annotations(family.files)


def _first_line(path: Path) -> str:
    return next((line for _, line in lines_of(path)), "")
