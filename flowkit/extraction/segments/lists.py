"""Lists of segments: CSV files with a video, a start and an end, in seconds or in frames, and perhaps a class in each row."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from flowkit.dataset.lists.entries import MAX_ENTRIES, MAX_LIST_BYTES
from flowkit.dataset.lists.tables import delimiter_of, field_names
from flowkit.errors import ManifestError
from flowkit.files import read_file

FORM = (
    "a list of segments is a CSV file with the columns video_id, then start_seconds,end_seconds or start_frame,end_frame, and perhaps "
    "class_name"
)
_UNITS = ("seconds", "frame")
_SECONDS, _FRAME = re.compile(r"\d{1,9}(\.\d{1,12})?"), re.compile(r"\d{1,9}")
_MAX_CLASS_BYTES = 1024
_MOST_FAULTS = 100  # that one error names


@dataclass(frozen=True)
class ListedSegment:
    """A row of a list of segments.

    Parameters
    ----------
    line : int
        Where it stands in the file, from 1.
    name : str
        The video, as the list spells its name.
    start, end : Fraction
        The range, without its end: in s from the first frame of the video, or numbers of frames.
    in_seconds : bool
        Which of the two.
    class_name : str
        The class; empty if the list names none.
    """

    line: int
    name: str
    start: Fraction
    end: Fraction
    in_seconds: bool
    class_name: str


def read_segment_list(path: Path) -> tuple[list[ListedSegment], dict[int, str]]:
    """Read a list of segments.

    Parameters
    ----------
    path : Path
        The file: UTF-8, with fields that are separated by commas, semicolons or tabs. Other columns are not read.

    Returns
    -------
    segments : list of ListedSegment
        The rows that can be understood.
    faults : dict of int to str
        What is wrong with the others, by line.

    Raises
    ------
    ManifestError
        If the file cannot be read, its first line does not name the columns, or it has no row.
    """
    try:
        text = read_file(path, most_bytes=MAX_LIST_BYTES).decode("utf-8-sig")
    except OSError as cause:
        raise ManifestError(f"cannot read the list of segments {str(path)!r}: {cause.strerror}") from cause
    except UnicodeDecodeError as cause:
        raise ManifestError(f"{str(path)!r} is not UTF-8 text: {FORM}") from cause
    first_line = re.split(r"[\r\n]", text, maxsplit=1)[0]
    delimiter = delimiter_of(first_line)
    names = field_names(first_line, delimiter)
    unit = _unit(path, names)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    segments, faults = [], {}
    try:
        next(reader)
        for number, fields in enumerate(reader, start=1):
            if number > MAX_ENTRIES:
                raise ManifestError(f"{str(path)!r} has more than {MAX_ENTRIES} rows, more than a list of segments may have")
            if not any(map(str.strip, fields)):
                continue
            row = {name: field.strip() for name, field in zip(names, fields, strict=False)}
            try:
                segments.append(_segment(reader.line_num, row, unit))
            except ManifestError as error:
                faults[reader.line_num] = str(error)
    except csv.Error as cause:
        raise ManifestError(f"{str(path)!r}, line {reader.line_num}: not valid CSV ({cause})") from cause
    if not segments and not faults:
        raise ManifestError(f"{str(path)!r} lists no segment: {FORM}")
    return segments, faults


def faults_text(path: Path, faults: dict[int, str]) -> str:
    """Return one message for everything that is wrong with a list, by line."""
    lines = [f"line {line}: {fault}" for line, fault in sorted(faults.items())]
    more = f"; and {len(lines) - _MOST_FAULTS} more" if len(lines) > _MOST_FAULTS else ""
    return f"the list of segments {str(path)!r} has mistakes, so nothing was extracted: {'; '.join(lines[:_MOST_FAULTS])}{more}"


def _unit(path: Path, names: list[str]) -> str:
    """Return in what the list gives its ranges: ``seconds`` or ``frame``."""
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise ManifestError(f"{str(path)!r} names the column {twice} twice in its first line; remove one of them")
    units = [unit for unit in _UNITS if {f"start_{unit}", f"end_{unit}"} & {*names}]
    if len(units) == 2:
        raise ManifestError(f"{str(path)!r} has ranges both in seconds and in frames; remove the columns of one of them")
    missing = [name for name in ("video_id", *(f"{end}_{unit}" for unit in units for end in ("start", "end"))) if name not in names]
    if missing or not units:
        lacks = ", ".join(missing) or "those of a range"
        raise ManifestError(f"the first line of {str(path)!r} lacks columns: {lacks}; {FORM}")
    return units[0]


def _segment(line: int, row: dict[str, str], unit: str) -> ListedSegment:
    """Return a row of the list; `ManifestError` says what is wrong with it."""
    name, class_name = row.get("video_id", ""), row.get("class_name", "")
    if not name:
        raise ManifestError("names no video")
    ends = []
    for end in ("start", "end"):
        column = f"{end}_{unit}"
        text = row.get(column, "")
        if not (_SECONDS if unit == "seconds" else _FRAME).fullmatch(text):
            kind = "a number of seconds such as 12.5" if unit == "seconds" else "the number of a frame"
            raise ManifestError(f"{column} must be {kind}, got {text[:80]!r}")
        ends.append(Fraction(text))
    if ends[0] >= ends[1]:
        raise ManifestError(f"the segment is empty: it ends at {row[f'end_{unit}']} and begins at {row[f'start_{unit}']}")
    if len(class_name.encode()) > _MAX_CLASS_BYTES or not class_name.isprintable():
        raise ManifestError(f"{class_name[:80]!r} cannot be the name of a class")
    return ListedSegment(line, name, ends[0], ends[1], unit == "seconds", class_name)
