"""The structure of a shard: where its bytes lie, checked completely before anything is read from it.

This module refuses everything foreign: links that are not hard, external and virtual storage, offsets outside the file, and
types, shapes, filters and storage that differ from the format. The result is plain numbers; pixels are then read without HDF5.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ShardFormatError
from flowkit.shards.chunks import CHECKSUM_BYTES, NOT_COMPRESSED
from flowkit.shards.file_bytes import ShardBytes
from flowkit.shards.jpeg import jpeg_size
from flowkit.shards.schema import (
    FILTERS,
    FORMAT,
    FORMAT_VERSION,
    MAX_JPEG_BYTES,
    MAX_PIXELS,
    MAX_SIDE_PX,
    MAX_TEXT_BYTES,
    MAX_VIDEOS,
    ROOT_ATTRIBUTES,
    VIDEO_ATTRIBUTES,
    VIDEOS_GROUP,
    Attribute,
    ClipAttributes,
    DataSet,
    data_sets,
    group_name,
)
from flowkit.words import counted

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_SUPERBLOCK_BYTES = 48
_UNDEFINED = 0xFFFF_FFFF_FFFF_FFFF
_HDF5_ERRORS = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, OverflowError, NotImplementedError, MemoryError)


@dataclass(frozen=True)
class JpegRun:
    """JPEGs stored end to end: image k is the bytes ``offsets[k]`` to ``offsets[k+1]`` after `start`, with the CRC-32 ``crc32[k]``."""

    start: int
    offsets: NDArray[np.int64]
    crc32: NDArray[np.uint32]

    def read(self, data: ShardBytes, k: int) -> bytes:
        """Return the bytes of JPEG `k` as they are stored; the caller tests the CRC."""
        start, stop = int(self.offsets[k]), int(self.offsets[k + 1])
        return data.read(self.start + start, stop - start)


@dataclass(frozen=True)
class ChunkRun:
    """Flow chunks: chunk k is ``sizes[k]`` bytes at ``starts[k]`` in the file, with HDF5's filter mask ``masks[k]``."""

    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    masks: NDArray[np.uint8]


@dataclass(frozen=True)
class VideoLayout:
    """One video of a shard whose structure has been checked: its attributes, and where in the file its bytes lie; no flow is None."""

    attributes: ClipAttributes
    sha256: str
    height: int
    width: int
    frames: JpegRun
    flow: ChunkRun | JpegRun | None
    times: NDArray[np.float64] | None = None

    @property
    def stored_bytes(self) -> int:
        """Number of stored bytes of frames and flow, which is the same in a clip file and in a shard; shards are cut by it."""
        frames = int(self.frames.offsets[-1])
        if self.flow is None:
            return frames
        return frames + (int(self.flow.offsets[-1]) if isinstance(self.flow, JpegRun) else int(self.flow.sizes.sum()))

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that all videos of a data root share, with the names of ``ExtractSettings.to_dict``."""
        other = {name: value for name in ("method", "camera_motion", "reading") if (value := getattr(self.attributes, name))}
        return {
            "quantiser": self.attributes.quantiser,
            "tvl1": self.attributes.tvl1,
            "solver": self.attributes.solver,
            "codec": self.attributes.codec,
            "short_side": min(self.height, self.width),
            **other,
        }


class ShardStructure:
    """An open shard file, whose groups are checked. It is a context manager, after which nothing of HDF5 remains open.

    Parameters
    ----------
    path : Path
        The shard or clip file.
    data : ShardBytes, optional
        The bytes of the same file, if it is open already.

    Raises
    ------
    ShardFormatError
        On entering, if the file is not a shard, has another format version, is truncated, or is unsafe to read.
    """

    def __init__(self, path: Path, data: ShardBytes | None = None) -> None:
        self.path = path
        self._data, self._owns_data = data, data is None
        self._file: Any = None

    def __enter__(self) -> ShardStructure:
        if self._data is None:
            self._data = ShardBytes(self.path)
        try:
            with as_format_errors(self.path):
                _check_superblock(self._data)
                self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._owns_data and self._data is not None:
            self._data.close()
            self._data = None

    def _open(self) -> None:
        import h5py
        from h5py import h5g

        assert self._data is not None
        self._file = h5py.File(self.path, "r", locking=False)
        if not self._data.is_at(self.path):  # offsets in one file mean nothing in another
            raise ShardFormatError("was replaced while it was being read; open it again")
        root = h5g.open(self._file.id, b"/")
        stored = _read_attributes(root, ROOT_ATTRIBUTES)
        if stored["format"] != FORMAT:
            raise ShardFormatError(f"has format {stored['format']!r}, not {FORMAT!r}")
        if stored["format_version"] != FORMAT_VERSION:
            raise ShardFormatError(f"has format version {stored['format_version']}; this flowkit reads version {FORMAT_VERSION}")
        self.created_by = str(stored["created_by"])
        _check_links(root, [VIDEOS_GROUP])
        self._videos = h5g.open(root, VIDEOS_GROUP.encode())
        self.num_videos = self._videos.get_num_objs()
        if not 1 <= self.num_videos <= MAX_VIDEOS:
            raise ShardFormatError(f"has {counted(self.num_videos, 'video')}; 1 to {MAX_VIDEOS:,} are allowed")

    def video_ids(self) -> list[str]:
        """Return the ids of all videos, in the order of the groups.

        Raises
        ------
        ShardFormatError
            If a video is not where the format puts it, or two videos have the same id.
        """
        seen: dict[str, None] = {}
        with as_format_errors(self.path):
            for index in range(self.num_videos):
                video_id = str(_read_attribute(self._group(index), VIDEO_ATTRIBUTES[0]))
                if video_id in seen:
                    raise ShardFormatError(f"contains video {video_id!r} twice")
                seen[video_id] = None
        return list(seen)

    def texts(self, name: str) -> list[str]:
        """Return one attribute of each video, a text that no video may lack, in the order of the groups."""
        (declared,) = (attribute for attribute in VIDEO_ATTRIBUTES if attribute.name == name)
        with as_format_errors(self.path):
            return [str(_read_attribute(self._group(index), declared)) for index in range(self.num_videos)]

    def _group(self, index: int) -> Any:
        """Open the group of a video. There are as many links as videos, so if each of their names exists, there is no other link."""
        from h5py import h5g

        name = group_name(index)
        _check_link(self._videos, name)
        return h5g.open(self._videos, name.encode())

    def layout(self, index: int) -> VideoLayout:
        """Check the group of the video with this index and return where its bytes lie.

        Raises
        ------
        ShardFormatError
            If anything differs from the format.
        """
        assert self._data is not None
        with as_format_errors(self.path, f"videos/{group_name(index)}"):
            group = self._group(index)
            stored = _read_attributes(group, VIDEO_ATTRIBUTES)
            sha256 = str(stored.pop("sha256"))
            attributes = ClipAttributes.from_stored(stored)
            declared = data_sets(attributes.codec)
            declared = {name: each for name, each in declared.items() if not each.is_optional or group.links.exists(name.encode())}
            _check_links(group, list(declared))
            num_frames = attributes.num_frames
            frames = _read_jpeg_run(group, self._data, num_frames, declared, prefix="frame", images="frames")
            flow: ChunkRun | JpegRun | None
            if not attributes.has_flow:
                flow, (height, width) = None, _size_of_first(frames, self._data)
            elif attributes.codec == "jpeg":
                flow = _read_jpeg_run(group, self._data, 2 * (num_frames - 1), declared, prefix="flow", images="flow")
                height, width = _size_of_first(flow, self._data)
            else:
                flow, height, width = _read_chunk_run(group, self._data, num_frames - 1, attributes.codec)
            times = _read_times(group, self._data, num_frames, declared["times"]) if "times" in declared else None
        return VideoLayout(attributes, sha256, height, width, frames, flow, times)


@contextmanager
def as_format_errors(path: Path, place: str = "") -> Iterator[None]:
    """Turn all errors that a foreign file causes in HDF5 into a `ShardFormatError` that names the file and the place in it."""
    where = f"{path}: {place}" if place else str(path)
    try:
        yield
    except ShardFormatError as cause:
        raise ShardFormatError(f"{where}: {cause}") from cause
    except _HDF5_ERRORS as cause:
        reason = " ".join(str(cause).split())[:300]
        raise ShardFormatError(
            f"{where}: is damaged or not a flowkit shard ({reason}); copy it again, or delete it and extract again"
        ) from cause


def _check_superblock(data: ShardBytes) -> None:
    """Refuse a file that does not begin with a superblock with a checksum, or has another length than the superblock gives."""
    if data.size < _SUPERBLOCK_BYTES:
        raise ShardFormatError(f"is not an HDF5 file: it has {data.size} bytes")
    head = data.read(0, _SUPERBLOCK_BYTES)
    if head[:8] != _SIGNATURE:
        raise ShardFormatError("is not an HDF5 file: it does not begin with the signature of HDF5")
    version, offset_bytes, length_bytes, flags = head[8:12]
    base, extension, end = (int.from_bytes(head[at : at + 8], "little") for at in (12, 20, 28))
    if version not in (2, 3) or (offset_bytes, length_bytes, flags, base, extension) != (8, 8, 0, 0, _UNDEFINED):
        raise ShardFormatError("has another kind of HDF5 superblock than flowkit writes")
    if data.size < end:
        raise ShardFormatError(f"is truncated: it has {data.size} of {end} bytes; copy it again, or delete it and extract again")
    if data.size > end:
        raise ShardFormatError(f"has {data.size - end} foreign bytes after its end")


def _check_links(group: Any, names: Sequence[str]) -> None:
    """Refuse a group that contains anything but hard links with these names."""
    if group.get_num_objs() != len(names):
        raise ShardFormatError(f"a group has {group.get_num_objs()} objects instead of {len(names)}")
    for name in names:
        _check_link(group, name)


def _check_link(group: Any, name: str) -> None:
    from h5py import h5l

    links, key = group.links, name.encode()
    if not links.exists(key):
        raise ShardFormatError(f"lacks {name!r}")
    if links.get_info(key).type != h5l.TYPE_HARD:
        raise ShardFormatError(f"{name!r} is a soft or external link; flowkit follows only hard links")


def _read_attributes(group: Any, declared: Sequence[Attribute]) -> dict[str, str | int]:
    from h5py import h5a

    present = [attribute for attribute in declared if not attribute.is_optional or h5a.exists(group, attribute.name.encode())]
    if h5a.get_num_attrs(group) != len(present):
        raise ShardFormatError(f"has {h5a.get_num_attrs(group)} attributes instead of {len(present)}")
    values = {attribute.name: _read_attribute(group, attribute) for attribute in present}
    for attribute in present:
        if attribute.is_optional and not values[attribute.name]:
            raise ShardFormatError(f"has an empty attribute {attribute.name!r}, which is not stored when it is empty")
    return values


def _read_attribute(group: Any, declared: Attribute) -> str | int:
    from h5py import h5a, h5s, h5t

    try:
        attribute = h5a.open(group, declared.name.encode())
    except KeyError as cause:
        raise ShardFormatError(f"lacks the attribute {declared.name!r}, or it is damaged") from cause
    kind = attribute.get_type()
    if attribute.get_space().get_simple_extent_type() != h5s.SCALAR:
        raise ShardFormatError(f"attribute {declared.name!r} is not a scalar")
    if declared.kind == "integer":
        if not kind.equal(h5t.STD_I64LE):
            raise ShardFormatError(f"attribute {declared.name!r} is not a 64-bit integer")
        number = np.empty((), dtype="<i8")
        attribute.read(number)
        return int(number)
    if not isinstance(kind, h5t.TypeStringID) or kind.is_variable_str() or kind.get_cset() != h5t.CSET_UTF8:
        raise ShardFormatError(f"attribute {declared.name!r} is not a fixed-length UTF-8 string")
    num_bytes = kind.get_size()
    if num_bytes > MAX_TEXT_BYTES:
        raise ShardFormatError(f"attribute {declared.name!r} has {num_bytes} bytes; at most {MAX_TEXT_BYTES} are allowed")
    text = np.empty((), dtype=f"S{num_bytes}")
    attribute.read(text, mtype=kind)
    return text.tobytes().rstrip(b"\0").decode("utf-8")


def _open_data_set(group: Any, declared: DataSet) -> Any:
    """Open a data set and check everything that does not depend on the video: type, rank, storage."""
    from h5py import h5d, h5t

    data_set = h5d.open(group, declared.name.encode())
    # This comes first because HDF5 opens the files behind a virtual data set when it is asked for the shape.
    properties = data_set.get_create_plist()
    if properties.get_layout() != (h5d.CHUNKED if declared.chunk else h5d.CONTIGUOUS) or properties.get_external_count():
        raise ShardFormatError(f"{declared.name!r} is stored in another way than the format prescribes")
    standard = {"<u1": h5t.STD_U8LE, "<i8": h5t.STD_I64LE, "<u4": h5t.STD_U32LE, "<f8": h5t.IEEE_F64LE}[declared.dtype]
    if not data_set.get_type().equal(standard):
        raise ShardFormatError(f"{declared.name!r} has another data type than {declared.dtype}")
    space = data_set.get_space()
    if data_set.rank != len(declared.shape) or space.get_simple_extent_dims(True) != data_set.shape:
        raise ShardFormatError(f"{declared.name!r} does not have the fixed shape ({', '.join(declared.shape)})")
    return data_set


def _start_of(data_set: Any, declared: DataSet, length: int, data: ShardBytes) -> int:
    """Return where a contiguous data set of `length` elements begins, after checking that all of it lies in the file."""
    if data_set.shape != (length,):
        raise ShardFormatError(f"{declared.name!r} has shape {data_set.shape} instead of ({length},)")
    start = data_set.get_offset()
    num_bytes = length * np.dtype(declared.dtype).itemsize
    if start is None or not 0 < start <= data.size - num_bytes:
        raise ShardFormatError(f"{declared.name!r} is not stored inside the file")
    return int(start)


def _read_times(group: Any, data: ShardBytes, count: int, declared: DataSet) -> NDArray[np.float64]:
    start = _start_of(_open_data_set(group, declared), declared, count, data)
    times = np.frombuffer(data.read(start, 8 * count), dtype="<f8").astype(np.float64)
    if not np.isfinite(times).all() or (np.diff(times) < 0).any():
        raise ShardFormatError("'times' are not times that rise")
    return times


def _read_jpeg_run(group: Any, data: ShardBytes, count: int, declared: dict[str, DataSet], *, prefix: str, images: str) -> JpegRun:
    arrays = []
    for name, length in ((f"{prefix}_offsets", count + 1), (f"{prefix}_crc32", count)):
        start = _start_of(_open_data_set(group, declared[name]), declared[name], length, data)
        dtype = np.dtype(declared[name].dtype)
        arrays.append(np.frombuffer(data.read(start, length * dtype.itemsize), dtype=dtype))
    offsets, crc32 = arrays[0].astype(np.int64), arrays[1].astype(np.uint32)
    data_set = _open_data_set(group, declared[images])
    start = _start_of(data_set, declared[images], data_set.shape[0], data)
    sizes = np.diff(offsets)
    if offsets[0] != 0 or offsets[-1] != data_set.shape[0] or sizes.min() < 1 or sizes.max() > MAX_JPEG_BYTES:
        raise ShardFormatError(f"'{prefix}_offsets' do not rise from 0 to the {data_set.shape[0]} bytes of {images!r}")
    return JpegRun(start, offsets, crc32)


def _read_chunk_run(group: Any, data: ShardBytes, count: int, codec: str) -> tuple[ChunkRun, int, int]:
    declared = data_sets(codec)["flow"]
    data_set = _open_data_set(group, declared)
    num_pairs, num_channels, height, width = data_set.shape
    if (num_pairs, num_channels) != (count, 2):
        raise ShardFormatError(f"'flow' has shape {data_set.shape} instead of {count} pairs of 2 channels")
    _check_frame_size(height, width)
    properties = data_set.get_create_plist()
    if properties.get_chunk() != (1, 2, height, width):
        raise ShardFormatError(f"'flow' has chunks of {properties.get_chunk()} instead of one flow field")
    filters = tuple(properties.get_filter(k)[0] for k in range(properties.get_nfilters()))
    if filters != FILTERS[codec]:
        raise ShardFormatError(f"'flow' has the HDF5 filters {filters} instead of {FILTERS[codec]} for codec {codec}")
    numbers = array("q")  # an object for each of the 90,000 chunks of an hour would take several times as much memory
    data_set.chunk_iter(lambda c: numbers.extend((*c.chunk_offset, c.filter_mask, c.byte_offset, c.size)))
    if len(numbers) != 7 * count:
        raise ShardFormatError(f"'flow' has {len(numbers) // 7} of {count} chunks")
    table = np.frombuffer(numbers, dtype=np.int64).reshape(-1, 7)
    if count > 1:
        table = table[np.argsort(table[:, 0], kind="stable")]
    masks, starts, sizes = table[:, 4], table[:, 5], table[:, 6]
    if (table[:, 0] != np.arange(count)).any() or table[:, 1:4].any():
        raise ShardFormatError("'flow' does not have each chunk exactly once")
    if ((masks != 0) & ((masks != NOT_COMPRESSED) | (codec == "none"))).any():
        raise ShardFormatError("'flow' has chunks that skip another filter than compression")
    largest = 4 * height * width + 1024  # incompressible data grow by less
    if sizes.min() <= CHECKSUM_BYTES or sizes.max() > largest or starts.min() < 0 or (starts + sizes).max() > data.size:
        raise ShardFormatError("'flow' has chunks that do not lie inside the file")
    return ChunkRun(starts, sizes, masks.astype(np.uint8)), height, width


def _size_of_first(images: JpegRun, data: ShardBytes) -> tuple[int, int]:
    """Return the height and the width of the first of some JPEGs, as its header gives them."""
    height, width = jpeg_size(images.read(data, 0))
    _check_frame_size(height, width)
    return height, width


def _check_frame_size(height: int, width: int) -> None:
    if not (1 <= height <= MAX_SIDE_PX and 1 <= width <= MAX_SIDE_PX and height * width <= MAX_PIXELS):
        raise ShardFormatError(f"declares frames of {width}x{height} px, more than flowkit reads")
