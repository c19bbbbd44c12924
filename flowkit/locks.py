"""Lock files, with which processes agree on who writes what. A lock ends with the process that holds it, however it ends."""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
import time
from contextlib import contextmanager
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING

from flowkit.errors import BusyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

if sys.platform != "win32":  # open files cannot be replaced on Windows, so two processes stop each other anyway
    import fcntl

_logger = logging.getLogger(__name__)
_PATIENCE_SECONDS = 0.3  # the last holder of a shared lock holds it alone for a moment, to remove its file
_LONGEST_MOMENT_SECONDS = 10.0  # of that moment, on a busy machine
_MAX_NOTE_BYTES = 300
_held: set[int] = set()  # descriptors of the locks that this process holds


class LockState(Enum):
    """What came of an attempt to lock an open file."""

    HELD = "held"
    BUSY = "busy"
    UNAVAILABLE = "unavailable"  # the file system has no locks


@contextmanager
def exclusive_lock(path: Path, what: str, *, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold a lock file alone while the block runs, so that no two processes write the same files.

    Parameters
    ----------
    path : Path
        The lock file, which is removed at the end. Its folder must exist.
    what : str
        What this process does meanwhile, for the error message of another one: ``packs 'flowkit-data'``.
    on_wait : callable, optional
        If it is given, this waits while another process holds the lock, and calls it once with what that process does.
        Otherwise that is an error.

    Raises
    ------
    BusyError
        If another process holds the lock: on this machine, or on another one if the locks of the file system reach so far.
        It says what that process does.
    OSError
        If the lock file cannot be made.
    """
    with _locked(path, what, shared=False, on_wait=on_wait):
        yield


@contextmanager
def shared_lock(path: Path, what: str, *, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold a lock file together with others that share it; nobody can hold it alone meanwhile.

    Parameters
    ----------
    path : Path
        The lock file. The last process that shares it removes it.
    what : str
        What this process does meanwhile; see `exclusive_lock`.
    on_wait : callable, optional
        As for `exclusive_lock`.

    Raises
    ------
    BusyError, OSError
        As `exclusive_lock` does.
    """
    with _locked(path, what, shared=True, on_wait=on_wait):
        yield


@contextmanager
def _locked(path: Path, what: str, *, shared: bool, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
    if sys.platform == "win32":
        yield
        return
    descriptor = _acquire(path, what, shared=shared, on_wait=on_wait)
    try:
        yield
    finally:
        _remove(path, descriptor, shared=shared)


def _acquire(path: Path, what: str, *, shared: bool, on_wait: Callable[[str], None] | None) -> int:
    began, has_waited = time.monotonic(), False
    while True:
        descriptor = _open(path)
        state = try_lock(descriptor, shared=shared)
        if state is LockState.UNAVAILABLE or (state is LockState.HELD and is_same_file(path, descriptor)):
            _note(descriptor, what if shared else f"{what} (process {os.getpid()} on {socket.gethostname()})")
            return descriptor
        holder = _read_note(descriptor) if state is LockState.BUSY else ""
        release(descriptor)
        if state is LockState.HELD:  # the process that held it has just removed it
            continue
        # Who holds a lock alone for its work says so in its note, at once; others hold it for a moment, however slow the machine is.
        patience = _PATIENCE_SECONDS if not shared or "(process " in holder else _LONGEST_MOMENT_SECONDS
        if time.monotonic() - began > patience:
            if on_wait is None:
                raise BusyError(f"another process {holder or what}: wait until it has finished, or stop it")
            if not has_waited:
                on_wait(holder or what)
            has_waited = True
        time.sleep(0.2 if has_waited else 0.02)


def _remove(path: Path, descriptor: int, *, shared: bool) -> None:
    """Remove the lock file, unless others share it, and release it."""
    try:
        alone = not shared or (try_lock(descriptor) is LockState.HELD and is_same_file(path, descriptor))
        if alone and descriptor in _held:  # else this is a forked child, whose parent holds the lock
            path.unlink(missing_ok=True)
    finally:
        release(descriptor)


def _open(path: Path) -> int:
    flags = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o666)
    except PermissionError as error:
        try:
            return os.open(path, os.O_RDONLY | flags)  # another user's, perhaps left by a process that was killed
        except FileNotFoundError:
            raise error from None


def _note(descriptor: int, what: str) -> None:
    """Write into a lock file what its holder does."""
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, what.encode("utf-8", "backslashreplace")[:_MAX_NOTE_BYTES], 0)
    except OSError:  # a full disk, or another user's file: the lock is held all the same
        pass


def _read_note(descriptor: int) -> str:
    try:
        text = os.pread(descriptor, _MAX_NOTE_BYTES, 0).decode("utf-8", "ignore")
    except OSError:
        return ""
    return text if text.isprintable() else ""


def is_held(path: Path) -> str:
    """Return what the process does that holds a lock file alone; an empty text if there is none, or if that cannot be known."""
    if sys.platform == "win32":
        return ""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return ""
    try:
        if try_lock(descriptor, shared=True) is LockState.BUSY:
            return _read_note(descriptor) or "uses the data root"
        return ""
    finally:
        release(descriptor)


def try_lock(descriptor: int, *, shared: bool = False) -> LockState:
    """Try to lock an open file until `release`, without waiting. A child that is forked meanwhile does not hold the lock."""
    if sys.platform == "win32":
        return LockState.UNAVAILABLE
    _held.add(descriptor)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
            return LockState.BUSY
        _say_unavailable(error.strerror or "no reason given")
        return LockState.UNAVAILABLE
    return LockState.HELD


def release(descriptor: int) -> None:
    """Close a file that `try_lock` has tried to lock, which ends the lock."""
    if descriptor in _held:  # else this is a forked child, which has closed it already
        _held.discard(descriptor)
        os.close(descriptor)


def is_same_file(path: Path, descriptor: int) -> bool:
    """Return whether a path leads to the open file."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@cache  # once in a process
def _say_unavailable(reason: str) -> None:
    _logger.warning(
        "this file system has no locks (%s), so flowkit cannot tell whether another process writes the same files: "
        "see to it that only one does",
        reason,
    )


def _close_held_locks() -> None:
    """Close the locks of the parent in a forked child, which may outlive the parent by seconds; the parent still holds them."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_held_locks)
