"""Read clips from shards: any window of flow and any frames, directly from the file, with every checksum tested.

HDF5 is used once per clip, to check its structure and to learn where its bytes lie, and is then closed. Pixels are read with
``pread`` and decoded into the array of the caller. So nothing is shared that a fork, a thread or pickling could break.
"""

from __future__ import annotations

import operator
import os
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import NoFlowError, ParameterError, ShardFormatError
from flowkit.quantise import Quantiser
from flowkit.shards.chunks import decode_chunks
from flowkit.shards.file_bytes import ShardBytes
from flowkit.shards.jpeg import decode_jpeg, jpeg_size
from flowkit.shards.schema import ClipAttributes
from flowkit.shards.structure import ChunkRun, JpegRun, ShardStructure, VideoLayout

_CLIPS_KEPT = 1024  # structures of clips that a reader keeps; each takes about 30 bytes per frame
_GAP_BYTES = 1 << 14  # chunks that are at most so far apart are read at once


class ShardReader:
    """A shard or a clip file: a collection of video ids, whose clips can be read at random.

    The file is opened when it is first needed, separately in each process. ``len``, ``in`` and iteration concern the ids of
    the videos, in the order in which they are stored.

    Parameters
    ----------
    path : str or path
        The file.

    Notes
    -----
    A reader may be used from several threads and after a fork. It can be pickled: the path is stored, and the file is opened
    again.

    Examples
    --------
    Write a clip file, which is a shard of one video, and read it:

    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from flowkit import Quantiser, ShardReader
    >>> from flowkit.shards.schema import ClipAttributes
    >>> from flowkit.shards.writer import ClipWriter
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "v1.h5")
    >>> about = ClipAttributes("Run/v1", "Run", "v1.avi", "", "25/1", 3, 3, 0, "zstd", Quantiser(20).to_dict(), {}, "strict")
    >>> with ClipWriter(path, height=32, width=44) as writer:
    ...     jpegs = writer.append_frames(np.full((3, 32, 44, 3), 200, np.uint8))
    ...     writer.append_flow(np.full((2, 2, 32, 44), 255, np.uint8))
    ...     size = writer.finish(about)
    >>> with ShardReader(path) as shard:
    ...     for video_id in shard:
    ...         print(shard.clip(video_id))
    Clip('Run/v1', 3 frames of 44x32 px)
    >>> "Run/v1" in shard, len(shard)
    (True, 1)
    >>> shard.close()
    >>> folder.cleanup()
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._data: ShardBytes | None = None
        self._index: dict[str, int] | None = None
        self._clips: OrderedDict[str, Clip] = OrderedDict()

    def __enter__(self) -> ShardReader:
        return self

    def __exit__(self, *exception: object) -> None:
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
        """The ids of the videos, in the order in which they are stored.

        Raises
        ------
        ShardFormatError
            If the file is damaged, foreign or unsafe to read.
        OSError
            If the file cannot be opened.
        """
        if self._index is None:
            with ShardStructure(self.path, self.data) as structure:
                self._positions(structure)
        assert self._index is not None
        return tuple(self._index)

    def clip(self, video_id: str) -> Clip:
        """Return one video, whose structure is checked the first time.

        Parameters
        ----------
        video_id : str
            One of `video_ids`.

        Returns
        -------
        Clip
            The video.

        Raises
        ------
        ShardFormatError
            If the file does not contain the video, or is damaged, foreign or unsafe to read.
        OSError
            If the file cannot be opened.
        """
        clip = self._clips.get(video_id)
        if clip is None:
            with ShardStructure(self.path, self.data) as structure:
                position = self._positions(structure).get(video_id)
                if position is None:
                    raise ShardFormatError(f"{self.path} does not contain video {video_id!r}")
                clip = Clip(self, structure.layout(position))
            if clip.video_id != video_id:
                raise ShardFormatError(f"{self.path} was changed while it was being read")
            self._clips[video_id] = clip
            while len(self._clips) > _CLIPS_KEPT:
                self._clips.popitem(last=False)
        return clip

    @property
    def data(self) -> ShardBytes:
        """The bytes of the file."""
        if self._data is None:
            self._data = ShardBytes(self.path)
        return self._data

    def close(self) -> None:
        """Close the file; a later use opens it again."""
        if self._data is not None:
            self._data.close()
        self._data, self._index = None, None
        self._clips.clear()

    def _positions(self, structure: ShardStructure) -> dict[str, int]:
        if self._index is None:
            self._index = {video_id: k for k, video_id in enumerate(structure.video_ids())}
        return self._index


class Clip:
    """One video of a shard, with its frames and its quantised flow. `ShardReader.clip` makes it; its ``len`` is `num_frames`.

    A clip may have frames only, as `has_flow` says. Pixels are read from the file when `frames` and `flow` are called.

    Examples
    --------
    Write a clip file, and read the second flow field and the last frame:

    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from flowkit import Quantiser, ShardReader
    >>> from flowkit.shards.schema import ClipAttributes
    >>> from flowkit.shards.writer import ClipWriter
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "v1.h5")
    >>> about = ClipAttributes("Run/v1", "Run", "v1.avi", "", "25/1", 3, 3, 0, "zstd", Quantiser(20).to_dict(), {}, "strict")
    >>> with ClipWriter(path, height=32, width=44) as writer:
    ...     jpegs = writer.append_frames(np.full((3, 32, 44, 3), 200, np.uint8))
    ...     writer.append_flow(np.full((2, 2, 32, 44), 255, np.uint8))
    ...     size = writer.finish(about)
    >>> clip = ShardReader(path).clip("Run/v1")
    >>> q = clip.flow(1, 2)
    >>> q.shape, clip.quantiser
    ((1, 2, 32, 44), Quantiser(bound=20.0, mapping='symmetric'))
    >>> float(clip.quantiser.decode(q).mean())
    20.0
    >>> clip.frames([2]).shape
    (1, 32, 44, 3)
    >>> folder.cleanup()
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
        """Everything that is stored about the clip besides its pixels."""
        return self._layout.attributes

    @property
    def sha256(self) -> str:
        """The stored SHA-256 of the attributes, offsets, CRCs and encoded flow, in hexadecimal; `flowkit.verify` tests it."""
        return self._layout.sha256

    @property
    def video_id(self) -> str:
        """The path of the video relative to the folder of videos, without its suffix."""
        return self.attributes.video_id

    @property
    def class_name(self) -> str:
        """The name of the folder that contained the video; may be empty. The labels are in the manifest of a split."""
        return self.attributes.class_name

    @property
    def num_frames(self) -> int:
        """The number of frames, T; there are T - 1 flow fields, or none."""
        return self.attributes.num_frames

    @property
    def has_flow(self) -> bool:
        """Whether the clip has flow: ``flowkit extract --no-flow`` stores frames only, to which `extract` can add the flow later."""
        return self.attributes.has_flow

    @property
    def height(self) -> int:
        """The height of frames and flow, px."""
        return self._layout.height

    @property
    def width(self) -> int:
        """The width of frames and flow, px."""
        return self._layout.width

    @property
    def frame_rate(self) -> Fraction:
        """The number of stored frames per second; 0 if it is unknown."""
        return Fraction(self.attributes.frame_rate)

    @property
    def times(self) -> NDArray[np.float64] | None:
        """The time stamps of the frames, float64 (T,), in s, as the video file gave them; None if they are not known.

        They are counted by the frame rate where the file gives none. Clip files that an earlier flowkit wrote, and those of flow
        that was imported from other tools, have none.
        """
        return self._layout.times

    @property
    def seconds(self) -> float | None:
        """The duration of the frames, s, by their time stamps or the frame rate; None if neither is known.

        The last frame lasts as long as the others do in the mean.
        """
        if self.times is not None:
            return float(self.times[-1] - self.times[0]) * self.num_frames / (self.num_frames - 1)
        return float(self.num_frames / self.frame_rate) if self.frame_rate else None

    @property
    def codec(self) -> str:
        """How the flow is stored: ``zstd``, ``gzip``, ``none`` or ``jpeg``; ``no-flow`` if there is none."""
        return self.attributes.codec

    @property
    def quantiser(self) -> Quantiser:
        """The mapping between the stored bytes and flow in px/frame."""
        return self._quantiser

    @property
    def stored_bytes(self) -> int:
        """The number of bytes that frames and flow take in the file."""
        return self._layout.stored_bytes

    def frames(self, indices: Sequence[int] | NDArray[np.integer] | slice, *, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Decode single frames.

        Parameters
        ----------
        indices : sequence of int, or slice
            Indices of the frames, in [0, num_frames), in any order; or a slice of them, as of a list.
        out : uint8 array, shape (n, H, W, 3), C-contiguous, optional
            The array to fill; if it is left out, a new one is made.

        Returns
        -------
        uint8 array, shape (n, H, W, 3), RGB
            `out` if it was given.

        Raises
        ------
        ParameterError
            If an index or `out` is not as above.
        TypeError
            If an index is not a whole number, or there is only one and no sequence.
        ShardFormatError
            If a frame is damaged: its CRC does not match, or it is not a JPEG of the clip's size.
        """
        if isinstance(indices, slice):
            indices = range(*indices.indices(self.num_frames))
        elif not np.iterable(indices):
            raise TypeError(f"frames takes a sequence of indices, such as [{indices!r}] or range(8), got {indices!r}")
        chosen = [operator.index(index) for index in indices]  # a float is refused, not rounded
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
            The first field, and the one after the last: ``0 <= start <= stop <= num_frames - 1``.
        out : uint8 array, shape (n, 2, H, W), C-contiguous, optional
            The array to fill; if it is left out, a new one is made.

        Returns
        -------
        uint8 array, shape (n, 2, H, W)
            Channel 0 is u (to the right), channel 1 is v (down), as bytes that `quantiser` decodes. `out` if it was given.

        Raises
        ------
        ParameterError
            If the window or `out` is not as above.
        TypeError
            If `start` or `stop` is not a whole number.
        NoFlowError
            If the clip has frames only.
        ShardFormatError
            If a chunk is damaged.
        """
        run = self._flow_run()
        start, stop = self._window("flow fields", start, stop, self.num_frames - 1)
        pairs = _output(out, (stop - start, 2, self.height, self.width))
        if isinstance(run, ChunkRun):
            self._decode_chunks(run, start, pairs)
        else:
            for k, plane in enumerate(pairs.reshape(-1, self.height, self.width)):
                self._decode_jpeg(run, 2 * start + k, plane, "flow image")
        return pairs

    def encoded_frames(self, start: int, stop: int) -> list[bytes]:
        """Return the stored JPEGs of the frames from `start` to before `stop`, with their CRCs and sizes tested.

        Raises
        ------
        ParameterError
            If there are no such frames.
        ShardFormatError
            If one is damaged.
        """
        start, stop = self._window("frames", start, stop, self.num_frames)
        return [self._encoded(self._layout.frames, index, "frame") for index in range(start, stop)]

    def encoded_flow(self, start: int, stop: int) -> list[bytes]:
        """Return the stored JPEGs of the flow fields from `start` to before `stop`, u and v in turn, if the codec is ``jpeg``.

        Raises
        ------
        ParameterError
            If there are no such flow fields, or they are not stored as JPEGs.
        NoFlowError
            If the clip has frames only.
        ShardFormatError
            If one is damaged.
        """
        run = self._flow_run()
        if isinstance(run, ChunkRun):
            raise ParameterError(f"the flow of video {self.video_id!r} is stored with codec {self.codec}, not as JPEGs")
        start, stop = self._window("flow fields", start, stop, self.num_frames - 1)
        return [self._encoded(run, index, "flow image") for index in range(2 * start, 2 * stop)]

    def _flow_run(self) -> ChunkRun | JpegRun:
        if self._layout.flow is None:
            raise NoFlowError(
                f"{self._reader.path}: video {self.video_id!r} has frames without flow: add it with `flowkit extract VIDEOS`, without "
                "--no-flow; if its clip is in a shard, pack again"
            )
        return self._layout.flow

    def _window(self, what: str, start: int, stop: int, count: int) -> tuple[int, int]:
        """Return a window of whole numbers, after checking that it lies in the video."""
        start, stop = operator.index(start), operator.index(stop)
        if not 0 <= start <= stop <= count:
            raise ParameterError(f"video {self.video_id!r} has {what} 0 to {count - 1}, not {start} to {stop - 1}")
        return start, stop

    def _encoded(self, run: JpegRun, index: int, what: str) -> bytes:
        """Return a stored JPEG, whose header must give the size of the clip."""
        data = self._read_jpeg(run, index, what)
        try:
            height, width = jpeg_size(data)
        except ShardFormatError as cause:
            raise self._damaged(f"{what} {index} {cause}") from cause
        if (height, width) != (self.height, self.width):
            raise self._damaged(f"{what} {index} is a JPEG of {width}x{height} px instead of {self.width}x{self.height} px")
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
            end = _end_of_run(starts, sizes, begin)
            at, piece = starts[begin], slice(begin, end)
            window = self._reader.data.read(at, starts[end - 1] + sizes[end - 1] - at)
            chunks = [(start - at, size, mask) for start, size, mask in zip(starts[piece], sizes[piece], masks[piece], strict=True)]
            try:
                decode_chunks(self.codec, window, chunks, pairs[piece], first=first + begin)
            except ShardFormatError as cause:
                raise self._damaged(str(cause)) from cause
            begin = end

    def _damaged(self, what: str) -> ShardFormatError:
        return ShardFormatError(
            f"{self._reader.path}: video {self.video_id!r}: {what}; copy the file again, or delete it and extract again"
        )


def _end_of_run(starts: list[int], sizes: list[int], begin: int) -> int:
    """Return where a run of chunks that lie close together ends, so that it can be read at once: mostly the whole window."""
    end = begin + 1
    while end < len(starts) and 0 <= starts[end] - starts[end - 1] - sizes[end - 1] <= _GAP_BYTES:
        end += 1
    return end


def _output(out: NDArray[np.uint8] | None, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    if out is None:
        return np.empty(shape, dtype=np.uint8)
    if out.dtype != np.uint8 or out.shape != shape or not out.flags.c_contiguous or not out.flags.writeable:
        raise ParameterError(f"out must be a writable C-contiguous uint8 array of shape {shape}, got {out.dtype} {out.shape}")
    return out
