"""Entries of the caches of compiled kernels: each holds its SHA-256, and what is damaged or was written by somebody else is not used.

Compiled code is executed, and numba's is unpickled, so a cache is trusted only as far as its files belong to the user (or to root,
who may prepare the cache of a container image) and nobody else may write to them.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from typing import TYPE_CHECKING

from flowkit.files import open_without_waiting, remove_leftovers, replacing

if TYPE_CHECKING:
    from pathlib import Path

MAX_ENTRY_BYTES = 1 << 28

_DIGEST_BYTES = 32

logger = logging.getLogger(__name__)


def read_entry(path: Path) -> bytes | None:
    """Return what `write_entry` stored; None if there is nothing, or what is there cannot be used."""
    try:
        with open(path, "rb", opener=open_without_waiting) as file:
            status = os.fstat(file.fileno())
            fault = _distrust(status)
            if not fault:
                stored = file.read()
    except OSError:
        return None
    if not fault and hashlib.sha256(stored[_DIGEST_BYTES:]).digest() != stored[:_DIGEST_BYTES]:
        fault = "it is damaged"
    if fault:
        logger.warning("compiling again instead of using the kernel cache %s: %s", path, fault)
        return None
    return stored[_DIGEST_BYTES:]


def write_entry(path: Path, data: bytes) -> None:
    """Store `data`, so that processes that start at the same time do not disturb each other.

    If the folder cannot be written to, this is logged, and nothing is stored.
    """
    try:
        with replacing(path) as part:
            part.chmod(0o644)  # whatever the umask allows others
            part.write_bytes(hashlib.sha256(data).digest() + data)
        remove_leftovers(path.parent, alone=False)
    except OSError as error:
        logger.info("a compiled kernel is not cached: %s cannot be written (%s)", path, error)


def _distrust(status: os.stat_result) -> str:
    """Return why a file is not used; empty if it may be."""
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    if status.st_size > MAX_ENTRY_BYTES:
        return f"it is too large ({status.st_size} bytes)"
    if hasattr(os, "geteuid"):
        if status.st_uid not in (os.geteuid(), 0):
            return "it belongs to another user"
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return "other users may write to it"
    return ""
