"""Pieces of a long video's quantised flow, kept as files until the clip file is written, to resume and to share the work.

A video whose flow takes long is solved in pieces, by several processes or in several runs. Each finished piece is a file of
raw bytes under ``clips/.pieces/``, named after the video, the version of its file, and the flow fields it holds. The clip
file is then written from the pieces as if one process had solved the whole video, since flow field k depends on frames k and
k+1 only. Each folder records the digest of the video file, so that no flow of another file is ever used.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import FlowkitError, SourceChangedError
from flowkit.extraction.source import Source
from flowkit.file_versions import FileVersion
from flowkit.files import fsync_folder, new_part, read_file, with_file_name, write_atomically
from flowkit.locks import release
from flowkit.video.ids import OLD_PIECES_FOLDER, PIECES_FOLDER

_NAME = re.compile(r"(\d{9})-(\d{9})\.flow")
_RECORD_NAME = "source.json"
_MAX_RECORD_BYTES = 1 << 16
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
    return clips / PIECES_FOLDER / f"{name}-{source_bytes:x}-{source_mtime_ns:x}"


def read_source(folder: Path, path: Path) -> Source | None:
    """Return the version of the video file `path` that the pieces in a folder are of, which must be its present one; None without pieces.

    Raises
    ------
    SourceChangedError
        If the file has another version now.
    """
    recorded = _read_record(folder)
    return None if recorded is None else Source(path, *recorded)


def record_source(folder: Path, source: Source) -> None:
    """Record that the pieces in a folder are of one version of a video file.

    Raises
    ------
    SourceChangedError
        If they are of another one.
    """
    recorded = _read_record(folder)
    if recorded is not None and recorded[1] != source.sha256:
        raise source.changed()
    if recorded is None or recorded[0] != source.version:
        record = {**asdict(source.version), "sha256": source.sha256}
        write_atomically(folder / _RECORD_NAME, json.dumps(record) + "\n")


def _read_record(folder: Path) -> tuple[FileVersion, str] | None:
    try:
        record = json.loads(read_file(folder / _RECORD_NAME, most_bytes=_MAX_RECORD_BYTES))
        sha256 = record.pop("sha256")
        version = FileVersion(**record)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return version, sha256


def drop_stale_pieces(folder: Path, path: Path, version: FileVersion) -> None:
    """Remove the pieces that an earlier run left of a video unless they are of the present version of its file.

    Parameters
    ----------
    folder : Path
        The folder for pieces of the present version.
    path : Path
        The video file.
    version : FileVersion
        Its present version. If only the time of the last status change differs, the digest decides.
    """
    folders = _folders_of_video(folder)
    if not folders:
        return
    recorded = _read_record(folder)
    if recorded is not None and recorded[0] != version:
        try:
            record_source(folder, Source(path, version))
        except (SourceChangedError, OSError):
            recorded = None
    for other in folders:
        if other != folder or recorded is None:
            shutil.rmtree(other, ignore_errors=True)


def _folders_of_video(folder: Path) -> list[Path]:
    """Return the folders that hold pieces of a video, of any version of its file."""
    return sorted(folder.parent.glob(f"{folder.name.partition('-')[0]}-*")) if folder.parent.is_dir() else []


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

    Parameters
    ----------
    folder : Path
        The folder, made if it is missing.
    start : int
        The first flow field.
    check : callable, optional
        Called before each file gets its final name; if it raises, the file is deleted instead.
    """

    def __init__(self, folder: Path, start: int, check: Callable[[], None] = lambda: None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._first, self._next, self._check = folder, start, start, check
        self._file: BinaryIO | None = None
        self._part, self._lock = folder, -1

    def append(self, q: NDArray[np.uint8]) -> None:
        """Add flow fields, uint8 (n, 2, H, W)."""
        for field in q:
            if self._file is None:
                self._part, self._lock = new_part(self._folder / f"{self._first:09d}")
                self._file = self._part.open("wb")
            with with_file_name(self._part):
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
            with with_file_name(self._part), file:
                file.flush()
                os.fsync(file.fileno())
            self._check()
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


def remove_old_pieces(clips: Path) -> None:
    """Delete what an earlier flowkit kept of long videos, under another name."""
    shutil.rmtree(clips / OLD_PIECES_FOLDER, ignore_errors=True)


def remove_pieces(folder: Path) -> None:
    """Delete a video's pieces, of every version of its file."""
    for other in _folders_of_video(folder):
        shutil.rmtree(other, ignore_errors=True)
    with suppress(OSError):  # another process may add the pieces of another video at this moment
        folder.parent.rmdir()
