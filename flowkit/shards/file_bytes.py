"""The bytes of a shard file, read by offset, without a file position that processes or threads would share."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from flowkit.errors import ShardFormatError


class ShardBytes:
    """Reads parts of one file with ``pread``, so that threads and forked processes may share it.

    Parameters
    ----------
    path : Path
        A regular file.

    Raises
    ------
    ShardFormatError
        If the path leads to something else, such as a pipe or a device.
    OSError
        If the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ShardFormatError(f"{path} is not a regular file")
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self._identity = (status.st_dev, status.st_ino)
        self.size = status.st_size

    def is_at(self, path: Path) -> bool:
        """Return whether a path still leads to this file, which another file may have replaced since it was opened."""
        status = os.stat(path)
        return (status.st_dev, status.st_ino) == self._identity

    @property
    def version(self) -> tuple[int, int, int]:
        """What tells this file from others and from later contents of its own: inode, size, and modification time in ns."""
        return _version(os.fstat(self._descriptor))

    def read(self, start: int, size: int) -> bytes:
        """Return `size` bytes from `start`; raise `ShardFormatError` if the file ends before."""
        data = self._read_some(start, size)
        while len(data) < size:  # systems read at most 2 GiB at once, and network file systems sometimes less
            more = self._read_some(start + len(data), size - len(data))
            if not more:
                raise ShardFormatError(f"{self.path} is truncated: it ends before byte {start + size}")
            data += more
        return data

    def _read_some(self, start: int, size: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._descriptor, size, start)
        os.lseek(self._descriptor, start, os.SEEK_SET)  # Windows
        return os.read(self._descriptor, size)

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            self.close()


def version_of(path: Path) -> tuple[int, int, int] | None:
    """Return the `ShardBytes.version` that the file at a path has now; None if there is none."""
    try:
        return _version(os.stat(path))
    except OSError:
        return None


def _version(status: os.stat_result) -> tuple[int, int, int]:
    """Links to the file and changes of its permissions do not count: training takes days, and backups link files."""
    return status.st_ino, status.st_size, status.st_mtime_ns
