"""How running tasks report their progress to the parent process, and how its requests to stop reach them."""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

_SLOT = struct.Struct("<qq")  # done, expected


class TaskProgress(Protocol):
    """A running task's link to its run: it notes its progress here, and looks here whether to stop."""

    def note(self, done: int, expected: int = 0) -> None:
        """Note that `done` of `expected` units of work are done (0: unknown)."""

    @property
    def stopping(self) -> bool:
        """Whether running tasks must stop now."""


class ProgressFile:
    """A small file in shared memory with one slot per running task: tasks write their progress, the parent reads it.

    One more slot carries the parent's requests to stop, which the tasks read between batches.
    """

    def __init__(self, path: str, num_slots: int) -> None:
        self.path, self.num_slots = path, num_slots
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), _SLOT.size * (num_slots + 1))

    @classmethod
    @contextmanager
    def make(cls, num_slots: int) -> Iterator[ProgressFile]:
        """Make a file that is deleted afterwards."""
        handle, path = tempfile.mkstemp(prefix="flowkit-progress-")
        os.ftruncate(handle, _SLOT.size * (num_slots + 1))
        os.close(handle)
        file = cls(path, num_slots)
        try:
            yield file
        finally:
            file.close()
            os.unlink(path)

    def write(self, slot: int, done: int, expected: int = 0) -> None:
        """Write how much is done into a slot."""
        _SLOT.pack_into(self._map, _SLOT.size * slot, done, expected)

    def read(self, slot: int) -> tuple[int, int]:
        """Return (done, expected) of a slot."""
        done, expected = _SLOT.unpack_from(self._map, _SLOT.size * slot)
        return done, expected

    def request_stop(self, *, at_once: bool) -> None:
        """Ask all tasks to start no new work, or to stop the next time they look."""
        self.write(self.num_slots, 2 if at_once else 1)

    @property
    def closing(self) -> bool:
        """Whether no task may start any more."""
        return self.read(self.num_slots)[0] >= 1

    @property
    def stopping(self) -> bool:
        """Whether running tasks must stop now."""
        return self.read(self.num_slots)[0] >= 2

    def close(self) -> None:
        """Unmap the file."""
        self._map.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return ProgressFile, (self.path, self.num_slots)


@dataclass(frozen=True)
class LocalProgress:
    """The `TaskProgress` of a task in a process of this machine: one slot of a `ProgressFile`."""

    file: ProgressFile
    slot: int

    def note(self, done: int, expected: int = 0) -> None:
        self.file.write(self.slot, done, expected)

    @property
    def stopping(self) -> bool:
        return self.file.stopping
