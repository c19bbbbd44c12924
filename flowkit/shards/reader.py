"""Read clips from shards: random windows of flow and single frames, straight from the file, every checksum tested.

HDF5 is used once a clip, to check its structure and learn where its bytes lie, and is closed again. Pixels are read with
``pread`` and decoded into the caller's array. So nothing is shared that a fork, a thread or a pickle could break.
"""

from __future__ import annotations

import operator
import zlib
from collections import OrderedDict
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowkit.errors import ParameterError, ShardFormatError
from flowkit.quantise import Quantiser
from flowkit.shards.chunks import decode_chunks
from flowkit.shards.file_bytes import ShardBytes
from flowkit.shards.jpeg import decode_jpeg, jpeg_size
from flowkit.shards.structure import ChunkRun, JpegRun, ShardStructure, VideoLayout

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from numpy.typing import NDArray

    from flowkit.shards.schema import ClipAttributes

_CLIPS_KEPT = 1024  # structures of clips remembered by a reader; each is some 30 bytes a frame
_GAP_BYTES = 1 << 14  # chunks this near to each other are read in one go


class ShardReader:
    """A shard or clip file, opened when first needed, in each process for itself.

    Parameters
    ----------
    path : Path or str

    Notes
    -----
    May be used from several threads, after a fork, and pickled (the path travels, and the file is opened anew).
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._data: ShardBytes | None = None
        self._index: dict[str, int] | None = None
        self._clips: OrderedDict[str, Clip] = OrderedDict()

    def __enter__(self) -> ShardReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"ShardReader({str(self.path)!r})"

    def __len__(self) -> int:
        return len(self.video_ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self.video_ids)

    def __contains__(self, video_id: object) -> bool:
        return video_id in self.video_ids

    @property
    def video_ids(self) -> tuple[str, ...]:
        """The videos that are in there, in the order in which they lie.

        Raises
        ------
        ShardFormatError
            If the file is damaged, foreign or unsafe to read.
        OSError
            If it cannot be opened.
        """
        if self._index is None:
            with ShardStructure(self.path, self.data) as structure:
                self._positions(structure)
        assert self._index is not None
        return tuple(self._index)

    def clip(self, video_id: str) -> Clip:
        """Return one video. Its structure is checked the first time.

        Raises
        ------
        ShardFormatError
            If it is not in there, or the file is damaged, foreign or unsafe to read.
        OSError
            If the file cannot be opened.
        """
        clip = self._clips.get(video_id)
        if clip is None:
            with ShardStructure(self.path, self.data) as structure:
                position = self._positions(structure).get(video_id)
                if position is None:
                    raise ShardFormatError(f"{self.path} does not hold video {video_id!r}")
                clip = Clip(self, structure.layout(position))
            if clip.video_id != video_id:
                raise ShardFormatError(f"{self.path} was changed while it was being read")
            self._clips[video_id] = clip
            while len(self._clips) > _CLIPS_KEPT:
                self._clips.popitem(last=False)
        return clip

    @property
    def data(self) -> ShardBytes:
        """The file's bytes."""
        if self._data is None:
            self._data = ShardBytes(self.path)
        return self._data

    def close(self) -> None:
        """Close the file; it is opened again if it is needed again."""
        if self._data is not None:
            self._data.close()
        self._data, self._index = None, None
        self._clips.clear()

    def _positions(self, structure: ShardStructure) -> dict[str, int]:
        if self._index is None:
            self._index = {video_id: k for k, video_id in enumerate(structure.video_ids())}
        return self._index


class Clip:
    """One video of a shard: frames and quantised flow, read as they are asked for.

    Made by `ShardReader.clip`.
    """

    def __init__(self, reader: ShardReader, layout: VideoLayout) -> None:
        self._reader, self._layout = reader, layout
        self._quantiser = Quantiser.from_dict(layout.attributes.quantiser)

    def __repr__(self) -> str:
        return f"Clip({self.video_id!r}, {self.num_frames} frames of {self.width}x{self.height} px)"

    def __len__(self) -> int:
        return self.num_frames

    @property
    def attributes(self) -> ClipAttributes:
        """Everything that is stored of the clip besides its pixels."""
        return self._layout.attributes

    @property
    def sha256(self) -> str:
        """The stored digest of attributes, offsets, CRCs and raw flow, in hexadecimal; `flowkit.verify` tests it."""
        return self._layout.sha256

    @property
    def video_id(self) -> str:
        """Path relative to the video root, without suffix."""
        return self.attributes.video_id

    @property
    def class_name(self) -> str:
        """The folder the video lay in; may be empty. The manifest is the authority on labels."""
        return self.attributes.class_name

    @property
    def num_frames(self) -> int:
        """T; there are T - 1 flow fields."""
        return self.attributes.num_frames

    @property
    def height(self) -> int:
        """Height of frames and flow, px."""
        return self._layout.height

    @property
    def width(self) -> int:
        """Width of frames and flow, px."""
        return self._layout.width

    @property
    def frame_rate(self) -> Fraction:
        """Frames per second; 0 if unknown."""
        return Fraction(self.attributes.frame_rate)

    @property
    def codec(self) -> str:
        """How flow is stored: ``zstd``, ``gzip``, ``none`` or ``jpeg``."""
        return self.attributes.codec

    @property
    def quantiser(self) -> Quantiser:
        """The mapping between the stored bytes and flow in px/frame."""
        return self._quantiser

    @property
    def stored_bytes(self) -> int:
        """Bytes that frames and flow take as stored."""
        return self._layout.stored_bytes

    def frames(self, indices: Sequence[int] | NDArray[np.integer], *, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Decode single frames.

        Parameters
        ----------
        indices : sequence of int
            In [0, num_frames), in any order.
        out : uint8 array, shape (n, H, W, 3), C-contiguous, optional
            Where the pixels go; spares allocating.

        Returns
        -------
        uint8 array, shape (n, H, W, 3), RGB
            `out`, if it was given.

        Raises
        ------
        ParameterError
            If an index or `out` is not as above.
        TypeError
            If an index is no whole number.
        ShardFormatError
            If a frame is damaged: its CRC does not match, or it is no JPEG of the clip's size.
        """
        chosen = [operator.index(index) for index in indices]  # a float is no index, and is not cut to one
        for index in chosen:
            if not 0 <= index < self.num_frames:
                raise ParameterError(f"video {self.video_id!r} has frames 0 to {self.num_frames - 1}, not {index}")
        pixels = _output(out, (len(chosen), self.height, self.width, 3))
        for row, index in zip(pixels, chosen, strict=True):
            self._decode_jpeg(self._layout.frames, index, row, "frame")
        return pixels

    def flow(self, start: int, stop: int, *, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Decode the flow fields of a window; ``flow[k]`` is from frame k to frame k + 1.

        Parameters
        ----------
        start, stop : int
            ``0 <= start <= stop <= num_frames - 1``.
        out : uint8 array, shape (n, 2, H, W), C-contiguous, optional
            Where the bytes go; spares allocating.

        Returns
        -------
        uint8 array, shape (n, 2, H, W)
            Channel 0 is u (to the right), 1 is v (down), quantised as `quantiser` says. `out`, if it was given.

        Raises
        ------
        ParameterError
            If the window or `out` is not as above.
        TypeError
            If `start` or `stop` is no whole number.
        ShardFormatError
            If a chunk is damaged.
        """
        start, stop = operator.index(start), operator.index(stop)
        if not 0 <= start <= stop <= self.num_frames - 1:
            raise ParameterError(f"video {self.video_id!r} has flow fields 0 to {self.num_frames - 2}, not {start} to {stop - 1}")
        pairs = _output(out, (stop - start, 2, self.height, self.width))
        run = self._layout.flow
        if isinstance(run, ChunkRun):
            self._decode_chunks(run, start, pairs)
        else:
            for k, plane in enumerate(pairs.reshape(-1, self.height, self.width)):
                self._decode_jpeg(run, 2 * start + k, plane, "flow image")
        return pairs

    def encoded_frames(self, start: int, stop: int) -> list[bytes]:
        """Return frames `start` to `stop` as the JPEGs that are stored, their CRCs and sizes tested.

        Raises
        ------
        ParameterError
            If there are no such frames.
        ShardFormatError
            If one is damaged.
        """
        if not 0 <= start <= stop <= self.num_frames:
            raise ParameterError(f"video {self.video_id!r} has frames 0 to {self.num_frames - 1}, not {start} to {stop - 1}")
        return [self._encoded(self._layout.frames, index, "frame") for index in range(start, stop)]

    def encoded_flow(self, start: int, stop: int) -> list[bytes]:
        """Return flow fields `start` to `stop` as the JPEGs that are stored, u and v in turn. Only with codec ``jpeg``.

        Raises
        ------
        ParameterError
            If there are no such flow fields, or they are not stored as JPEGs.
        ShardFormatError
            If one is damaged.
        """
        run = self._layout.flow
        if isinstance(run, ChunkRun):
            raise ParameterError(f"the flow of video {self.video_id!r} is stored with codec {self.codec}, not as JPEGs")
        if not 0 <= start <= stop <= self.num_frames - 1:
            raise ParameterError(f"video {self.video_id!r} has flow fields 0 to {self.num_frames - 2}, not {start} to {stop - 1}")
        return [self._encoded(run, index, "flow image") for index in range(2 * start, 2 * stop)]

    def _encoded(self, run: JpegRun, index: int, what: str) -> bytes:
        """Return what is stored, if its header says that it is a JPEG of the clip's size."""
        data = self._read_jpeg(run, index, what)
        try:
            height, width = jpeg_size(data)
        except ShardFormatError as cause:
            raise self._damaged(f"{what} {index} {cause}") from cause
        if (height, width) != (self.height, self.width):
            raise self._damaged(f"{what} {index} is a JPEG of {width}x{height} px where {self.width}x{self.height} px is due")
        return data

    def _read_jpeg(self, run: JpegRun, index: int, what: str) -> bytes:
        data = run.read(self._reader.data, index)
        if zlib.crc32(data) != run.crc32[index]:
            raise self._damaged(f"{what} {index} is damaged: its CRC does not match")
        return data

    def _decode_jpeg(self, run: JpegRun, index: int, out: NDArray[np.uint8], what: str) -> None:
        data = self._read_jpeg(run, index, what)
        try:
            decode_jpeg(data, out)
        except ShardFormatError as cause:
            raise self._damaged(f"{what} {index} {cause}") from cause

    def _decode_chunks(self, run: ChunkRun, first: int, pairs: NDArray[np.uint8]) -> None:
        stop = first + len(pairs)
        starts, sizes, masks = (array[first:stop].tolist() for array in (run.starts, run.sizes, run.masks))
        begin = 0
        while begin < len(starts):
            end = _end_of_piece(starts, sizes, begin)
            at, piece = starts[begin], slice(begin, end)
            window = self._reader.data.read(at, starts[end - 1] + sizes[end - 1] - at)
            places = [(start - at, size, mask) for start, size, mask in zip(starts[piece], sizes[piece], masks[piece], strict=True)]
            try:
                decode_chunks(self.codec, window, places, pairs[piece], first=first + begin)
            except ShardFormatError as cause:
                raise self._damaged(str(cause)) from cause
            begin = end

    def _damaged(self, what: str) -> ShardFormatError:
        return ShardFormatError(
            f"{self._reader.path}: video {self.video_id!r}: {what}; copy the file again, or delete it and extract again"
        )


def _end_of_piece(starts: list[int], sizes: list[int], begin: int) -> int:
    """Return where a piece of chunks that lie close together ends, so that it can be read in one go: mostly the whole window."""
    end = begin + 1
    while end < len(starts) and 0 <= starts[end] - starts[end - 1] - sizes[end - 1] <= _GAP_BYTES:
        end += 1
    return end


def _output(out: NDArray[np.uint8] | None, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    if out is None:
        return np.empty(shape, dtype=np.uint8)
    if out.dtype != np.uint8 or out.shape != shape or not out.flags.c_contiguous or not out.flags.writeable:
        raise ParameterError(f"out must be a writeable C-contiguous uint8 array of shape {shape}, got {out.dtype} {out.shape}")
    return out
