"""Pieces of a long video's quantised flow, kept as files until the clip file is written, to resume and to share the work.

A video whose flow takes long is solved in pieces, by several processes or in several runs. Each finished piece is a file of
raw bytes under ``clips/.segments/``, named after the video, the version of its file, and the flow fields it holds. The clip
file is then written from the pieces as if one process had solved the whole video, since flow field k depends on frames k and
k+1 only.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import FlowkitError
from flowkit.files import fsync_folder, new_part
from flowkit.locks import release

_NAME = re.compile(r"(\d{9})-(\d{9})\.flow")
FIELDS_PER_FILE = 256  # a kill loses at most this many flow fields of each process


@dataclass(frozen=True)
class Piece:
    """A file of the quantised flow fields `start` to `stop` of a video, uint8 (stop - start, 2, H, W)."""

    start: int
    stop: int
    path: str


def piece_folder(clips: Path, video_id: str, source_bytes: int, source_mtime_ns: int) -> Path:
    """Return the folder for a video's pieces; each version of the video file has a folder of its own."""
    name = hashlib.sha256(video_id.encode("utf-8", "surrogatepass")).hexdigest()[:24]
    return clips / ".segments" / f"{name}-{source_bytes:x}-{source_mtime_ns:x}"


def find_pieces(folder: Path) -> list[Piece]:
    """Return the finished pieces in a folder, in order and without overlaps; part files are not among them."""
    pieces: list[Piece] = []
    for path in sorted(folder.glob("*.flow")):
        match = _NAME.fullmatch(path.name)
        if match and int(match[1]) < int(match[2]) and (not pieces or int(match[1]) >= pieces[-1].stop):
            pieces.append(Piece(int(match[1]), int(match[2]), str(path)))
    return pieces


def missing_ranges(pieces: Sequence[Piece], num_pairs: int, num_ranges: int) -> list[tuple[int, int | None]]:
    """Divide what the pieces do not cover into ranges of flow fields.

    Parameters
    ----------
    pieces : sequence of Piece
        Disjoint and in order.
    num_pairs : int
        Number of flow fields that the video's header promises.
    num_ranges : int
        Number of ranges into which the complete video would be divided; it sets their length.

    Returns
    -------
    list of (start, stop)
        The last stop is None, which means to the end of the video, because a header may be wrong.
    """
    length = max(-(-num_pairs // num_ranges), 1)
    gaps, at = [], 0
    for piece in pieces:
        if piece.start > at:
            gaps.append((at, piece.start))
        at = piece.stop
    ranges: list[tuple[int, int | None]] = []
    for start, stop in [*gaps, (at, max(num_pairs, at + 1))]:
        count = max(round((stop - start) / length), 1)
        edges = [start + (stop - start) * k // count for k in range(count + 1)]
        ranges.extend(itertools.pairwise(edges))
    ranges[-1] = (ranges[-1][0], None)
    return ranges


class PieceWriter:
    """Writes flow fields from `start` on into files of at most `FIELDS_PER_FILE`; a file gets its final name when it is complete.

    The names of temporary files are unique: if another process, perhaps one that was believed dead, solves the same flow
    fields, neither writes into the other's file.
    """

    def __init__(self, folder: Path, start: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._first, self._next = folder, start, start
        self._file: BinaryIO | None = None
        self._part, self._lock = folder, -1

    def append(self, q: NDArray[np.uint8]) -> None:
        """Add flow fields, uint8 (n, 2, H, W)."""
        for field in q:
            if self._file is None:
                self._part, self._lock = new_part(self._folder / f"{self._first:09d}")
                self._file = self._part.open("wb")
            self._file.write(field.tobytes())
            self._next += 1
            if self._next - self._first == FIELDS_PER_FILE:
                self.close()

    def close(self) -> None:
        """Give the current file its final name."""
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            with file:
                file.flush()
                os.fsync(file.fileno())
            self._part.replace(self._folder / f"{self._first:09d}-{self._next:09d}.flow")
        except BaseException:
            self._part.unlink(missing_ok=True)
            raise
        finally:
            release(self._lock)
        fsync_folder(self._folder)
        self._first = self._next


class PieceReader:
    """Reads the flow fields of a video in order from its pieces.

    Raises
    ------
    FlowkitError
        If the pieces leave a gap or have another frame size.
    """

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._waiting = list(pieces)
        self._at = 0
        self._file: BinaryIO | None = None
        self._left = 0

    def __enter__(self) -> PieceReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def read(self, count: int, height: int, width: int) -> NDArray[np.uint8]:
        """Return the next flow fields, uint8 (count, 2, H, W)."""
        q = np.empty((count, 2, height, width), np.uint8)
        for field in q:
            if self._left == 0:
                self._open_next()
            assert self._file is not None
            data = self._file.read(field.nbytes)
            if len(data) != field.nbytes:
                raise FlowkitError(f"{self._file.name} is truncated; remove its folder and run the same line again")
            field[...] = np.frombuffer(data, np.uint8).reshape(field.shape)
            self._left -= 1
            self._at += 1
        return q

    def _open_next(self) -> None:
        if self._file is not None:
            self._file.close()
        if not self._waiting or self._waiting[0].start != self._at:
            raise FlowkitError(f"flow field {self._at} is in no piece; run the same line again")
        piece = self._waiting.pop(0)
        self._file, self._left = open(piece.path, "rb"), piece.stop - piece.start  # noqa: SIM115 - closed in __exit__


def remove_pieces(folder: Path) -> None:
    """Delete a video's pieces, once its clip file is written."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # another process may add the pieces of another video at this moment
        folder.parent.rmdir()
