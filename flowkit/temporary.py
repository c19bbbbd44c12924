"""Temporary folders whose names say which process made them, so that a later run removes what a killed process left.

The folder for temporary files is shared with other users and programs. Only folders of flowkit's own naming are removed there that
belong to this user and to a process of this machine that has ended. Files of versions before 0.1, which have no process in their
names, are removed if no process can have them.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import stat
import tempfile
import time
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from flowkit.files import process_lives, this_host

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME = re.compile(r"flowkit-[a-z]+-([0-9a-f]{8})-(\d{1,10})-[a-z0-9_]{8}")

# In these files, processes of versions before 0.1 told each other how far they were; each of them had the file mapped.
_OLD_NAME = re.compile(r"flowkit-(board|progress)-[a-z0-9_]{8}")
_OLD_SECONDS = 24 * 3600
_ALL_PROCESSES = "pid:[4026531836]"  # Linux's name of the namespace from which the processes of all containers are seen


@contextmanager
def temporary_folder(what: str) -> Iterator[Path]:
    """Yield a new folder ``flowkit-<what>-<machine>-<process>-<random part>`` for temporary files, which is removed afterwards."""
    folder = _new_folder(what)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@cache
def process_folder() -> Path:
    """Return a temporary folder that lives as long as this process."""
    folder, owner = _new_folder("run"), os.getpid()  # a short name, because sockets in it must have short paths

    def remove() -> None:
        if os.getpid() == owner:  # not in a process that was forked from this one
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


def _new_folder(what: str) -> Path:
    remove_leftover_folders()
    return Path(tempfile.mkdtemp(prefix=f"flowkit-{what}-{_machine()}-{os.getpid()}-"))


def _machine() -> str:
    return this_host().rpartition("-")[2]


@cache  # once in each process
def remove_leftover_folders() -> None:
    """Remove the temporary folders of this user's flowkit processes that have ended, for they were killed."""
    if not hasattr(os, "getuid"):  # Windows, where no process can be asked whether it lives
        return
    with os.scandir(tempfile.gettempdir()) as entries:
        paths = {entry.name: entry.path for entry in entries}
    _remove_old_files([path for name, path in paths.items() if _OLD_NAME.fullmatch(name)])
    for name, path in paths.items():
        match = _NAME.fullmatch(name)
        if match is None or match[1] != _machine() or process_lives(int(match[2])):
            continue
        try:
            status = os.lstat(path)
        except OSError:  # another run has just removed it
            continue
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid():
            shutil.rmtree(path, ignore_errors=True)


def _remove_old_files(paths: list[str]) -> None:
    """Remove files of this user that are more than a day old and that no process has mapped, where all processes can be seen."""
    inodes: dict[int, str] = {}
    for path in paths:
        with suppress(OSError):
            status = os.lstat(path)
            is_old = time.time() - status.st_ctime > _OLD_SECONDS
            if stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid() and is_old:
                inodes[status.st_ino] = path
    if not inodes or not _sees_all_processes():
        return
    mapped = _mapped_inodes()
    if mapped is None:
        return
    for inode, path in inodes.items():
        if inode not in mapped:
            with suppress(OSError):
                os.unlink(path)


def _sees_all_processes() -> bool:
    try:
        return os.readlink("/proc/self/ns/pid") == _ALL_PROCESSES
    except OSError:  # not Linux
        return False


def _mapped_inodes() -> set[int] | None:
    """Return the numbers of the files that processes of this user have mapped; None if some cannot be known."""
    inodes: set[int] = set()
    for process in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            if os.stat(f"/proc/{process}").st_uid != os.getuid():
                continue
            try:
                with open(f"/proc/{process}/maps", "rb") as file:
                    inodes.update(int(fields[4]) for line in file if len(fields := line.split(maxsplit=5)) > 4)
            except PermissionError:  # it guards secrets, or is the first process; only Python runs flowkit
                with open(f"/proc/{process}/comm", "rb") as file:
                    if file.read().startswith((b"python", b"flowkit")):
                        return None
    return inodes
