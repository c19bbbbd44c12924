"""Files: written so that a final name means a complete file, read with a bound on their size, locked, and hashed."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flowkit.errors import BusyError

PART_SUFFIX = ".part"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path ``<name>.part`` beside `path`; the file that the block writes there takes the final name when the block succeeds.

    Parameters
    ----------
    path : Path
        The final name. Its folder is made if it is missing. A file that has this name already is replaced in one step.

    Yields
    ------
    Path
        Where to write. The block must create this file and close it. If the block raises, the part file is removed
        and a file that is already at `path` stays as it was.

    Raises
    ------
    OSError
        If the folder or the file cannot be written, or the block created no part file.
    """
    part = path.with_name(path.name + PART_SUFFIX)
    path.parent.mkdir(parents=True, exist_ok=True)
    part.unlink(missing_ok=True)  # left by a killed run, or a link that someone put there, which must not be followed
    try:
        with with_file_name(path):
            yield part
            with part.open("rb+") as written:
                os.fsync(written.fileno())
            part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


@contextmanager
def with_file_name(path: Path) -> Iterator[None]:
    """Add the name of a file to errors of the system that come without one, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write `data` (text as UTF-8, line ends as they are) to `path` so that a reader sees either the old file or the complete new one.

    Raises
    ------
    OSError
        If the file cannot be written; a file that is already at `path` then stays as it was.
    """
    with replacing(path) as part:
        part.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)


@contextmanager
def exclusive_lock(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file while the block runs, so that two processes do not write the same files.

    The lock ends with the process that holds it, however the process ends.

    Parameters
    ----------
    path : Path
        The lock file, which is removed at the end. Its folder must exist.
    what : str
        What a process that holds the lock does, for the error message: ``packs 'flowkit-data'``.

    Raises
    ------
    BusyError
        If another process holds the lock: on this machine, or on another one if the locks of the file system reach so far.
    """
    try:
        import fcntl
    except ImportError:  # Windows: open files cannot be replaced there, so two processes stop each other anyway
        yield
        return
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_same_file(path, descriptor):
                break
        except BlockingIOError as cause:
            os.close(descriptor)
            raise BusyError(f"another process {what}: wait until it has finished, or stop it") from cause
        except OSError:  # a file system without locks
            break
        os.close(descriptor)  # the process that held it has just removed it
    _held.add(descriptor)
    try:
        yield
    finally:
        try:
            path.unlink(missing_ok=True)
        finally:
            _held.discard(descriptor)
            os.close(descriptor)


_held: set[int] = set()  # descriptors of the locks that this process holds


def _close_held_locks() -> None:
    """Close the locks of the parent in a forked child, which may outlive the parent by seconds; the parent still holds them."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_held_locks)


def _is_same_file(path: Path, descriptor: int) -> bool:
    """Return whether a path leads to the open file."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def read_file(path: Path, *, most_bytes: int) -> bytes:
    """Return the bytes of a regular file that has at most `most_bytes`.

    Raises
    ------
    OSError
        If the file cannot be read, is larger (``EFBIG``), or is not a regular file (``EINVAL``): reading a pipe would
        wait for its writer, and a device may have no end.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if status.st_size > most_bytes:
            raise OSError(errno.EFBIG, f"too large ({status.st_size} bytes)", str(path))
        return file.read()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of the bytes of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def user_cache_folder() -> Path:
    """Return the folder in which the system keeps the caches of this user; it may not exist."""
    if sys.platform == "win32":
        folder = os.environ.get("LOCALAPPDATA", "~/AppData/Local")
    elif sys.platform == "darwin":
        folder = "~/Library/Caches"
    else:
        folder = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expanduser(folder))  # Path.expanduser raises if there is no home folder


def fsync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power failure, where the file system supports that."""
    if os.name == "nt":  # Windows cannot open folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot sync folders
            raise
    finally:
        os.close(descriptor)
