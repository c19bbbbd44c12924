"""A source file that must stay the same while it is read: its version, and the checks that all that was read is of this version.

A file may be replaced, copied over, truncated or still growing while flowkit reads it, and it is opened several times: to probe it,
for each piece of its flow, for its frames, and for its digest. So its version is compared before and after. Size and modification
time alone do not suffice, because ``cp -p`` and ``touch`` set the time. The time of the last status change cannot be set, and the
digest tells the rest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from flowkit.errors import SourceChangedError
from flowkit.files import file_sha256


@dataclass(frozen=True)
class FileVersion:
    """What the file system says about a version of a file.

    Parameters
    ----------
    num_bytes : int
        Its size.
    mtime_ns : int
        When its contents changed last, which programs such as ``cp -p`` set as they like.
    ctime_ns : int
        When the file, its name or its properties changed last, by the clock of the system; 0 if it is not known.
    """

    num_bytes: int
    mtime_ns: int
    ctime_ns: int = 0

    @classmethod
    def of(cls, path: Path) -> FileVersion:
        """Return the version that a path leads to now; `OSError` if there is no such file."""
        return cls.from_status(path.stat())

    @classmethod
    def from_status(cls, status: os.stat_result) -> FileVersion:
        """Return the version that a result of ``os.stat`` describes."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def may_be(self, other: FileVersion) -> bool:
        """Return whether two versions agree in all that is known of both."""
        same_ctime = self.ctime_ns == other.ctime_ns or not (self.ctime_ns and other.ctime_ns)
        return (self.num_bytes, self.mtime_ns) == (other.num_bytes, other.mtime_ns) and same_ctime


class Source:
    """One version of a source file.

    Parameters
    ----------
    path : Path
        The file.
    version : FileVersion, optional
        The version that it must have. By default the one that it has now.
    sha256 : str, optional
        The digest of that version, if it is known. By default it is computed when it is first needed.

    Raises
    ------
    SourceChangedError
        If the file has another version.
    OSError
        If the file cannot be opened.
    """

    def __init__(self, path: Path, version: FileVersion | None = None, sha256: str | None = None) -> None:
        self.path = path
        self.version = FileVersion.of(path) if version is None else version
        if sha256 is not None:
            self.__dict__["sha256"] = sha256  # fills the cache of the property
        self.check()

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of this version."""
        return self._digest()

    def check(self) -> None:
        """Raise `SourceChangedError` unless the file still has this version."""
        try:
            same = self.version.may_be(FileVersion.of(self.path))
        except FileNotFoundError:
            same = False
        if not same:
            raise self.changed()

    def confirm(self) -> str:
        """Read the file once more and return its digest; raise `SourceChangedError` unless it is the one from before."""
        before = self.sha256
        if self._digest() != before:
            raise self.changed()
        return before

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Raise `SourceChangedError` if the file has changed when the block ends, also in place of an error that came of it."""
        try:
            yield
        except Exception:
            self.check()
            raise
        self.check()

    def _digest(self) -> str:
        try:
            digest = file_sha256(self.path)
        except FileNotFoundError as cause:
            raise self.changed() from cause
        self.check()
        return digest

    def changed(self) -> SourceChangedError:
        """Return the error that says so."""
        return SourceChangedError(
            f"{str(self.path)!r} was changed while it was being extracted; once it is complete, run the same line again"
        )
