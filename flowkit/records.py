"""JSON records: each file of JSON that flowkit stores is declared here as a `RecordFormat` and read through it.

A record is foreign data until it has passed these checks: its size is bounded, its text is UTF-8, it holds one JSON object,
and that object names the format and the version that are expected.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowkit.errors import FlowkitError
from flowkit.files import read_file

MAX_RECORD_BYTES = 1 << 28
MAX_DEPTH = 64  # of objects and lists within each other; flowkit's own files have at most 6


_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_sha256(value: object) -> bool:
    """Return whether a value of a record is a SHA-256 in hexadecimal."""
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


@dataclass(frozen=True)
class RecordFormat:
    """The format of a JSON file: its name and version, and how flowkit refuses a file that is not of this format.

    Parameters
    ----------
    name : str
        The value of the key ``format``.
    version : int
        The value of the key ``format_version``.
    error : type of FlowkitError
        The class of the error that `read` and `parse` raise.
    remedy : str
        What the user should do about a file that cannot be read, in the imperative: ``pack the split again``.
    max_bytes : int
        Larger files are refused unread.
    """

    name: str
    version: int
    error: type[FlowkitError]
    remedy: str
    max_bytes: int = MAX_RECORD_BYTES

    @property
    def header(self) -> dict[str, Any]:
        """The keys with which a record of this format begins."""
        return {"format": self.name, "format_version": self.version}

    def read(self, path: Path) -> dict[str, Any]:
        """Read a record.

        Returns
        -------
        dict
            All that the file holds, including the keys of `header`. Where a key stands twice, its last value counts.

        Raises
        ------
        FlowkitError
            Of the class `error`, if the file is missing, too large, not a JSON object in UTF-8, or of another format or version.
        """
        return self.parse(self.read_bytes(path), path)

    def read_if_present(self, path: Path) -> dict[str, Any] | None:
        """Read a record as `read` does; return None if there is no such file."""
        try:
            data = read_file(path, most_bytes=self.max_bytes)
        except FileNotFoundError:
            return None
        except OSError as cause:
            raise self._unreadable(path, cause) from cause
        return self.parse(data, path)

    def read_bytes(self, path: Path) -> bytes:
        """Read the bytes of a record, or of a file that belongs to it, with the same bound and the same error."""
        try:
            return read_file(path, most_bytes=self.max_bytes)
        except OSError as cause:
            raise self._unreadable(path, cause) from cause

    def parse(self, data: bytes, path: Path) -> dict[str, Any]:
        """Return the record that bytes hold; `path` is named in errors. See `read`."""
        try:
            record = parse_json(data.decode("utf-8"))
        except ValueError as cause:
            raise self.error(f"{path} is not valid JSON ({cause}); {self.remedy}") from cause
        if not isinstance(record, dict):
            raise self.error(f"{path} must hold a JSON object, got {type(record).__name__}; {self.remedy}")
        name, version = record.get("format"), record.get("format_version")
        if name != self.name:
            raise self.error(f"{path} is not a {self.name} file (its format is {_short(name)}); {self.remedy}")
        if type(version) is not int or version != self.version:
            raise self.error(
                f"{path} has format version {_short(version)}, but this flowkit reads version {self.version}; "
                f"use the flowkit that wrote it, or else {self.remedy}"
            )
        return record

    def _unreadable(self, path: Path, cause: OSError) -> FlowkitError:
        return self.error(f"cannot read {path}: {cause.strerror}")


def parse_json(text: str | bytes) -> Any:
    """Return the value that a foreign JSON text stands for; `ValueError` if it is not JSON or nested too deeply to be worked with.

    Examples
    --------
    >>> from flowkit.records import parse_json
    >>> parse_json('{"a": [1, 2]}')
    {'a': [1, 2]}
    >>> parse_json("[" * 100 + "]" * 100)
    Traceback (most recent call last):
        ...
    ValueError: it is nested more than 64 deep
    """
    try:
        value = json.loads(text)
    except RecursionError as cause:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep") from cause
    check_depth(value)
    return value


def check_depth(value: object) -> None:
    """Raise `ValueError` if dictionaries, lists and tuples are nested more than `MAX_DEPTH` deep: functions that recurse would fail."""
    level = [value] if isinstance(value, dict | list | tuple) else []
    for _ in range(MAX_DEPTH):
        parts = (part for item in level for part in (item.values() if isinstance(item, dict) else item))
        level = [part for part in parts if isinstance(part, dict | list | tuple)]
        if not level:
            return
    raise ValueError(f"it is nested more than {MAX_DEPTH} deep")


def _short(value: object) -> str:
    """Return a value as messages show it: bounded, whatever a foreign file holds."""
    return f"{value!r:.60}" if isinstance(value, str | int | None) else f"of type {type(value).__name__}"


def canonical_json(value: Mapping[str, Any]) -> str:
    """Return an object as the one JSON text that equal objects share: sorted keys, no spaces, Unicode as it is."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
