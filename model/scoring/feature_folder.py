"""Folders of features: one NumPy file for each video and stream, and a record of what they are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import FeaturesError
from flowkit.files import remove_leftovers, replacing, write_atomically
from flowkit.model.scoring.feature_files import (
    FORMAT,
    FORMAT_VERSION,
    TEXTS,
    PlannedFeatures,
    VideoFeatures,
    checked_features,
    checked_provenance,
)
from flowkit.model.scoring.plain_hdf5 import MAX_BYTES, refusing
from flowkit.records import RecordFormat
from flowkit.versions import __version__

RECORD_NAME = "features.json"
RECORD = RecordFormat(FORMAT, FORMAT_VERSION, FeaturesError, "make the folder again with `flowkit features --replace`")
_ABOUT = (*TEXTS, "num_frames")
_KIND = "a folder of features, as `flowkit features` writes it"


def write_feature_folder(folder: Path, provenance: Mapping[str, Any], videos: Sequence[PlannedFeatures]) -> None:
    """Write ``<folder>/<stream>/<video_id>.npy`` for each video and stream, the numbers of their frames, and then ``features.json``.

    Features of anything else that the folder has are removed first, as far as its ``features.json`` lists them, and at the end what
    killed calls left.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    _remove_others(folder, provenance)
    listed, folders = [], {folder}
    for video in videos:
        about = video.about
        folders.update((folder / kind / about.video_id).parent for kind in (*video.shapes, "frames", "times"))
        for stream, shape in video.shapes.items():
            with replacing(folder / stream / f"{about.video_id}.npy") as part, part.open("wb") as file:
                np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
                for block in video.blocks():
                    file.write(np.ascontiguousarray(block[stream], "<f4").tobytes())
        with replacing(folder / "frames" / f"{about.video_id}.npy") as part, part.open("wb") as file:
            np.lib.format.write_array(file, about.frames.astype("<i8"), allow_pickle=False)
        if about.times is not None:
            with replacing(folder / "times" / f"{about.video_id}.npy") as part, part.open("wb") as file:
                np.lib.format.write_array(file, about.times.astype("<f8"), allow_pickle=False)
        listed.append({name: getattr(about, name) for name in _ABOUT})
    record = {**RECORD.header, "created_by": f"flowkit {__version__}", "provenance": provenance, "videos": listed}
    write_atomically(folder / RECORD_NAME, json.dumps(record, ensure_ascii=False, indent=1) + "\n")
    for written in folders:
        remove_leftovers(written, alone=False)


def _remove_others(folder: Path, provenance: Mapping[str, Any]) -> None:
    """Remove the files of other features, the record first: what is left after a crash is no folder of features."""
    try:
        there = FeatureFolder(folder)
    except FeaturesError:
        return
    if there.provenance != provenance:
        (folder / RECORD_NAME).unlink()
        for video_id in there.video_ids:
            for kind in (*there.provenance["streams"], "frames", "times"):
                there.file(kind, video_id).unlink(missing_ok=True)


class FeatureFolder:
    """A folder of features, read as foreign data.

    Parameters
    ----------
    path : Path
        The folder.

    Raises
    ------
    FeaturesError
        If its record is missing, damaged or of another kind or version.

    Attributes
    ----------
    provenance : dict
        What the features depend on.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        record = RECORD.read(path / RECORD_NAME)
        with refusing(path, _KIND, FeaturesError):
            self.provenance = checked_provenance(record["provenance"])
            listed = [{"source_sha256": "", **about} for about in record["videos"]]
            self._videos = {str(about["video_id"]): {name: about[name] for name in _ABOUT} for about in listed}
            outside = [name for name in (*self._videos, *self.provenance["streams"]) if not _is_inside(name)]
            if outside:
                raise ValueError(f"{outside[0][:80]!r} leads out of it")

    @property
    def video_ids(self) -> tuple[str, ...]:
        """The videos, sorted."""
        return tuple(sorted(self._videos))

    def digests(self) -> dict[str, str]:
        """Return the digest of the clip of each video."""
        return {video_id: str(about["sha256"]) for video_id, about in self._videos.items()}

    def source_digests(self) -> dict[str, str]:
        """Return the SHA-256 of the file of each video; an empty text where it was not noted."""
        return {video_id: str(about["source_sha256"]) for video_id, about in self._videos.items()}

    def file(self, kind: str, video_id: str) -> Path:
        """Return the file of a video: of a stream, or of the numbers of the frames (``frames``) or their times (``times``)."""
        return self.path / kind / f"{video_id}.npy"

    def read(self, video_id: str) -> VideoFeatures:
        """Return the features of a video.

        Raises
        ------
        FeaturesError
            If there is no such video, or one of its files is missing or damaged.
        """
        if video_id not in self._videos:
            raise FeaturesError(f"{self.path} has no features of {video_id}")
        about = self._videos[video_id]
        with refusing(self.path, _KIND, FeaturesError):
            arrays = {stream: self._array(stream, video_id) for stream in self.provenance["streams"]}
            texts = {name: str(about[name]) for name in TEXTS}
            frames = self._array("frames", video_id).astype(np.int64)
            times = self._array("times", video_id).astype(np.float64) if self.file("times", video_id).is_file() else None
            found = VideoFeatures(num_frames=int(about["num_frames"]), frames=frames, arrays=arrays, frame_times=times, **texts)
            return checked_features(found, self.provenance["streams"])

    def read_all(self, video_ids: Sequence[str] | None = None) -> Iterator[VideoFeatures]:
        """Yield the features of these videos, or of all."""
        for video_id in self.video_ids if video_ids is None else video_ids:
            yield self.read(video_id)

    def planned(self, video_id: str) -> PlannedFeatures:
        """Return the features of a video so that they can be written again; its arrays are read when they are written."""
        return PlannedFeatures.of(self.read(video_id), lambda: self.read(video_id))

    def _array(self, kind: str, video_id: str) -> NDArray[Any]:
        path = self.file(kind, video_id)
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path.name} has more than {MAX_BYTES} bytes")
        return np.asarray(np.load(path, allow_pickle=False))


def _is_inside(name: str) -> bool:
    parts = Path(name).parts
    return bool(parts) and not Path(name).is_absolute() and ".." not in parts
