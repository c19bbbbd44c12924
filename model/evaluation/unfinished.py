"""The scores of an evaluation that is not finished, kept video by video, so that the same command goes on after it was stopped.

A file ``unfinished-scores-<rank>.bin`` begins with one line of JSON that says what the scores depend on: weights, data, protocol,
precision and software. Scores are used only if that line is, byte for byte, the one that this evaluation would write. Then
follow records of equal length: the number of a video in the test list, its scores, and a checksum. A record that was cut off or
damaged counts as not there. `flowkit.model.comparison` keeps the scores of each phase in the same way, for good.
"""

from __future__ import annotations

import errno
import logging
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.dataset.manifest import Split
from flowkit.files import read_file
from flowkit.model.scoring.scored_videos import VideoScores
from flowkit.model.settings.training import Phase
from flowkit.records import canonical_json

_FORMAT, _FORMAT_VERSION = "flowkit-unfinished-scores", 1
UNFINISHED = "unfinished-scores"
_logger = logging.getLogger(__name__)


class UnfinishedScores:
    """The scores of one split that earlier, interrupted calls computed, and those that this one adds. A context manager.

    Parameters
    ----------
    folder : Path, optional
        Where they are kept; made with the first score. None: nowhere.
    split : Split
        The split that is tested.
    weights : mapping of Phase to str
        The digests of the networks that are tested.
    settings : mapping
        What else the scores depend on, as built-in types.
    parts : sequence of (str, str)
        The phase and the stream of each score of a video.
    rank : int
        The number of this process; each writes to a file of its own, and reads all of them.
    of_name : str
        What the names of the files begin with.
    """

    def __init__(
        self,
        folder: Path | None,
        split: Split,
        weights: Mapping[Phase, str],
        settings: Mapping[str, Any],
        *,
        parts: Sequence[tuple[Phase, str]],
        rank: int,
        of_name: str = UNFINISHED,
    ) -> None:
        self._video_ids = tuple(record.video_id for record in split.test)
        self._number_of = {video_id: number for number, video_id in enumerate(self._video_ids)}
        self._parts = list(parts)
        self._record = np.dtype([("number", "<u4"), ("scores", "<f8", (len(self._parts), len(split.classes))), ("checksum", "<u4")])
        self._folder, self._file, self._names = folder, -1, _names(of_name)
        if folder is not None:
            self._path = folder / f"{of_name}-{rank}.bin"
            header = {
                "format": _FORMAT,
                "format_version": _FORMAT_VERSION,
                "split": split.number,
                "data": split.digest,
                "classes": list(split.classes),
                "weights": dict(weights),
                **settings,
            }
            self._header = canonical_json(header).encode("utf-8", "surrogateescape") + b"\n"

    def __enter__(self) -> UnfinishedScores:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def read(self) -> dict[str, VideoScores]:
        """Return the scores that earlier calls kept of the same weights, data and settings, by video."""
        kept: dict[str, VideoScores] = {}
        for path in sorted(self._folder.glob(self._names)) if self._folder is not None else ():
            for number, scores in self._read(path):
                kept[self._video_ids[number]] = dict(zip(self._parts, scores, strict=True))
        return kept

    def add(self, scored: Mapping[str, VideoScores]) -> None:
        """Keep the scores of more videos; if they cannot be written, say so once and keep none from then on."""
        if self._folder is None or not scored:
            return
        records = np.zeros(len(scored), self._record)
        for record, (video_id, values) in zip(records, scored.items(), strict=True):
            record["number"] = self._number_of[video_id]
            record["scores"] = [values[part] for part in self._parts]
            record["checksum"] = _checksum(record)
        try:
            if self._file < 0:
                self._file = self._open()
            _write(self._file, records.tobytes())
        except OSError as error:
            _logger.warning("an interrupted evaluation could not go on later: its scores cannot be kept (%s)", error.strerror or error)
            self._close()
            self._folder = None

    def _open(self) -> int:
        """Return a descriptor of this process's file, after its last complete record; a file of another evaluation is replaced."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        data = self._bytes(self._path)
        flags = os.O_WRONLY | os.O_APPEND | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
        if data is not None:
            descriptor = os.open(self._path, flags)
            os.ftruncate(descriptor, len(data) - (len(data) - len(self._header)) % self._record.itemsize)
            return descriptor
        self._path.unlink(missing_ok=True)
        descriptor = os.open(self._path, flags | os.O_CREAT | os.O_EXCL, 0o666)
        _write(descriptor, self._header)
        return descriptor

    def _read(self, path: Path) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """Yield the complete records of a file; none if it is of another evaluation."""
        data = self._bytes(path)
        if data is None:
            return
        count = (len(data) - len(self._header)) // self._record.itemsize
        for record in np.frombuffer(data, self._record, count, len(self._header)):
            is_whole = record["checksum"] == _checksum(record) and record["number"] < len(self._video_ids)
            if is_whole and np.isfinite(record["scores"]).all():
                yield int(record["number"]), record["scores"].astype(np.float64)

    def _bytes(self, path: Path) -> bytes | None:
        """Return what a file holds if it is of this evaluation; it cannot be longer than a record for each video, and as many again."""
        try:
            data = read_file(path, most_bytes=len(self._header) + 2 * len(self._video_ids) * self._record.itemsize)
        except OSError:
            return None
        return data if data.startswith(self._header) else None

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def remove_unfinished(folder: Path) -> None:
    """Remove the scores that are kept in a folder: its evaluation is finished."""
    for path in folder.glob(_names(UNFINISHED)):
        path.unlink(missing_ok=True)


def _names(of_name: str) -> str:
    return f"{of_name}-[0-9]*.bin"


def _write(descriptor: int, data: bytes) -> None:
    if os.write(descriptor, data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _checksum(record: Any) -> int:
    return zlib.crc32(record["scores"].tobytes(), int(record["number"]))
