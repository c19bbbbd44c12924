"""A source file that must stay the same while it is read: its version, and the checks that all that was read is of this version.

A file may be replaced, copied over, truncated or still growing while flowkit reads it, and it is opened several times: to probe it,
for each piece of its flow, for its frames, and for its digest. So its version and its digest are compared before and after.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from flowkit.errors import SourceChangedError
from flowkit.file_versions import FileVersion
from flowkit.files import file_sha256
from flowkit.video.pictures.folder import picture_folder


class Source:
    """One version of a source file.

    Parameters
    ----------
    path : Path
        The file, or the folder of pictures.
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
            digest = video_sha256(self.path)
        except FileNotFoundError as cause:
            raise self.changed() from cause
        self.check()
        return digest

    def changed(self) -> SourceChangedError:
        """Return the error that says so."""
        return SourceChangedError(
            f"{str(self.path)!r} was changed while it was being extracted; once it is complete, run the same line again"
        )


def video_sha256(path: Path) -> str:
    """Return the digest of a video: of its file, or of the names and contents of all pictures of a folder."""
    return picture_folder(path).sha256() if path.is_dir() else file_sha256(path)
