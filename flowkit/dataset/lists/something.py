"""Read the lists of Something-Something (JSON, version 2; CSV, version 1) and of Jester, which have the form of the latter."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flowkit.dataset.lists.entries import ListEntry, SplitLists, check_row_number, divide, name_in_list, read_text
from flowkit.errors import ManifestError
from flowkit.video.folders import Subset

MAX_JSON_BYTES = 2**27
_HEADERS = ("id", "video", "name", "file", "filename")
_DELIMITERS = ";\t"  # a comma may be part of a class's name


def is_something_json(path: Path) -> bool:
    """Return whether a file holds a JSON list of entries, as Something-Something has one for each subset."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            return path.suffix.lower() == ".json" and re.match(r"\s*\[\s*\{", file.read(4096)) is not None
    except (OSError, UnicodeDecodeError):
        return False


def is_id_and_class(first_line: str) -> bool:
    """Return whether a text begins as a table without names of columns: with a video and its class, divided by a semicolon or tab."""
    delimiter = _delimiter(first_line)
    fields = first_line.split(delimiter)
    return len(fields) == 2 and bool(fields[0].strip()) and any(c.isalpha() for c in fields[1])


def read_somethings(files: Mapping[Subset, Path]) -> SplitLists:
    """Read one split from a file for each subset.

    Parameters
    ----------
    files : mapping of str to Path
        JSON files with a list of ``{"id": "78687", "template": "Holding [something]", ...}``, of which the template without brackets is
        the class, or with ``label`` in its place; or text files with a row ``<video>;<class>`` for each video. Videos without a class, as
        in test sets, are left out. The order of the classes comes from a file beside them whose name has ``labels`` in place of the
        subset; without it they are sorted by code point.

    Raises
    ------
    ManifestError
        If a row or an entry cannot be understood; names the file and where in it.
    """
    subsets: dict[Subset, list[ListEntry]] = {}
    for subset, path in files.items():
        rows = _json_rows(path) if path.suffix.lower() == ".json" else _table_rows(path)
        subsets[subset] = [ListEntry(name_in_list(name, where), class_name) for where, name, class_name in rows if class_name]
    classes = _classes(files)
    if classes is not None:
        known = frozenset(classes)
        unknown = next((entry for entries in subsets.values() for entry in entries if entry.class_name not in known), None)
        if unknown is not None:
            raise ManifestError(f"the class {unknown.class_name!r} of {unknown.video_id!r} is not in the list of labels beside the lists")
    return divide("something-something", subsets, classes=classes)


def _json_rows(path: Path) -> Iterator[tuple[str, str, str]]:
    record = _json(path)
    if not isinstance(record, list):
        raise ManifestError(f'{path} is no list as Something-Something has it: [{{"id": "78687", "template": "Holding [something]"}}, ...]')
    for number, video in enumerate(record, start=1):
        check_row_number(number, path)
        where = f"{path}, entry {number}"
        name = video.get("id") if isinstance(video, dict) else None
        if not isinstance(name, (str, int)) or isinstance(name, bool):
            raise ManifestError(f"{where}: expected an id, and a template or label, got {str(video)[:100]!r}")
        class_name = video.get("template", video.get("label", ""))
        if not isinstance(class_name, str):
            raise ManifestError(f"{where}: its template must be a text, got {str(class_name)[:100]!r}")
        yield where, str(name), class_name.replace("[", "").replace("]", "").strip()


def _table_rows(path: Path) -> Iterator[tuple[str, str, str]]:
    text = read_text(path)
    delimiter = _delimiter(text.partition("\n")[0])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=csv.QUOTE_NONE)
    try:
        for number, row in enumerate(reader, start=1):
            check_row_number(number, path)
            if len(row) > 2:
                raise ManifestError(f"{path}, line {number}: expected <video>{delimiter}<class>, got {len(row)} fields")
            if row and not (number == 1 and row[0].strip().lower() in _HEADERS):
                yield f"{path}, line {number}", row[0].strip(), row[1].strip().strip('"') if len(row) > 1 else ""
    except csv.Error as cause:
        raise ManifestError(f"{path}: not a table ({cause})") from cause


def _classes(files: Mapping[Subset, Path]) -> list[str] | None:
    """Return the classes in their order, from the file of labels beside the lists; None if there is none."""
    path = next(iter(files.values()))
    ending = f"labels{path.suffix.lower()}"
    for place in sorted(path.parent.iterdir()):
        name = place.name.lower()
        if name.endswith(ending) and path.name.lower().startswith(name.removesuffix(ending)):
            return _labels(place)
    return None


def _labels(path: Path) -> list[str]:
    """Read a file of labels: JSON ``{"<class>": "<number>"}``, or a class a line."""
    if path.suffix.lower() != ".json":
        names = [line.strip().strip('"') for line in read_text(path).splitlines() if line.strip()]
    else:
        record = _json(path)
        try:
            numbers = {name: int(number) for name, number in record.items()}
        except (AttributeError, TypeError, ValueError) as cause:
            raise ManifestError(f'{path}: expected {{"<class>": "<number>", ...}}') from cause
        if sorted(numbers.values()) != list(range(len(numbers))):
            raise ManifestError(f"{path}: the numbers of the classes are not 0 to {len(numbers) - 1}, each once")
        names = sorted(numbers, key=lambda name: numbers[name])
    if len(set(names)) < len(names) or not names:
        raise ManifestError(f"{path} names a class twice, or none")
    return names


def _json(path: Path) -> Any:
    try:
        return json.loads(read_text(path, most_bytes=MAX_JSON_BYTES))
    except (ValueError, RecursionError) as cause:
        raise ManifestError(f"{path} is not valid JSON ({cause})") from cause


def _delimiter(first_line: str) -> str:
    return max(_DELIMITERS, key=first_line.count)
