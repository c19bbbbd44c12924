"""Where the parts of a container lie, and whether a file ends before they do: an unfinished copy, download or recording.

The parts of a container say how large they are. FFmpeg reads what is there of the last part, often without an error.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_RIFF_SLACK_BYTES = 64  # some programs count the size of the file a little too large
_MAX_BOXES = 10000
_MAX_CHUNKS = 1 << 22
_PICTURES = (b"dc", b"db", b"iv")  # the ends of the names of chunks with pictures
_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067
_MAX_EBML_HEADER_BYTES = 4096


def is_cut_off(path: Path, names: Sequence[str], *, is_indexed: bool) -> bool:
    """Whether a file in one of FFmpeg's containers `mov` and `matroska` is cut off; False for the others.

    Parameters
    ----------
    path : Path
        The file.
    names : sequence of str
        FFmpeg's names of its container.
    is_indexed : bool
        Whether an index gives the number of frames, which is then more certain than the size of the box that holds them.
    """
    with path.open("rb") as file:
        num_bytes = file.seek(0, 2)
        if "matroska" in names:
            return _segment_end(file) > num_bytes
        if "mov" not in names:
            return False
        has_index = False
        for kind, start, size in mp4_boxes(file):
            if start + size > num_bytes:  # of two files that were joined, only the first is read
                return not has_index if kind == b"moov" else kind in (b"moof", b"mdat") and not is_indexed
            has_index |= kind == b"moov"
        return False


def mp4_boxes(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind, the start and the size of the content of the boxes of an MP4 or MOV file, at its top level."""
    end = file.seek(0, 2)
    at = 0
    for _ in range(_MAX_BOXES):
        file.seek(at)
        header = file.read(16)
        if len(header) < 8:
            return
        size, kind = struct.unpack(">I4s", header[:8])
        skip = 8
        if size == 1 and len(header) == 16:
            size, skip = struct.unpack(">Q", header[8:])[0], 16
        elif size == 0:
            size = end - at
        if size < skip:
            return
        yield kind, at + skip, size - skip
        at += size


def _segment_end(file: BinaryIO) -> int:
    """Return where the first segment of a Matroska or WebM file should end; 0 if it does not say."""
    file.seek(0)
    head = file.read(_MAX_EBML_HEADER_BYTES)
    if len(head) < 5 or int.from_bytes(head[:4], "big") != _EBML:
        return 0
    size, at = _ebml_size(head, 4)
    at += max(size, 0)
    if int.from_bytes(head[at : at + 4], "big") != _SEGMENT or at + 4 >= len(head):
        return 0
    size, at = _ebml_size(head, at + 4)
    return at + size if size >= 0 else 0


def _ebml_size(head: bytes, at: int) -> tuple[int, int]:
    """Return (the size that is written at a place, -1 if it is unknown; the place behind it)."""
    width = 9 - head[at].bit_length()
    size = int.from_bytes(head[at : at + width], "big") & ((1 << 7 * width) - 1)
    return (-1 if size == (1 << 7 * width) - 1 else size), at + width


def has_complete_avi_index(path: Path, num_bytes: int) -> bool:
    """Whether an AVI has an index of its chunks and does not end before the end that its RIFF lists give.

    FFmpeg makes up the beginning of an index where the file has none.
    """
    at, found = 0, False
    with path.open("rb") as file:
        while at + 12 <= num_bytes:
            file.seek(at)
            name, size, kind = struct.unpack("<4sI4s", file.read(12))
            if name != b"RIFF" or kind not in (b"AVI ", b"AVIX"):
                break
            end = at + 8 + size + size % 2
            if end > num_bytes + _RIFF_SLACK_BYTES:
                return False
            at += 12
            while at + 8 <= min(end, num_bytes):
                file.seek(at)
                name, size = struct.unpack("<4sI", file.read(8))
                found |= name == b"idx1" and size > 0
                at += 8 + size + size % 2
            at = end
        file.seek(0)
        return found or b"indx" in file.read(1 << 16)


def count_avi_chunks(path: Path, stream: int) -> int:
    """Return how many chunks of a stream an AVI holds, with the empty ones, which FFmpeg passes over; needed where it has no index."""
    prefix, count, at = b"%02d" % stream, 0, 0
    with path.open("rb") as file:
        for _ in range(_MAX_CHUNKS):
            file.seek(at)
            header = file.read(12)
            if len(header) < 8:
                break
            name, size = struct.unpack("<4sI", header[:8])
            is_list = name == b"RIFF" or (name == b"LIST" and header[8:] in (b"movi", b"rec "))
            count += name[:2] == prefix and name[2:] in _PICTURES
            at += 12 if is_list else 8 + size + size % 2
    return count
