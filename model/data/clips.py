"""The clips of manifest rows, read from shards, for training and test alike."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from flowkit.dataset.manifest import ClipRecord
from flowkit.dataset.root import Dataset
from flowkit.errors import ManifestError, ShardFormatError, SourceChangedError
from flowkit.quantise import Quantiser
from flowkit.shards.file_bytes import version_of
from flowkit.shards.reader import Clip, ShardReader
from flowkit.temporary import process_folder

_MAX_SOCKET_FOLDER_BYTES = 70  # a socket's path may have 103 on macOS, and multiprocessing adds 32


class ManifestClips:
    """The clips of manifest rows. It can be pickled; each process opens the shards itself, and finds the same files or none."""

    def __init__(self, dataset: Dataset, records: Sequence[ClipRecord], quantiser: Quantiser) -> None:
        self.records = tuple(records)
        self.quantiser = quantiser
        self._shards = {record.shard: ShardReader(dataset.shard_path(record)) for record in self.records}
        self._versions = {name: version_of(shard.path) for name, shard in self._shards.items()}

    def clip(self, row: int) -> Clip:
        """Return the clip of a row.

        Raises
        ------
        SourceChangedError
            If the shard is not the file that was there at the beginning.
        ManifestError
            If it is not the clip that the manifest describes.
        """
        record = self.records[row]
        shard = self._shards[record.shard]
        self._check_version(record.shard)
        try:
            clip = shard.clip(record.video_id)
        except (ShardFormatError, OSError):
            self._check_version(record.shard)  # the error may have come of a change
            raise
        for name, is_now, must_be in (
            ("num_frames", clip.num_frames, record.num_frames),
            ("quantiser", clip.quantiser, self.quantiser),
            ("sha256", clip.sha256, record.sha256 or clip.sha256),
        ):
            if is_now != must_be:
                raise ManifestError(
                    f"{shard.path}: the {name} of {record.video_id!r} is {is_now}, the split's manifest says {must_be}; "
                    "run `flowkit pack` again"
                )
        return clip

    def _check_version(self, name: str) -> None:
        """Refuse a shard that was replaced, as `flowkit pack` does, so that no process reads clips of another packing than the others."""
        shard, version = self._shards[name], self._versions[name]
        if version is None:
            return  # it was never there, as the error of opening it will say
        try:
            unchanged = shard.data.version == version == version_of(shard.path)
        except FileNotFoundError:
            unchanged = False
        if not unchanged:
            raise SourceChangedError(
                f"{shard.path} was replaced, changed or removed while it was in use. If `flowkit pack` is running, wait until it has "
                "finished; then run the same line again"
            )


def read_fields(clip: Clip, fields: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Read flow fields, uint8 (n, 2, H, W), by increasing index; neighbours are read together."""
    runs = np.split(fields, np.flatnonzero(np.diff(fields) > 1) + 1)
    return np.concatenate([clip.flow(int(run[0]), int(run[-1]) + 1) for run in runs])


def stacks(fields: NDArray[np.uint8], where: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Join fields (n, 2, H, W) to stacks (T, 20, H, W): channel 2k is u and channel 2k+1 is v of a stack's field k."""
    return fields[where].reshape(len(where), 2 * where.shape[1], *fields.shape[2:])


def clip_loader(clips: TorchDataset[Any], num_workers: int, **settings: Any) -> DataLoader[Any]:
    """Return a loader whose worker processes, if any, leave Ctrl-C and random numbers alone; `settings` are those of `DataLoader`."""
    if num_workers:
        import cv2

        # Before the fork: a worker that is forked while OpenCV has threads waits forever when it uses them.
        cv2.setNumThreads(1)
    start = partial(_start_worker, folder=_socket_folder()) if num_workers else None
    # The loader draws a seed for its workers; with its own generator it does not change the caller's random numbers.
    return DataLoader(clips, num_workers=num_workers, generator=torch.Generator(), worker_init_fn=start, **settings)


def _socket_folder() -> str | None:
    """Return where workers make the folders of their sockets, so that those of a killed process are removed later; None: anywhere."""
    folder = str(process_folder())
    return folder if len(os.fsencode(folder)) <= _MAX_SOCKET_FOLDER_BYTES else None


def _start_worker(worker: int, *, folder: str | None) -> None:
    """Leave Ctrl-C to the main process, which first finishes its step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if folder is not None:
        tempfile.tempdir = folder
