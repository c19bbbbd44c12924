"""Versions of files, by which a reader notices that a file was replaced, overwritten, truncated or extended while it was read.

Size and modification time alone do not suffice, because ``cp -p`` and ``touch`` set the time. The time of the last status change
cannot be set, so it is compared too, where it is known.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path


@dataclass(frozen=True)
class FileVersion:
    """What the file system says about a version of a file.

    Parameters
    ----------
    num_bytes : int
        Its size; of a folder, that of all files in it.
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
        """Return the version that a path leads to now, of a folder that of all files in it; `OSError` if there is no such file."""
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            files = [entry.stat() for entry in os.scandir(path) if entry.is_file()]
            latest = [max((getattr(file, name) for file in files), default=0) for name in ("st_mtime_ns", "st_ctime_ns")]
            return cls(sum(file.st_size for file in files), *latest)
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def may_be(self, other: FileVersion) -> bool:
        """Return whether two versions agree in all that is known of both."""
        same_ctime = self.ctime_ns == other.ctime_ns or not (self.ctime_ns and other.ctime_ns)
        return (self.num_bytes, self.mtime_ns) == (other.num_bytes, other.mtime_ns) and same_ctime


def versions_in(folders: Iterable[Path], *, wanted: Callable[[str], bool] = lambda name: True) -> dict[Path, FileVersion | None]:
    """Return the version of each file in some folders, without those in their subfolders.

    Parameters
    ----------
    folders : iterable of Path
        The folders. Those that cannot be read have no files.
    wanted : callable, optional
        Tells by its name whether a file counts. By default all files count.

    Returns
    -------
    dict of Path to FileVersion
        None for a file that cannot be examined.
    """
    versions: dict[Path, FileVersion | None] = {}
    for folder in folders:
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for name in filter(wanted, names):
            try:
                versions[folder / name] = FileVersion.of(folder / name)
            except OSError:
                versions[folder / name] = None
    return versions
