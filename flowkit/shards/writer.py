"""Write clip files and shards: streaming, reproducible to the byte, and under a final name only when they are whole.

A clip file is a shard of one video, and both are laid down by `NewShard`: a clip's frames and flow come from spools,
a shard's from the files it gathers, as raw bytes whose checksums are tested on the way.
"""

from __future__ import annotations

import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from flowkit.errors import ParameterError, ShardFormatError
from flowkit.files import replacing
from flowkit.shards.chunks import ChunkPipeline, check_chunk
from flowkit.shards.file_bytes import ShardBytes
from flowkit.shards.jpeg import encode_jpeg, jpeg_size
from flowkit.shards.new_shard import Chunks, Images, NewShard
from flowkit.shards.schema import CODECS, MAX_PIXELS, MAX_SIDE_PX, MAX_VIDEOS, ClipAttributes
from flowkit.shards.structure import ChunkRun, JpegRun, ShardStructure, VideoLayout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    from numpy.typing import NDArray


class _Spool:
    """Pieces of bytes put end to end in a file without a name, which goes when the process does."""

    def __init__(self, folder: Path) -> None:
        self._file: BinaryIO = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - lives as long as its clip writer
        self.sizes: list[int] = []

    def append(self, data: bytes) -> None:
        self._file.write(data)
        self.sizes.append(len(data))

    def offsets(self) -> NDArray[np.int64]:
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.sizes, dtype=np.int64)])

    def pieces(self) -> Iterator[bytes]:
        self._file.seek(0)
        for size in self.sizes:
            yield self._file.read(size)

    def close(self) -> None:
        self._file.close()


class ClipWriter:
    """Writes one video's clip file, frame by frame, in memory that does not grow with its length.

    Frames and flow are encoded as they come and spooled beside the final file; `finish` lays them down. Without `finish`
    nothing remains. Use it as a context manager, or call `close`.

    Parameters
    ----------
    path : Path
        The final name, ``clips/<video_id>.h5``.
    codec : {"zstd", "gzip", "none", "jpeg"}
        How flow is stored; frames are JPEGs always.
    height, width : int, px
        Size of every frame.

    Raises
    ------
    ParameterError
        If the codec is unknown or the size out of range.
    """

    def __init__(self, path: Path, *, codec: str = "zstd", height: int, width: int) -> None:
        if codec not in CODECS:
            raise ParameterError(f"codec must be one of {', '.join(CODECS)}, got {codec!r}")
        if not (1 <= height <= MAX_SIDE_PX and 1 <= width <= MAX_SIDE_PX and height * width <= MAX_PIXELS):
            raise ParameterError(f"frames of {width}x{height} px cannot be stored; a side is at most {MAX_SIDE_PX} px")
        self.path, self.codec, self.height, self.width = Path(path), codec, height, width
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._frames, self._flow = _Spool(self.path.parent), _Spool(self.path.parent)
        self._frame_crc32: list[int] = []
        self._flow_crc32: list[int] = []
        self._masks: list[int] = []
        self._pipeline = None if codec == "jpeg" else ChunkPipeline(codec, height, width)

    def __enter__(self) -> ClipWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def append_frames(self, frames: NDArray[np.uint8]) -> None:
        """Add frames, in order.

        Parameters
        ----------
        frames : uint8 array, shape (n, H, W, 3), RGB
        """
        self._check_array("frames", frames, (self.height, self.width, 3))
        self.append_encoded_frames([encode_jpeg(frame) for frame in frames])

    def append_flow(self, q: NDArray[np.uint8]) -> None:
        """Add quantised flow fields, in order.

        Parameters
        ----------
        q : uint8 array, shape (n, 2, H, W)
            Channel 0 is u (to the right), 1 is v (down).
        """
        self._check_array("flow", q, (2, self.height, self.width))
        if self._pipeline is None:
            self.append_encoded_flow([encode_jpeg(plane) for pair in q for plane in pair])
            return
        for pair in np.ascontiguousarray(q):
            mask, data = self._pipeline.encode(pair)
            self._masks.append(mask)
            self._flow.append(data)

    def append_encoded_frames(self, jpegs: Sequence[bytes]) -> None:
        """Add frames that are JPEGs already; their bytes are kept.

        Raises
        ------
        ShardFormatError
            If one is no JPEG of the clip's size.
        """
        self._append_jpegs(jpegs, self._frames, self._frame_crc32)

    def append_encoded_flow(self, jpegs: Sequence[bytes]) -> None:
        """Add flow planes that are JPEGs already, u and v in turn; their bytes are kept. Only with codec ``jpeg``."""
        if self.codec != "jpeg":
            raise ParameterError(f"JPEG flow can be kept only with codec jpeg, not {self.codec}")
        self._append_jpegs(jpegs, self._flow, self._flow_crc32)

    def _append_jpegs(self, jpegs: Sequence[bytes], spool: _Spool, crc32: list[int]) -> None:
        for data in jpegs:
            if jpeg_size(data) != (self.height, self.width):
                raise ShardFormatError(f"{self.path}: image {len(crc32)} is not of {self.width}x{self.height} px")
            spool.append(data)
            crc32.append(zlib.crc32(data))

    def finish(self, attributes: ClipAttributes) -> int:
        """Write the clip file under its final name.

        Parameters
        ----------
        attributes : ClipAttributes
            With the codec of this writer and the number of frames that were appended.

        Returns
        -------
        int
            The file's size in bytes.

        Raises
        ------
        ParameterError
            If the attributes contradict what was appended, or there is not one flow field less than frames.
        OSError
            If the file cannot be written.
        """
        num_frames, num_pairs = len(self._frames.sizes), len(self._flow.sizes) // (2 if self.codec == "jpeg" else 1)
        if attributes.num_frames != num_frames or num_pairs != num_frames - 1:
            raise ParameterError(
                f"{self.path}: {num_frames} frames and {num_pairs} flow fields were appended where "
                f"{attributes.num_frames} and {attributes.num_frames - 1} are due"
            )
        if attributes.codec != self.codec:
            raise ParameterError(f"{self.path}: the attributes say codec {attributes.codec}, the writer has {self.codec}")
        frames = Images(self._frames.offsets(), np.array(self._frame_crc32, np.uint32), self._frames.pieces())
        flow: Images | Chunks = Chunks(zip(self._masks, self._flow.pieces(), strict=True))
        if self.codec == "jpeg":
            flow = Images(self._flow.offsets(), np.array(self._flow_crc32, np.uint32), self._flow.pieces())
        with replacing(self.path) as part, NewShard(part) as shard:
            shard.write_video(attributes, self.height, self.width, frames, flow)
        self.close()
        return self.path.stat().st_size

    def close(self) -> None:
        """Drop the spools; a second time does nothing. Without `finish` before it, nothing was written."""
        self._frames.close()
        self._flow.close()
        if self._pipeline is not None:
            self._pipeline.close()
            self._pipeline = None

    @staticmethod
    def _check_array(what: str, array: NDArray[np.uint8], shape: tuple[int, ...]) -> None:
        if array.dtype != np.uint8 or array.shape[1:] != shape:
            raise ParameterError(f"{what} must be uint8 of shape (n, {', '.join(map(str, shape))}), got {array.dtype} {array.shape}")


@dataclass(frozen=True)
class Member:
    """A video to be put in a shard: the file that holds it, a clip's or a shard's, and its id there."""

    path: Path
    video_id: str


def write_shard(path: Path, members: Sequence[Path | Member], *, on_video: Callable[[int], None] | None = None) -> int:
    """Gather videos in a shard, copying their bytes as they are.

    Parameters
    ----------
    path : Path
        The final name. A file there is replaced once the new one is whole; it may itself hold some of the members.
    members : sequence of Path or Member
        In the order in which they will lie. A path stands for the one video of a clip file.
    on_video : callable, optional
        Told the bytes of each video that was copied.

    Returns
    -------
    int
        The shard's size in bytes. Equal members give equal bytes.

    Raises
    ------
    ShardFormatError
        If a member is damaged: every checksum is tested on the way. `path` is then as it was.
    """
    if not 1 <= len(members) <= MAX_VIDEOS:
        raise ParameterError(f"a shard holds 1 to {MAX_VIDEOS} videos, not {len(members)}")
    seen: set[str] = set()
    with replacing(path) as part, NewShard(part) as shard, _Sources() as sources:
        for member in members:
            source = sources.open(member.path if isinstance(member, Member) else member)
            layout = source.layout(member.video_id if isinstance(member, Member) else None)
            video_id = layout.attributes.video_id
            if video_id in seen:
                raise ParameterError(f"video {video_id!r} is to be put twice in {path}")
            seen.add(video_id)
            sha256 = shard.write_video(layout.attributes, layout.height, layout.width, *source.content(layout))
            if sha256 != layout.sha256:
                raise ShardFormatError(
                    f"{source.path}: video {video_id!r}: its sha256 does not match its attributes, offsets and flow; "
                    "delete that file and extract again"
                )
            if on_video is not None:
                on_video(layout.stored_bytes)
    return path.stat().st_size


class _Sources:
    """The last few files that members came from, kept open: members of an old shard come with new clips between them."""

    def __init__(self) -> None:
        self._open: dict[Path, _Source] = {}

    def __enter__(self) -> _Sources:
        return self

    def __exit__(self, *exception: object) -> None:
        for source in self._open.values():
            source.close()

    def open(self, path: Path) -> _Source:
        source = self._open.pop(path, None) or _Source(path)
        self._open[path] = source
        if len(self._open) > 4:
            self._open.pop(next(iter(self._open))).close()
        return source


class _Source:
    """A file that members are copied from, with every checksum tested."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._data = ShardBytes(path)
        self._structure = ShardStructure(path, self._data).__enter__()
        self._index = {video_id: k for k, video_id in enumerate(self._structure.video_ids())}

    def close(self) -> None:
        self._structure.close()
        self._data.close()

    def layout(self, video_id: str | None) -> VideoLayout:
        if video_id is None:
            if len(self._index) != 1:
                raise ShardFormatError(f"{self.path} holds {len(self._index)} videos; say which is meant")
            video_id = next(iter(self._index))
        if video_id not in self._index:
            raise ShardFormatError(f"{self.path} does not hold video {video_id!r}")
        return self._structure.layout(self._index[video_id])

    def content(self, layout: VideoLayout) -> tuple[Images, Images | Chunks]:
        """Return a video's frames and flow, to be read when they are laid down."""
        where = f"{self.path}: video {layout.attributes.video_id!r}"
        frames = Images(layout.frames.offsets, layout.frames.crc32, self._images(layout.frames, f"{where}: frame"))
        if isinstance(layout.flow, JpegRun):
            return frames, Images(layout.flow.offsets, layout.flow.crc32, self._images(layout.flow, f"{where}: flow image"))
        return frames, Chunks(self._chunks(layout.flow, f"{where}: flow chunk"))

    def _images(self, run: JpegRun, where: str) -> Iterator[bytes]:
        for k, crc32 in enumerate(run.crc32):
            data = run.read(self._data, k)
            if zlib.crc32(data) != crc32:
                raise ShardFormatError(f"{where} {k} is damaged: its CRC does not match; delete that file and extract again")
            yield data

    def _chunks(self, run: ChunkRun, where: str) -> Iterator[tuple[int, bytes]]:
        for k, (start, size, mask) in enumerate(zip(run.starts, run.sizes, run.masks, strict=True)):
            data = self._data.read(int(start), int(size))
            try:
                check_chunk(data)
            except ShardFormatError as cause:
                raise ShardFormatError(f"{where} {k} {cause}; delete that file and extract again") from cause
            yield int(mask), data
