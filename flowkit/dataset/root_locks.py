"""Who may change a data root, and when: one process, or the parts of one sharded extraction, or those that only read it as a whole.

A process that may change the root removes the temporary files that killed ones left there.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flowkit.errors import BusyError, ParameterError
from flowkit.files import PART_SUFFIX, remove_leftovers
from flowkit.locks import exclusive_lock, is_held, shared_lock
from flowkit.video.ids import OLD_PIECES_FOLDER, PIECES_FOLDER

_WRITE_LOCK = ".write.lock"
_PACK_LOCK = ".pack.lock"
_PART_LOCK = re.compile(r"\.extract-(\d+)-of-(\d+)\.lock")

_OLD_RECORDS = re.compile(r"(dataset|extract-report|import-report)\.json")
_OLD_CLIPS = re.compile(r".+\.h5", re.DOTALL)
_OLD_PIECES = re.compile(r"\d{9}-[0-9a-f]{8}")
_OLD_TABLES = re.compile(r"split\.json|(train|test)\.csv")


@contextmanager
def changing(root: Path, does: str) -> Iterator[None]:
    """Be the only process that changes a data root while the block runs.

    Parameters
    ----------
    root : Path
        The data root, which exists.
    does : str
        What this process does, for the error message of another one: ``imports into``.

    Raises
    ------
    BusyError
        If another process changes the root; says what it does.
    """
    _check_writable(root)
    with exclusive_lock(root / _WRITE_LOCK, f"{does} {str(root)!r}"):
        _refuse_beside(root)
        remove_root_leftovers(root, alone=True)
        yield


@contextmanager
def packing(root: Path) -> Iterator[None]:
    """Be the only process that changes a data root, and let none that reads it as a whole begin; see `reading_whole`."""
    what = f"packs {str(root)!r}"
    _check_writable(root)
    with exclusive_lock(root / _WRITE_LOCK, what), exclusive_lock(root / _PACK_LOCK, what):
        _refuse_beside(root, packs=True)
        remove_root_leftovers(root, alone=True)
        yield


@contextmanager
def extracting(root: Path, part: tuple[int, int]) -> Iterator[None]:
    """Extract part `i` of `n` (from 0) into a data root, beside other parts of the same `n` only.

    Raises
    ------
    BusyError
        If another process extracts the same part or parts of another number, or changes the root otherwise.
    """
    number, of = part[0] + 1, part[1]
    _check_writable(root)
    with ExitStack() as stack:
        try:
            if of == 1:
                stack.enter_context(changing(root, "extracts into"))
            else:
                lock = root / f".extract-{number}-of-{of}.lock"
                stack.enter_context(shared_lock(root / _WRITE_LOCK, f"extracts parts into {str(root)!r}"))
                stack.enter_context(exclusive_lock(lock, f"extracts part {number} of {of} into {str(root)!r}"))
                _refuse_beside(root, of=of)
                remove_root_leftovers(root, alone=False)
        except BusyError as error:
            raise BusyError(f"{error} (several processes share an extraction with --shard I/N, each with another I)") from error
        yield


def _check_writable(root: Path) -> None:
    """Refuse a data root that others share for reading only, before any work and in words."""
    if not os.access(root, os.W_OK):
        raise ParameterError(
            f"{str(root)!r} cannot be written by this user, or lies on a read-only disk: choose another data root with --data DIR"
        )


def _refuse_beside(root: Path, *, of: int | None = None, packs: bool = False) -> None:
    """Refuse to go on beside parts of a sharded extraction, unless they are parts of `of`, and beside flowkit 0.1, which had no more locks.

    A part calls this when it holds its own lock, so of two parts that start at the same moment at least one sees the other.
    """
    for path in sorted(root.glob(".*.lock")):
        match = _PART_LOCK.fullmatch(path.name)
        if match and of is not None and int(match[2]) != of and (does := is_held(path)):
            raise BusyError(
                f"another process {does}: parts that run at the same time must be parts of one number, "
                f"so use --shard I/{match[2]} here too, or wait until that process has finished"
            )
        if ((match and of is None) or (path.name == _PACK_LOCK and not packs)) and (does := is_held(path)):
            raise BusyError(f"another process {does}: wait until it has finished, or stop it")


@contextmanager
def reading_whole(root: Path, does: str, *, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Read a data root as a whole, with no pack at the same time: the shards and the manifests then belong together.

    This waits for a pack that is running, after it has called `on_wait` with what that process does. In a data root that cannot be
    written, it waits for such a process too, but cannot keep one from starting.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(shared_lock(root / _PACK_LOCK, f"{does} {str(root)!r}", on_wait=on_wait))
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
            has_waited = False
            while what := is_held(root / _PACK_LOCK):
                if not has_waited:
                    on_wait(what)
                has_waited = True
                time.sleep(0.2)
        yield


def remove_root_leftovers(root: Path, *, alone: bool) -> None:
    """Remove the temporary files that killed processes left in a data root; see `flowkit.files.remove_leftovers`.

    Runs and reports are not looked at: they have locks of their own.
    """
    remove_leftovers(root, alone=alone, old_names=_OLD_RECORDS)
    for folder, _, names in os.walk(root / "clips"):
        if any(name.endswith(PART_SUFFIX) for name in names):
            is_pieces = Path(folder).parent in (root / "clips" / PIECES_FOLDER, root / "clips" / OLD_PIECES_FOLDER)
            remove_leftovers(Path(folder), alone=alone, old_names=_OLD_PIECES if is_pieces else _OLD_CLIPS)
    for folder in ("shards", "features"):
        remove_leftovers(root / folder, alone=alone)
    for path in (root / "splits").glob("split*"):
        remove_leftovers(path, alone=alone, old_names=_OLD_TABLES)
