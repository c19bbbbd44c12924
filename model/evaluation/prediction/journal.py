"""Predictions that are not in their output yet, kept line by line, so that a command that is stopped or killed loses at most one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from flowkit.file_versions import FileVersion
from flowkit.files import read_file, with_file_name, write_atomically
from flowkit.locks import exclusive_lock
from flowkit.records import canonical_json

_MOST_BYTES = 1 << 30
WHOLE = -1  # in place of the number of a window


class PredictionJournal:
    """The results of earlier calls that were stopped, and of this one. A context manager, which one process at a time can enter.

    Parameters
    ----------
    output : Path or None
        The file that the results will be written to; they are kept beside it. None keeps nothing. What was kept and depends on
        anything else is replaced.
    depends_on : mapping
        What the results depend on besides the videos, as built-in types.
    """

    def __init__(self, output: Path | None, depends_on: Mapping[str, Any]) -> None:
        self.path = None if output is None else output.with_name(f".{output.name}.unfinished")
        self._output, self._header = output, canonical_json(dict(depends_on))
        self._lines: list[str] = []
        self._results: dict[tuple[str, str, int], dict[str, Any]] = {}
        self._file: Any = None
        self._held = ExitStack()

    def __enter__(self) -> PredictionJournal:
        """Read what is kept.

        Raises
        ------
        BusyError
            If another process has entered the journal of the same file.
        OSError
            If the disk is full; what was kept is kept.
        """
        if self.path is None:
            return self
        with ExitStack() as held:
            held.enter_context(
                exclusive_lock(self.path.with_name(f"{self.path.name}.lock"), f"writes predictions to {str(self._output)!r}")
            )
            self._open(self.path)
            self._held = held.pop_all()
        return self

    def _open(self, path: Path) -> None:
        if path.is_file():
            text = read_file(path, most_bytes=_MOST_BYTES).decode("utf-8", "replace")
            lines = text[: text.rfind("\n") + 1].split("\n")[:-1]  # a kill may have cut off the last one
            if lines and lines[0] == self._header:
                for line in lines[1:]:
                    self._take(line)
        write_atomically(path, "".join(f"{line}\n" for line in (self._header, *self._lines)))
        self._file = path.open("a", encoding="utf-8")

    def __exit__(self, *error: object) -> None:
        with self._held:
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
            line = json.dumps({"path": str(path), "version": version, "number": number, "result": result})
            with with_file_name(Path(self._file.name)):
                self._file.write(line + "\n")
                self._file.flush()
                os.fsync(self._file.fileno())

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


def _version(path: Path) -> str:
    """Return what tells a version of a file from others; empty if there is none."""
    try:
        return str(FileVersion.of(path))
    except OSError:
        return ""
