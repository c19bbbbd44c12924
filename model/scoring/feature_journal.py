"""Features that are computed but not yet in their file, kept window by window, so that a run that is stopped loses at most one.

The journal begins with one line of JSON that says what the features depend on. A window is used again only if that line is, byte
for byte, the one that this run would write. Then follow records: the number of bytes, their CRC-32, and a safetensors file with the arrays
and the name of the window. A record that was cut off or damaged ends the journal there.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from flowkit.files import with_file_name
from flowkit.records import canonical_json, parse_json
from flowkit.shards.reader import Clip

_HEAD = struct.Struct("<QI")
MOST_BYTES = 1 << 30  # of a record: a window of 64 time steps of two streams has about 1 MB


@dataclass(frozen=True)
class VideoToDo:
    """A video whose features are wanted: what is recorded of its clip, and the digests of the clip and of the video file."""

    video_id: str
    class_name: str
    num_frames: int
    frame_rate: str
    sha256: str
    source_sha256: str

    @classmethod
    def of(cls, clip: Clip) -> VideoToDo:
        """Return what is recorded of a clip."""
        about = clip.attributes
        return cls(clip.video_id, clip.class_name, clip.num_frames, about.frame_rate, clip.sha256, about.source_sha256)


class WindowName(NamedTuple):
    """Which window of which video: the first of its time steps."""

    video: VideoToDo
    output: int


class FeatureJournal:
    """The windows that earlier calls computed, and those that this one adds. A context manager.

    Parameters
    ----------
    path : Path
        The file. One that depends on anything else is replaced when the first window is added.
    depends_on : mapping
        What the features depend on, as built-in types.
    """

    def __init__(self, path: Path, depends_on: Mapping[str, Any]) -> None:
        self.path = path
        self._header = canonical_json(depends_on).encode("utf-8", "surrogateescape") + b"\n"
        self._places: dict[WindowName, tuple[int, int]] = {}
        self._end = 0
        self._file = -1

    def __enter__(self) -> FeatureJournal:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, flags, 0o666)
        if os.pread(self._file, len(self._header), 0) != self._header:
            os.ftruncate(self._file, 0)
            self._append(self._header)
        self._end = len(self._header)
        while (record := self._record(self._end)) is not None and (name := _name_of(record)) is not None:
            self._places[name] = self._end + _HEAD.size, len(record)
            self._end += _HEAD.size + len(record)
        os.ftruncate(self._file, self._end)
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._file)
        self._file = -1

    def __contains__(self, name: WindowName) -> bool:
        return name in self._places

    def __len__(self) -> int:
        return len(self._places)

    def videos(self) -> set[VideoToDo]:
        """Return the videos of which it has a window."""
        return {name.video for name in self._places}

    def add(self, name: WindowName, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep the arrays of a window.

        Raises
        ------
        OSError
            If the disk is full.
        """
        from safetensors.numpy import save

        record = save(dict(arrays), metadata={"window": json.dumps([asdict(name.video), name.output])})
        self._append(_HEAD.pack(len(record), zlib.crc32(record)) + record)
        self._places[name] = self._end + _HEAD.size, len(record)
        self._end += _HEAD.size + len(record)

    def read(self, name: WindowName) -> dict[str, NDArray[Any]]:
        """Return the arrays of a window that is kept."""
        from safetensors.numpy import load

        place, length = self._places[name]
        return dict(load(os.pread(self._file, length, place)))

    def remove(self) -> None:
        """Remove the file: its windows have found their place."""
        self.path.unlink(missing_ok=True)

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        with with_file_name(self.path):
            place = os.lseek(self._file, 0, os.SEEK_END)
            while view:
                written = os.pwrite(self._file, view, place)
                place, view = place + written, view[written:]

    def _record(self, place: int) -> bytes | None:
        """Return the complete record at a place; None if there is none."""
        head = os.pread(self._file, _HEAD.size, place)
        if len(head) < _HEAD.size:
            return None
        length, checksum = _HEAD.unpack(head)
        if length > MOST_BYTES:
            return None
        record = os.pread(self._file, length, place + _HEAD.size)
        return record if len(record) == length and zlib.crc32(record) == checksum else None


def _name_of(record: bytes) -> WindowName | None:
    """Return the name of a record's window; None if it is no record of a window."""
    try:
        (length,) = struct.unpack("<Q", record[:8])
        values, output = parse_json(parse_json(record[8 : 8 + length])["__metadata__"]["window"])
        video = VideoToDo(**values)
    except (ValueError, KeyError, TypeError, struct.error):
        return None
    have_types = all(type(value) is (int if name == "num_frames" else str) for name, value in values.items())
    return WindowName(video, output) if have_types and type(output) is int else None


def journal_of(output: Path) -> Path:
    """Return the path of the journal of an output."""
    return output.with_name(f".{output.name}.unfinished")
