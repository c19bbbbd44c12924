"""Files: written so that a final name means a complete file, read with a bound on their size, and hashed."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count
from pathlib import Path

from flowkit.locks import LockState, is_same_file, release, try_lock

PART_SUFFIX = ".part"
_MOST_TRIALS = 10


@contextmanager
def replacing(path: Path, *, may_be_empty: bool = False) -> Iterator[Path]:
    """Yield a new, empty temporary file beside `path`; what the block writes there takes the final name when the block succeeds.

    Parameters
    ----------
    path : Path
        The final name. Its folder is made if it is missing. A file that has this name already is replaced in one step.
    may_be_empty : bool
        Whether a file of no bytes is complete.

    Yields
    ------
    Path
        Where to write: see `temporary_name`. The block must write to this file, not replace it, and close it. If the block
        raises, the temporary file is removed and a file that is already at `path` stays as it was.

    Raises
    ------
    OSError
        If the folder or the file cannot be written, or the block wrote nothing.
    """
    part, descriptor = new_part(path)
    with with_file_name(path, instead_of=part):
        try:
            yield part
            if not may_be_empty and os.stat(part).st_size == 0:
                raise OSError(errno.ENODATA, "nothing was written", str(path))
            _finish(part, descriptor, path)
        except BaseException:
            release(descriptor)
            part.unlink(missing_ok=True)
            raise
    release(descriptor)
    fsync_folder(path.parent)


def new_part(path: Path) -> tuple[Path, int]:
    """Make an empty temporary file for what will be `path`; return its path and a descriptor, which holds a lock on it.

    The lock says to `remove_leftovers` of other processes that the file is being written. The caller ends it with `release`.
    """
    # Never an existing file, nor what a link leads to.
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    for trial in count():
        part = path.with_name(temporary_name(path))
        try:
            with with_file_name(path, instead_of=part):
                path.parent.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(part, flags, 0o666)
        except FileNotFoundError:  # another process has just removed the folder, which was empty
            if trial == _MOST_TRIALS:
                raise
            continue
        state = try_lock(descriptor)
        if state is LockState.UNAVAILABLE or (state is LockState.HELD and is_same_file(part, descriptor)):
            return part, descriptor
        release(descriptor)  # another process believed that it was left behind, before it was locked
    raise AssertionError


def _finish(part: Path, descriptor: int, path: Path) -> None:
    """Put the bytes of a temporary file on the disk, and give it its final name."""
    os.fsync(descriptor)
    if os.name == "nt":  # Windows does not rename open files
        release(descriptor)
    part.replace(path)


def temporary_name(path: Path) -> str:
    """Return a new name for a temporary file beside `path`: ``<name>.<host>-<process>-<random part>.part``.

    The name is shortened where the file system would refuse it.
    """
    ending = f".{this_host()}-{os.getpid()}-{secrets.token_hex(4)}{PART_SUFFIX}"
    try:
        longest = os.pathconf(path.parent, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):
        longest = 255
    name = path.name.encode("utf-8", "surrogateescape")
    room = max(longest - len(ending), 0)
    return (path.name if len(name) <= room else name[:room].decode("utf-8", "ignore")) + ending


@cache
def this_host() -> str:
    """Return a name for this machine as it now runs: its host name, and a digest that differs after a restart or in a container."""
    name = socket.gethostname()
    running = [name]
    with suppress(OSError, ValueError):  # not Linux
        running.append(Path("/proc/sys/kernel/random/boot_id").read_text("ascii"))
        running.append(os.readlink("/proc/self/ns/pid"))
    plain = re.sub(r"[^A-Za-z0-9_]", "_", name)[:24] or "host"
    return f"{plain}-{hashlib.sha256(repr(running).encode()).hexdigest()[:8]}"


_TEMPORARY_NAME = re.compile(r".*\.([A-Za-z0-9_]{1,24}-[0-9a-f]{8})-(\d{1,10})-[0-9a-f]{8}\.part", re.DOTALL)


def is_temporary_of(name: str, final: str) -> bool:
    """Return whether a file of this name is a temporary one of a file that will be called `final`."""
    return name.startswith(f"{final}.") and _TEMPORARY_NAME.fullmatch(name) is not None


def remove_leftovers(folder: Path, *, alone: bool, old_names: re.Pattern[str] | None = None) -> None:
    """Remove the temporary files in a folder that processes left when they were killed.

    Parameters
    ----------
    folder : Path
        The folder; the folders in it are left as they are. It may be missing.
    alone : bool
        Whether the caller holds a lock that keeps all other writers of the folder out. Only then are the files of other
        machines removed, because this machine cannot know whether their processes still live.
    old_names : pattern, optional
        Final names in the folder. With `alone`, files called ``<name>.part`` are removed as well, which is what flowkit
        called temporary files until 0.1.
    """
    try:
        entries = [entry for entry in os.scandir(folder) if entry.name.endswith(PART_SUFFIX)]
    except OSError:
        return
    for entry in entries:
        match = _TEMPORARY_NAME.fullmatch(entry.name)
        is_old = match is None and old_names is not None and old_names.fullmatch(entry.name.removesuffix(PART_SUFFIX)) is not None
        own_process = int(match[2]) if match and match[1] == this_host() else None
        if (own_process is not None or (alone and (match or is_old))) and entry.is_file(follow_symlinks=False):
            remove_if_abandoned(Path(entry.path), own_process)


def remove_if_abandoned(part: Path, process: int | None = None) -> None:
    """Remove a temporary or a lock file unless a process holds it; `process` is its writer, if known to be of this machine."""
    try:
        descriptor = os.open(part, os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0))
    except OSError:  # finished meanwhile, or another user's
        return
    try:
        state = try_lock(descriptor)
        if state is LockState.HELD or (state is LockState.UNAVAILABLE and (process is None or not process_lives(process))):
            with suppress(OSError):
                if is_same_file(part, descriptor):
                    part.unlink()
    finally:
        release(descriptor)


def process_lives(process: int) -> bool:
    """Return whether a process of this machine runs, or has ended without notice to its parent; True where that cannot be known."""
    if os.name == "nt":  # where this would end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def with_file_name(path: Path, *, instead_of: Path | None = None) -> Iterator[None]:
    """Add the name of a file to errors of the system that come without one, such as that of a full disk, or replace a temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and (error.filename is None or (instead_of is not None and error.filename == str(instead_of))):
            error.filename = str(path)
        raise


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write `data` (text as UTF-8, line ends as they are) to `path` so that a reader sees either the old file or the complete new one.

    Raises
    ------
    OSError
        If the file cannot be written; a file that is already at `path` then stays as it was.
    """
    with replacing(path, may_be_empty=True) as part:
        part.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)


def write_if_new(path: Path, data: bytes | str) -> bool:
    """Write `data` as `write_atomically` does, unless there is a file at `path`; return whether it was written.

    Of several processes that do this at the same time, one writes.
    """
    part, descriptor = new_part(path)
    with with_file_name(path, instead_of=part):
        try:
            part.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)
            os.fsync(descriptor)
            try:
                os.link(part, path)
            except FileExistsError:
                return False
            except OSError:  # a file system without links
                if path.exists():
                    return False
                _finish(part, descriptor, path)
        finally:
            release(descriptor)
            part.unlink(missing_ok=True)
    fsync_folder(path.parent)
    return True


def read_file(path: Path, *, most_bytes: int) -> bytes:
    """Return the bytes of a regular file that has at most `most_bytes`.

    Raises
    ------
    OSError
        If the file cannot be read, is larger (``EFBIG``), or is not a regular file (``EINVAL``): reading a pipe would
        wait for its writer, and a device may have no end.
    """
    with open(path, "rb", opener=open_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if status.st_size > most_bytes:
            raise OSError(errno.EFBIG, f"too large ({status.st_size} bytes)", str(path))
        return file.read()


def open_without_waiting(path: str, flags: int) -> int:
    """Open a file, as the ``opener`` of `open`: a pipe, which the caller then refuses, does not wait for its writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


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
