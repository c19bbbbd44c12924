"""Read lists with numbered labels: mmaction2's and TSN's annotation files, which `flowkit export` writes too, and 3D-ResNets' JSON."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

from flowkit.dataset.lists.entries import (
    ListEntry,
    SplitLists,
    divide,
    last_number,
    lines_of,
    name_in_list,
    read_text,
    subset_of_row,
)
from flowkit.errors import ManifestError
from flowkit.video.folders import Subset
from flowkit.video.ids import without_suffix

MAX_JSON_BYTES = 2**27
MAX_LABEL = 100_000

# Files beside the lists, or in the folder `annotations` there, that name the classes, one a line.
_CLASS_NAMES = re.compile(r"classes\.txt|classInd\.txt|labels\.txt|category\.txt|label_map.*\.txt", re.IGNORECASE)


def is_annotation(first_line: str) -> bool:
    """Return whether a text begins as an annotation file: with a name and a number."""
    return last_number(first_line.strip())[1] is not None


def read_annotations(files: Mapping[Subset, Path]) -> SplitLists:
    """Read one split from an annotation file of each subset.

    Parameters
    ----------
    files : mapping of str to Path
        Text files with a row ``<path of a video> <label>`` or ``<folder of images> <number of images> <label>`` per video, labels
        from 0. The names of the classes come from ``classes.txt``, ``classInd.txt``, ``label_map*.txt``, ``labels.txt`` or
        ``category.txt`` beside them; without such a file from the folders of the videos, if each label has one folder of its own;
        else they are the numbers.

    Raises
    ------
    ManifestError
        If a row cannot be understood; names file and line.
    """
    rows = {subset: _rows(path) for subset, path in files.items()}
    largest = max((label for half in rows.values() for _, _, label in half), default=0)
    names = _class_names(next(iter(files.values())).parent) or _folders_of_labels(rows) or [str(label) for label in range(largest + 1)]
    for subset, half in rows.items():
        for where, _, label in half:
            if label >= len(names):
                raise ManifestError(f"{where}: label {label}, but only {len(names)} classes have a name; is {files[subset].name} 0-based?")
    entries = {subset: [_entry(name, names[label]) for _, name, label in half] for subset, half in rows.items()}
    return divide("mmaction2", entries, classes=names)


def _entry(name: str, class_name: str) -> ListEntry:
    """Return an entry; `flowkit export` writes white space in names as ``%20``."""
    return ListEntry(name, class_name, also=(unquote(name),) if "%" in name else ())


def _rows(path: Path) -> list[tuple[str, str, int]]:
    """Return the place, the name and the label of each row."""
    rows = []
    for where, line in lines_of(path):
        name, label = last_number(line)
        if label is None or label > MAX_LABEL:
            raise ManifestError(f"{where}: expected '<video> <label>' or '<folder> <number of images> <label>', got {line!r}")
        rows.append((where, name, label))
    without_count = [last_number(name) for _, name, _ in rows]
    counted = all(count is not None and without_suffix(name) == name for name, count in without_count)
    names = [name for name, _ in without_count] if counted else [name for _, name, _ in rows]
    return [(where, name_in_list(name, where, absolute=True), label) for (where, _, label), name in zip(rows, names, strict=True)]


def _folders_of_labels(rows: Mapping[Subset, Sequence[tuple[str, str, int]]]) -> list[str]:
    """Return the folder of each label's videos, in order of label; empty if they are not one to one, or a label is missing."""
    folders: dict[int, set[str]] = defaultdict(set)
    for half in rows.values():
        for _, name, label in half:
            folders[label].add(name.rpartition("/")[0].rpartition("/")[2])
    names = [next(iter(folders[label])) for label in sorted(folders)]
    one_to_one = all(len(found) == 1 for found in folders.values()) and len(set(names)) == len(names) and all(names)
    return names if one_to_one and sorted(folders) == list(range(len(folders))) else []


def _class_names(folder: Path) -> list[str]:
    """Return the names of the classes, in order of label, from a file beside the lists; empty if there is none."""
    for place in (folder, folder / "annotations"):
        files = sorted(path for path in place.glob("*.txt") if _CLASS_NAMES.fullmatch(path.name)) if place.is_dir() else []
        found = {path: _names_in(path) for path in files}
        different = [path for path in files if found[path] != found[files[0]]]
        if different:
            raise ManifestError(f"{files[0]} and {different[0]} name different classes; remove the one that these lists do not use")
        if files:
            return found[files[0]]
    return []


def _names_in(path: Path) -> list[str]:
    """Read names of classes, one a line, with or without their numbers from 0 or 1 before them."""
    lines = [line for _, line in lines_of(path)]
    fields = [line.partition(" ")[::2] for line in lines]
    for first in (0, 1):
        if lines and all(number == str(k) and name.strip() for k, (number, name) in enumerate(fields, start=first)):
            lines = [name.strip() for _, name in fields]
    if len(set(lines)) < len(lines):
        raise ManifestError(f"{path} names a class twice")
    return lines


def read_json(path: Path) -> SplitLists:
    """Read one split from a JSON file of 3D-ResNets.

    Notes
    -----
    It holds ``{"labels": [...], "database": {id: {"subset": "training", "annotations": {"label": ...}}}}``.

    Raises
    ------
    ManifestError
        If the file is too large or too deep, or an entry cannot be understood; names it. Entries without a label, as in the test
        sets of competitions, are left out.
    """
    try:
        record = json.loads(read_text(path, most_bytes=MAX_JSON_BYTES))
    except (ValueError, RecursionError) as cause:
        raise ManifestError(f"{path} is not valid JSON ({cause})") from cause
    database = record.get("database") if isinstance(record, dict) else None
    if not isinstance(record, dict) or not isinstance(database, dict) or not database:
        raise ManifestError(f'{path} is no split list: expected {{"labels": [...], "database": {{...}}}} as 3D-ResNets writes it')
    classes = record.get("labels")
    if classes is not None and (not isinstance(classes, list) or not all(isinstance(name, str) and name for name in classes)):
        raise ManifestError(f"{path}: labels must be a list of names")
    known = frozenset(classes or ())
    if classes is not None and len(known) < len(classes):
        raise ManifestError(f"{path} names a class twice")
    subsets: dict[Subset, list[ListEntry]] = {"train": [], "val": [], "test": []}
    for name, video in database.items():
        where = f"{path}, entry {name[:100]!r}"
        annotations = video.get("annotations") if isinstance(video, dict) else None
        if not isinstance(video, dict) or not isinstance(video.get("subset"), str) or not isinstance(annotations, dict):
            raise ManifestError(f"{where}: expected a subset, and annotations with one label")
        label = annotations.get("label")
        if label is None:
            continue
        if not isinstance(label, str) or not label or (classes is not None and label not in known):
            raise ManifestError(f"{where}: its label {label!r} is not among the labels of the file")
        subsets[subset_of_row(video["subset"], where)].append(ListEntry(name_in_list(name, where), label))
    return divide("3d-resnets", subsets, classes=classes)
