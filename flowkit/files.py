"""Write files so that a final name means a whole file: part file, fsync, rename, fsync of the folder. And read them with a bound."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flowkit.errors import BusyError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PART_SUFFIX = ".part"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the part path ``<name>.part`` beside `path`; what is written there takes the final name when the block ends well.

    Parameters
    ----------
    path : Path
        The final name. Its folder is made if need be; a file of that name is replaced whole, at once.

    Yields
    ------
    Path
        Where to write. The block must create this file and close it. If the block raises, the part file is removed
        and a file already at `path` is left as it was.

    Raises
    ------
    OSError
        If the folder or file cannot be written, or the block made no part file.
    """
    part = path.with_name(path.name + PART_SUFFIX)
    path.parent.mkdir(parents=True, exist_ok=True)
    part.unlink(missing_ok=True)  # what a killed run left, or a link laid there: never written through
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
    """Put a file's name into errors of the system that come without one, as a full disk's does."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write `data` (text as UTF-8, line ends as they are) to `path` so that a reader sees the old file or the whole new one.

    Raises
    ------
    OSError
        If it cannot be written; a file already at `path` is then left as it was.
    """
    with replacing(path) as part:
        part.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)


@contextmanager
def exclusive_lock(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file while the block runs, so that two processes do not write the same files; gone when the process is, however it ends.

    Parameters
    ----------
    path : Path
        The lock file, which is removed in the end. Its folder must be there.
    what : str
        What the other process then does, for the error: ``packs 'flowkit-data'``.

    Raises
    ------
    BusyError
        If another process holds it, on this machine or, where the file system's locks reach so far, another.
    """
    try:
        import fcntl
    except ImportError:  # Windows: open files cannot be replaced there, so that two processes stop each other
        yield
        return
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_there(path, descriptor):
                break
        except BlockingIOError as cause:
            os.close(descriptor)
            raise BusyError(f"another process {what}: wait until it is done, or stop it") from cause
        except OSError:  # a file system without locks
            break
        os.close(descriptor)  # its holder removed it just now
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


def _let_go() -> None:
    """Close a parent's locks in a forked child, which may outlive it by seconds; the parent still holds them."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _is_there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def read_file(path: Path, *, most_bytes: int) -> bytes:
    """Read a regular file whole, if it is not larger than it may be.

    Raises
    ------
    OSError
        If it cannot be read, is larger (``EFBIG``), or is no regular file (``EINVAL``): a pipe would be waited for, and a
        device may have no end.
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
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def fsync_folder(folder: Path) -> None:
    """Make renames in a folder last through a power cut, where the file system can do that."""
    if os.name == "nt":  # Windows cannot open folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems have no fsync of folders
            raise
    finally:
        os.close(descriptor)
