"""Temporary folders whose names say which process made them, so that a later run removes what a killed process left.

The folder for temporary files is shared with other users and programs. Only folders of flowkit's own naming are removed there that
belong to this user and to a process of this machine that has ended.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import stat
import tempfile
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from flowkit.files import process_lives, this_host

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME = re.compile(r"flowkit-[a-z]+-([0-9a-f]{8})-(\d{1,10})-[a-z0-9_]{8}")


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
        found = [(entry.path, match) for entry in entries if (match := _NAME.fullmatch(entry.name))]
    for path, match in found:
        if match[1] != _machine() or process_lives(int(match[2])):
            continue
        try:
            status = os.lstat(path)
        except OSError:  # another run has just removed it
            continue
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid():
            shutil.rmtree(path, ignore_errors=True)
