"""Read split lists that are tables: CSV files of flowkit's own columns, and those in which Kinetics is published."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flowkit.dataset.lists.entries import ListEntry, SplitLists, check_row_number, divide, name_in_list, read_text, subset_of_row
from flowkit.errors import ManifestError
from flowkit.video.folders import Subset

CSV_COLUMNS = ("video_id", "class_name", "subset")
_KINETICS_COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
_SECONDS = re.compile(r"(\d{1,6})(\.0*)?")


def is_table(first_line: str) -> bool:
    """Return whether a text begins as a table that this module reads: with the name of at least one column of a video."""
    fields = field_names(first_line, delimiter_of(first_line))
    return "video_id" in fields or "youtube_id" in fields


def read_tables(paths: Sequence[Path], *, subset_of: Mapping[Path, Subset] | None = None) -> SplitLists:
    """Read one split from a CSV file, or from several that hold its subsets.

    Parameters
    ----------
    paths : sequence of Path
        Files with the columns ``video_id,class_name,subset`` or ``label,youtube_id,time_start,time_end,split``, in any order,
        beside others, separated by commas, semicolons or tabs. Rows without a label, as in the test set of Kinetics, are left out.
    subset_of : mapping of Path to str, optional
        The subset that the name of each file gives, for files without a column that does.

    Raises
    ------
    ManifestError
        If a row cannot be understood; names file and line.
    """
    subsets: dict[Subset, list[ListEntry]] = {"train": [], "val": [], "test": []}
    protocol = "csv"
    for path in paths:
        subset = (subset_of or {}).get(path)
        columns, rows = _rows(path, subset)
        if columns == _KINETICS_COLUMNS:
            protocol = "kinetics"
        for where, row in rows:
            named = row[columns[-1]]
            row_subset = subset if subset is not None and not named else subset_of_row(named, where)
            if columns == _KINETICS_COLUMNS and not row["label"] and row_subset == "test":
                continue
            entry = _kinetics_entry(row, where) if columns == _KINETICS_COLUMNS else _own_entry(row, where)
            subsets[row_subset].append(entry)
    return divide(protocol, subsets)


def _own_entry(row: Mapping[str, str], where: str) -> ListEntry:
    class_name = row["class_name"].strip()  # some write a space behind each comma
    if not class_name:
        raise ManifestError(f"{where}: needs a class_name, got {row['class_name']!r}")
    return ListEntry(name_in_list(row["video_id"], where), class_name)


def _kinetics_entry(row: Mapping[str, str], where: str) -> ListEntry:
    """Return a row of Kinetics: its usual downloaders name files ``<id>_000010_000020``, others just ``<id>``."""
    seconds = [_SECONDS.fullmatch(row[name].strip()) for name in ("time_start", "time_end")]
    if not row["label"] or None in seconds:
        raise ManifestError(
            f"{where}: needs a label, and time_start and time_end in whole seconds; "
            f"got {row['label']!r}, {row['time_start']!r} and {row['time_end']!r}"
        )
    youtube_id = name_in_list(row["youtube_id"], where)
    start, end = (int(match[1]) for match in seconds if match is not None)
    return ListEntry(f"{youtube_id}_{start:06d}_{end:06d}", row["label"], also=(youtube_id,))


def _rows(path: Path, subset: Subset | None) -> tuple[tuple[str, ...], Iterator[tuple[str, dict[str, str]]]]:
    """Return the columns that a file has of those that are read, and its rows with their places."""
    text = read_text(path)
    first_line = re.split(r"[\r\n]", text, maxsplit=1)[0]
    delimiter = delimiter_of(first_line)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names = field_names(first_line, delimiter)
    columns = _KINETICS_COLUMNS if "youtube_id" in names else CSV_COLUMNS
    optional = set() if subset is None else {columns[-1], "label"} if subset == "test" else {columns[-1]}
    missing = [column for column in columns if column not in names and column not in optional]
    if missing:
        raise ManifestError(f"{path}: its first line must name the columns {','.join(columns)}; missing: {', '.join(missing)}")
    twice = [column for column in columns if names.count(column) > 1]
    if twice:
        raise ManifestError(f"{path}: its first line names the column {twice[0]} twice; remove one of them")
    place = {column: names.index(column) for column in columns if column in names}
    num_columns = len(names)

    def parse(row: list[str], where: str) -> dict[str, str]:
        if any(row[num_columns:]):
            raise ManifestError(
                f"{where}: has {len(row)} fields, the first line {num_columns}; write a field that contains {delimiter!r} in quotes"
            )
        return dict.fromkeys(columns, "") | {column: row[k] if k < len(row) else "" for column, k in place.items()}

    return columns, _parsed(reader, path, parse)


def _parsed(reader: Any, path: Path, parse: Callable[[list[str], str], dict[str, str]]) -> Iterator[tuple[str, dict[str, str]]]:
    try:
        next(reader, None)
        for number, row in enumerate(reader, start=1):
            check_row_number(number, path)
            if row:
                where = f"{path}, line {reader.line_num}"
                yield where, parse(row, where)
    except csv.Error as cause:
        raise ManifestError(f"{path}, line {reader.line_num}: not valid CSV ({cause})") from cause


def delimiter_of(first_line: str) -> str:
    """Return the separator of the fields: spreadsheets of some languages write semicolons."""
    return max(",;\t", key=first_line.count)


def field_names(first_line: str, delimiter: str) -> list[str]:
    """Return the names of the columns of a table, in lower case, from its first line."""
    return [name.strip().strip('"').lower() for name in first_line.strip("\r\n").split(delimiter)]
