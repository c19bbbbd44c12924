"""An HDF5 shard that is being written: videos are added one after the other, always in the same way."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from flowkit.shards.chunks import flow_creation_list
from flowkit.shards.schema import (
    FORMAT,
    FORMAT_VERSION,
    ROOT_ATTRIBUTES,
    VIDEO_ATTRIBUTES,
    VIDEOS_GROUP,
    Attribute,
    ClipAttributes,
    group_name,
)

_BLOCK_BYTES = 1 << 20
_Piece = TypeVar("_Piece")


@dataclass(frozen=True)
class Images:
    """JPEGs to be stored end to end: their offsets and CRCs, and their bytes in blocks of any length."""

    offsets: NDArray[np.int64]
    crc32: NDArray[np.uint32]
    pieces: Iterable[bytes]


@dataclass(frozen=True)
class Chunks:
    """Flow chunks to be stored as they are: the filter mask and the bytes of each."""

    chunks: Iterable[tuple[int, bytes]]


class NewShard:
    """A new shard file. It is a context manager, which closes the file at the end.

    Parameters
    ----------
    path : Path
        A part file, because an HDF5 file is complete only when it has been closed.

    Raises
    ------
    OSError
        If the file cannot be written, with the ``errno`` of the system (``ENOSPC`` for a full disk).
    """

    def __init__(self, path: Path) -> None:
        import h5py
        from h5py import h5g

        from flowkit.versions import __version__

        self._bytes = _PartFile(path)
        self._file = h5py.File(self._bytes, "w", libver=("v110", "v110"), rdcc_nbytes=0)
        root = h5g.open(self._file.id, b"/")
        values: dict[str, str | int] = {"format": FORMAT, "format_version": FORMAT_VERSION, "created_by": f"flowkit {__version__}"}
        _write_attributes(root, ROOT_ATTRIBUTES, values)
        self._videos = h5g.create(root, VIDEOS_GROUP.encode(), gcpl=_group_creation_list())
        self._num_videos = 0

    def __enter__(self) -> NewShard:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.close()
        self._bytes.close()
        if kind is None:  # the last write may have failed
            self._bytes.check()

    def write_video(
        self,
        attributes: ClipAttributes,
        height: int,
        width: int,
        frames: Images,
        flow: Images | Chunks | None,
        times: NDArray[np.float64] | None = None,
    ) -> str:
        """Add one video.

        Parameters
        ----------
        attributes : ClipAttributes
            What is stored about the video besides its pixels.
        height, width : int, px
            Size of frames and flow.
        frames : Images
            The frames.
        flow : Images or Chunks or None
            The flow, as images if the codec is ``jpeg``, else as chunks; None if the video has frames only.
        times : float64 array, shape (T,), s, optional
            The time stamps of the frames, if they are known.

        Returns
        -------
        str
            The SHA-256 of attributes, offsets, CRCs, times and encoded flow, which is stored with the video.
        """
        from h5py import h5g

        digest = hashlib.sha256(attributes.to_json().encode("utf-8"))
        group = h5g.create(self._videos, group_name(self._num_videos).encode(), gcpl=_group_creation_list())
        self._num_videos += 1
        _write_index(group, "frame", frames, digest)
        if times is not None:
            stored = times.astype("<f8")
            _write_array(group, "times", stored)
            digest.update(stored.tobytes())
        if isinstance(flow, Images):
            _write_index(group, "flow", flow, digest)
            _write_pieces(group, "flow", int(flow.offsets[-1]), self._checked(_hashed(flow.pieces, digest)))
        elif flow is not None:
            shape = (attributes.num_frames - 1, 2, height, width)
            _write_chunks(group, attributes.codec, shape, self._checked(flow.chunks), digest)
        _write_pieces(group, "frames", int(frames.offsets[-1]), self._checked(frames.pieces))
        sha256 = digest.hexdigest()
        _write_attributes(group, VIDEO_ATTRIBUTES, {**attributes.to_stored(), "sha256": sha256})
        return sha256

    def _checked(self, pieces: Iterable[_Piece]) -> Iterator[_Piece]:
        """Pass items on as long as everything written so far has reached the disk."""
        for piece in pieces:
            self._bytes.check()
            yield piece


class _PartFile(io.FileIO):
    """A file through which HDF5 writes, and which hides errors from HDF5, because a full disk would make HDF5 crash the process.

    The first error is kept for `check`; everything that HDF5 writes after it is dropped.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self._error: BaseException | None = None

    def write(self, data: Any) -> int:
        """Write everything, or keep the error."""
        view = memoryview(data)
        try:
            while self._error is None and view:
                view = view[super().write(view) :]
        except BaseException as error:  # an interrupt must not pass through HDF5 either
            self._error = error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """Set the length of the file, or keep the error."""
        try:
            return super().truncate(size)
        except BaseException as error:
            self._error = self._error or error
            return size or 0

    def check(self) -> None:
        """Raise the first error, if there was one, with the name of the file."""
        if isinstance(self._error, OSError):
            raise OSError(self._error.errno, self._error.strerror, str(self.name)) from self._error
        if self._error is not None:
            raise self._error


def _group_creation_list() -> Any:
    from h5py import h5p

    properties = h5p.create(h5p.GROUP_CREATE)
    properties.set_obj_track_times(False)
    properties.set_attr_phase_change(32, 0)  # attributes stay in the header of the group, which has a checksum and is read at once
    return properties


def _write_attributes(group: Any, declared: Sequence[Attribute], values: dict[str, str | int]) -> None:
    from h5py import h5a, h5s, h5t

    scalar = h5s.create(h5s.SCALAR)
    for attribute in declared:
        if attribute.is_optional and attribute.name not in values:
            continue
        value = values[attribute.name]
        if isinstance(value, int):
            h5a.create(group, attribute.name.encode(), h5t.STD_I64LE, scalar).write(np.array(value, dtype="<i8"))
            continue
        data = value.encode("utf-8")
        kind = h5t.C_S1.copy()
        kind.set_size(max(len(data), 1))  # HDF5 has no string of length 0; an empty one is a single NUL
        kind.set_strpad(h5t.STR_NULLPAD)
        kind.set_cset(h5t.CSET_UTF8)
        h5a.create(group, attribute.name.encode(), kind, scalar).write(np.array(data, dtype=f"S{max(len(data), 1)}"), mtype=kind)


def _write_chunks(group: Any, codec: str, shape: tuple[int, ...], chunks: Iterable[tuple[int, bytes]], digest: Any) -> None:
    from h5py import h5d, h5s, h5t

    data_set = h5d.create(group, b"flow", h5t.STD_U8LE, h5s.create_simple(shape), dcpl=flow_creation_list(codec, *shape[2:]))
    for k, (mask, data) in enumerate(chunks):
        data_set.write_direct_chunk((k, 0, 0, 0), data, mask)
        digest.update(data)


def _create_contiguous(group: Any, name: str, kind: Any, length: int) -> Any:
    from h5py import h5d, h5p, h5s

    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_obj_track_times(False)
    properties.set_layout(h5d.CONTIGUOUS)
    properties.set_fill_time(h5d.FILL_TIME_NEVER)
    return h5d.create(group, name.encode(), kind, h5s.create_simple((length,)), dcpl=properties)


def _write_index(group: Any, prefix: str, images: Images, digest: Any) -> None:
    """Write the offsets and CRCs of images."""
    for name, array in (("offsets", images.offsets.astype("<i8")), ("crc32", images.crc32.astype("<u4"))):
        _write_array(group, f"{prefix}_{name}", array)
        digest.update(array.tobytes())


def _write_array(group: Any, name: str, array: NDArray[Any]) -> None:
    from h5py import h5s, h5t

    kind = {"int64": h5t.STD_I64LE, "uint32": h5t.STD_U32LE, "float64": h5t.IEEE_F64LE}[array.dtype.name]
    _create_contiguous(group, name, kind, len(array)).write(h5s.ALL, h5s.ALL, array)


def _write_pieces(group: Any, name: str, num_bytes: int, pieces: Iterable[bytes]) -> None:
    from h5py import h5s, h5t

    data_set = _create_contiguous(group, name, h5t.STD_U8LE, num_bytes)
    space = data_set.get_space()
    at = 0
    for block in _blocks(pieces):
        array = np.frombuffer(block, dtype=np.uint8)
        space.select_hyperslab((at,), (len(array),))
        data_set.write(h5s.create_simple((len(array),)), space, array)
        at += len(array)


def _blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Join pieces into blocks of about 1 MiB, which are the same whenever the pieces are."""
    joined = bytearray()
    for piece in pieces:
        joined += piece
        if len(joined) >= _BLOCK_BYTES:
            yield bytes(joined)
            joined.clear()
    if joined:
        yield bytes(joined)


def _hashed(pieces: Iterable[bytes], digest: Any) -> Iterator[bytes]:
    for piece in pieces:
        digest.update(piece)
        yield piece
