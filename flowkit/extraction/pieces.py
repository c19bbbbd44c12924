"""Pieces of a long video's quantised flow, kept as files until the clip is written: for resuming, and for sharing the work.

A video whose flow takes long is solved in segments, by several processes or in several runs. Each finished piece is a file of
raw bytes under ``clips/.segments/``, named after the video, the version of its file, and the flow fields it holds; the clip
file is then written from them as if one process had solved the whole video: flow field k depends on frames k and k+1 only.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import secrets
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from flowkit.errors import FlowkitError
from flowkit.files import PART_SUFFIX, fsync_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

_NAME = re.compile(r"(\d{9})-(\d{9})\.flow")
FIELDS_PER_FILE = 256  # a kill loses at most this many flow fields of each process


@dataclass(frozen=True)
class Segment:
    """A file of the quantised flow fields `start` to `stop` of a video, uint8 (stop - start, 2, H, W)."""

    start: int
    stop: int
    path: str


def segment_folder(clips: Path, video_id: str, source_bytes: int, source_mtime_ns: int) -> Path:
    """Return the folder of a video's segments; another version of the video's file has another one."""
    name = hashlib.sha256(video_id.encode("utf-8", "surrogatepass")).hexdigest()[:24]
    return clips / ".segments" / f"{name}-{source_bytes:x}-{source_mtime_ns:x}"


def find_segments(folder: Path) -> list[Segment]:
    """Return the finished segments in a folder, in order, without overlaps; part files are not among them."""
    found: list[Segment] = []
    for path in sorted(folder.glob("*.flow")):
        match = _NAME.fullmatch(path.name)
        if match and int(match[1]) < int(match[2]) and (not found or int(match[1]) >= found[-1].stop):
            found.append(Segment(int(match[1]), int(match[2]), str(path)))
    return found


def missing_ranges(segments: Sequence[Segment], num_pairs: int, num_pieces: int) -> list[tuple[int, int | None]]:
    """Cut what the segments do not cover into about `num_pieces` ranges of flow fields.

    Parameters
    ----------
    segments : sequence of Segment
        Disjoint and in order.
    num_pairs : int
        Flow fields the video's header promises.
    num_pieces : int
        How many ranges the whole video would be cut into.

    Returns
    -------
    list of (start, stop)
        The last one's stop is None, to the end of the video: a header may be wrong.
    """
    length = max(-(-num_pairs // num_pieces), 1)
    gaps, at = [], 0
    for segment in segments:
        if segment.start > at:
            gaps.append((at, segment.start))
        at = segment.stop
    ranges: list[tuple[int, int | None]] = []
    for start, stop in [*gaps, (at, max(num_pairs, at + 1))]:
        count = max(round((stop - start) / length), 1)
        edges = [start + (stop - start) * k // count for k in range(count + 1)]
        ranges.extend(itertools.pairwise(edges))
    ranges[-1] = (ranges[-1][0], None)
    return ranges


class SegmentWriter:
    """Writes flow fields from `start` on into files of at most `FIELDS_PER_FILE`, each with its final name when it is whole.

    Its part files are its own: should another process, perhaps one that was taken for dead, solve the same flow fields, neither
    writes into the other's file.
    """

    def __init__(self, folder: Path, start: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._first, self._next = folder, start, start
        self._mark = secrets.token_hex(4)
        self._file: BinaryIO | None = None

    @property
    def _part(self) -> Path:
        return self._folder / f"{self._first:09d}-{self._mark}{PART_SUFFIX}"

    def append(self, q: NDArray[np.uint8]) -> None:
        """Add flow fields, uint8 (n, 2, H, W)."""
        for field in q:
            if self._file is None:
                self._file = self._part.open("wb")
            self._file.write(field.tobytes())
            self._next += 1
            if self._next - self._first == FIELDS_PER_FILE:
                self.close()

    def close(self) -> None:
        """Give what was written its final name."""
        if self._file is None:
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None
        self._part.replace(self._folder / f"{self._first:09d}-{self._next:09d}.flow")
        fsync_folder(self._folder)
        self._first = self._next


class SegmentReader:
    """Reads the flow fields of a video in order from its segments.

    Raises
    ------
    FlowkitError
        If the segments leave a gap or are of another frame size.
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._waiting = list(segments)
        self._at = 0
        self._file: BinaryIO | None = None
        self._left = 0

    def __enter__(self) -> SegmentReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def read(self, count: int, height: int, width: int) -> NDArray[np.uint8]:
        """Return the next flow fields, uint8 (count, 2, H, W)."""
        import numpy as np

        q = np.empty((count, 2, height, width), np.uint8)
        for field in q:
            if self._left == 0:
                self._open_next()
            assert self._file is not None
            data = self._file.read(field.nbytes)
            if len(data) != field.nbytes:
                raise FlowkitError(f"{self._file.name} is cut short; remove its folder and run the same line again")
            field[...] = np.frombuffer(data, np.uint8).reshape(field.shape)
            self._left -= 1
            self._at += 1
        return q

    def _open_next(self) -> None:
        if self._file is not None:
            self._file.close()
        if not self._waiting or self._waiting[0].start != self._at:
            raise FlowkitError(f"flow field {self._at} is in no segment; run the same line again")
        segment = self._waiting.pop(0)
        self._file, self._left = open(segment.path, "rb"), segment.stop - segment.start  # noqa: SIM115 - closed in __exit__


def remove_segments(folder: Path) -> None:
    """Delete a video's segments, once its clip is written."""
    shutil.rmtree(folder, ignore_errors=True)
    parent = folder.parent
    if parent.is_dir() and not any(parent.iterdir()):
        parent.rmdir()
