"""Predictions that are not in their output yet, kept line by line, so that a command that is stopped or killed loses at most one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowkit.file_versions import FileVersion
from flowkit.files import read_file
from flowkit.records import canonical_json

_MOST_BYTES = 1 << 30
WHOLE = -1  # in place of the number of a window


class PredictionJournal:
    """The results of earlier calls that were stopped, and of this one. A context manager.

    Parameters
    ----------
    path : Path or None
        The file; None keeps nothing. One that depends on anything else is replaced.
    depends_on : mapping
        What the results depend on besides the videos, as built-in types.
    """

    def __init__(self, path: Path | None, depends_on: Mapping[str, Any]) -> None:
        self.path, self._header = path, canonical_json(dict(depends_on))
        self._lines: list[str] = []
        self._results: dict[tuple[str, str, int], dict[str, Any]] = {}
        self._file: Any = None

    def __enter__(self) -> PredictionJournal:
        if self.path is None:
            return self
        if self.path.is_file():
            text = read_file(self.path, most_bytes=_MOST_BYTES).decode("utf-8", "replace")
            lines = text[: text.rfind("\n") + 1].split("\n")[:-1]  # a kill may have cut off the last one
            if lines and lines[0] == self._header:
                for line in lines[1:]:
                    self._take(line)
        self._file = self.path.open("w", encoding="utf-8")
        self._write(self._header)
        for line in self._lines:
            self._write(line)
        self._sync()
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    def results(self, path: Path) -> dict[int, dict[str, Any]]:
        """Return the results of the present version of a video file, by the number of the window; that of the whole video is `WHOLE`."""
        key = (str(path), _version(path))
        return {number: result for (name, version, number), result in self._results.items() if (name, version) == key}

    def add(self, path: Path, number: int, result: dict[str, Any]) -> None:
        """Keep a result.

        Raises
        ------
        OSError
            If the disk is full.
        """
        version = _version(path)
        self._results[str(path), version, number] = result
        if self._file is not None:
            self._write(json.dumps({"path": str(path), "version": version, "number": number, "result": result}))
            self._sync()

    def remove(self) -> None:
        """Remove the file: its results are in the output."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _take(self, line: str) -> None:
        try:
            record = json.loads(line)
            key = (record["path"], record["version"], record["number"])
            result = record["result"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return
        if isinstance(result, dict) and [type(part) for part in key] == [str, str, int]:
            self._results[key] = result
            self._lines.append(line)

    def _write(self, line: str) -> None:
        self._file.write(line + "\n")

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())


def _version(path: Path) -> str:
    """Return what tells a version of a file from others; empty if there is none."""
    try:
        return str(FileVersion.of(path))
    except OSError:
        return ""
