"""Write clip files and shards: streaming, reproducible to the byte, and under a final name only when they are complete.

A clip file is a shard of one video, and `NewShard` writes both. The frames and the flow of a clip come from temporary files,
those of a shard from the files that it gathers, as raw bytes whose checksums are tested on the way.
"""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ParameterError, ShardFormatError
from flowkit.files import replacing
from flowkit.flow.methods import NO_FLOW
from flowkit.shards.chunks import ChunkPipeline, check_chunk
from flowkit.shards.file_bytes import ShardBytes
from flowkit.shards.jpeg import encode_jpeg, jpeg_size
from flowkit.shards.new_shard import Chunks, Images, NewShard
from flowkit.shards.schema import CODECS, MAX_PIXELS, MAX_SIDE_PX, MAX_VIDEOS, ClipAttributes
from flowkit.shards.structure import ChunkRun, JpegRun, ShardStructure, VideoLayout


class _Spool:
    """Pieces of bytes, end to end in a temporary file without a name, which ends with the process."""

    def __init__(self, folder: Path) -> None:
        self._file: BinaryIO = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - is open as long as its clip writer
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


def _keep_jpegs(jpegs: Sequence[bytes], spool: _Spool, crc32: list[int]) -> None:
    for data in jpegs:
        spool.append(data)
        crc32.append(zlib.crc32(data))


class ClipWriter:
    """Writes the clip file of one video, frame by frame, in memory that does not grow with the length of the video.

    Frames and flow are encoded as they arrive and kept in temporary files beside the final file, which `finish` writes.
    Without `finish` nothing remains. Use the writer as a context manager, or call `close`.

    Parameters
    ----------
    path : str or path
        The final name, ``clips/<video_id>.h5``.
    codec : {"zstd", "gzip", "none", "jpeg", "no-flow"}
        How the flow is stored; frames are always JPEGs. ``no-flow``: the clip has frames only.
    height, width : int, px
        Size of every frame.

    Raises
    ------
    ParameterError
        If the codec is unknown or the size is out of its range.
    """

    def __init__(self, path: str | os.PathLike[str], *, codec: str = "zstd", height: int, width: int) -> None:
        if codec not in CODECS:
            raise ParameterError(f"codec must be one of {', '.join(CODECS)}, got {codec!r}")
        if not (1 <= height <= MAX_SIDE_PX and 1 <= width <= MAX_SIDE_PX and height * width <= MAX_PIXELS):
            raise ParameterError(f"frames of {width}x{height} px cannot be stored; a side is at most {MAX_SIDE_PX} px")
        self.path, self.codec, self.height, self.width = Path(path), codec, height, width
        self.sha256 = ""  # of the clip, once `finish` has written it
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._frames, self._flow = _Spool(self.path.parent), _Spool(self.path.parent)
        self._frame_crc32: list[int] = []
        self._flow_crc32: list[int] = []
        self._masks: list[int] = []
        self._pipeline = None if codec in ("jpeg", NO_FLOW) else ChunkPipeline(codec, height, width)

    def __enter__(self) -> ClipWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def append_frames(self, frames: NDArray[np.uint8]) -> list[bytes]:
        """Add the next frames, and return the JPEGs as which they are stored.

        Parameters
        ----------
        frames : uint8 array, shape (n, H, W, 3), RGB
            The frames.
        """
        self._check_array("frames", frames, (self.height, self.width, 3))
        jpegs = [encode_jpeg(frame) for frame in frames]  # of the size of the clip, so that their headers need not be read
        _keep_jpegs(jpegs, self._frames, self._frame_crc32)
        return jpegs

    def append_flow(self, q: NDArray[np.uint8]) -> None:
        """Add the next quantised flow fields.

        Parameters
        ----------
        q : uint8 array, shape (n, 2, H, W)
            Channel 0 is u (to the right), channel 1 is v (down).
        """
        self._check_array("flow", q, (2, self.height, self.width))
        if self.codec == NO_FLOW:
            raise ParameterError(f"{self.path}: a clip with codec {NO_FLOW} takes no flow")
        if self._pipeline is None:
            _keep_jpegs([encode_jpeg(plane) for pair in q for plane in pair], self._flow, self._flow_crc32)
            return
        for pair in np.ascontiguousarray(q):
            mask, data = self._pipeline.encode(pair)
            self._masks.append(mask)
            self._flow.append(data)

    def append_encoded_frames(self, jpegs: Sequence[bytes]) -> None:
        """Add the next frames, which are JPEGs already; their bytes are kept.

        Raises
        ------
        ShardFormatError
            If one is not a JPEG of the size of the clip.
        """
        self._append_jpegs(jpegs, self._frames, self._frame_crc32)

    def append_encoded_flow(self, jpegs: Sequence[bytes]) -> None:
        """Add the next flow planes, which are JPEGs already, u and v in turn; their bytes are kept. The codec must be ``jpeg``."""
        if self.codec != "jpeg":
            raise ParameterError(f"flow that is JPEGs already can be added only with codec jpeg, not {self.codec}")
        self._append_jpegs(jpegs, self._flow, self._flow_crc32)

    def _append_jpegs(self, jpegs: Sequence[bytes], spool: _Spool, crc32: list[int]) -> None:
        for data in jpegs:
            if jpeg_size(data) != (self.height, self.width):
                raise ShardFormatError(f"{self.path}: image {len(crc32)} is not of {self.width}x{self.height} px")
            _keep_jpegs([data], spool, crc32)

    def finish(self, attributes: ClipAttributes, *, times: NDArray[np.float64] | None = None) -> int:
        """Write the clip file under its final name.

        Parameters
        ----------
        attributes : ClipAttributes
            What to store besides the pixels: the codec of this writer, the number of frames that were added, and so on.
        times : float64 array, shape (T,), s, optional
            The time stamps of the frames, if all are known.

        Returns
        -------
        int
            The size of the file in bytes.

        Raises
        ------
        ParameterError
            If the attributes contradict what was added, or the number of flow fields is not that of frames minus one, or 0 without flow.
        OSError
            If the file cannot be written.
        """
        num_frames, num_pairs = len(self._frames.sizes), len(self._flow.sizes) // (2 if self.codec == "jpeg" else 1)
        pairs_due = 0 if self.codec == NO_FLOW else attributes.num_frames - 1
        if attributes.num_frames != num_frames or num_pairs != pairs_due:
            raise ParameterError(
                f"{self.path}: {num_frames} frames and {num_pairs} flow fields were added instead of "
                f"{attributes.num_frames} and {pairs_due}"
            )
        if times is not None and times.shape != (num_frames,):
            raise ParameterError(f"{self.path}: times must have the shape ({num_frames},), got {times.shape}")
        if attributes.codec != self.codec:
            raise ParameterError(f"{self.path}: the attributes say codec {attributes.codec}, the writer has {self.codec}")
        frames = Images(self._frames.offsets(), np.array(self._frame_crc32, np.uint32), self._frames.pieces())
        flow: Images | Chunks | None = None if self.codec == NO_FLOW else Chunks(zip(self._masks, self._flow.pieces(), strict=True))
        if self.codec == "jpeg":
            flow = Images(self._flow.offsets(), np.array(self._flow_crc32, np.uint32), self._flow.pieces())
        with replacing(self.path) as part, NewShard(part) as shard:
            self.sha256 = shard.write_video(attributes, self.height, self.width, frames, flow, times)
        self.close()
        return self.path.stat().st_size

    def close(self) -> None:
        """Delete the temporary files; a second call does nothing. Nothing was written unless `finish` was called before."""
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
    """A video to be put in a shard: its id, and the clip file or the shard that contains it."""

    path: Path
    video_id: str


def write_shard(path: Path, members: Sequence[Path | Member], *, on_video: Callable[[int], None] | None = None) -> int:
    """Gather videos in a shard, copying their bytes as they are.

    Parameters
    ----------
    path : Path
        The final name. A file of that name is replaced when the new one is complete; it may itself contain some members.
    members : sequence of Path or Member
        The videos, in the order in which they will be stored. A path stands for the only video of a clip file.
    on_video : callable, optional
        Called with the number of bytes of each video that has been copied.

    Returns
    -------
    int
        The size of the shard in bytes. Equal members give equal bytes.

    Raises
    ------
    ShardFormatError
        If a member is damaged, because every checksum is tested on the way. A file at `path` then stays as it was.
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
                raise ParameterError(f"video {video_id!r} occurs twice among the members of {path}")
            seen.add(video_id)
            sha256 = shard.write_video(layout.attributes, layout.height, layout.width, *source.content(layout), layout.times)
            if sha256 != layout.sha256:
                raise ShardFormatError(
                    f"{source.path}: video {video_id!r}: its sha256 does not match its attributes, offsets and flow; "
                    "delete that file and extract again"
                )
            if on_video is not None:
                on_video(layout.stored_bytes)
    return path.stat().st_size


class _Sources:
    """The last few files that contained members, kept open, because new clips may come between the members of an old shard."""

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
    """A file from which members are copied, with every checksum tested."""

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
                raise ShardFormatError(f"{self.path} contains {len(self._index)} videos; name one of them")
            video_id = next(iter(self._index))
        if video_id not in self._index:
            raise ShardFormatError(f"{self.path} does not contain video {video_id!r}")
        return self._structure.layout(self._index[video_id])

    def content(self, layout: VideoLayout) -> tuple[Images, Images | Chunks | None]:
        """Return the frames and the flow of a video, if it has some, which are read while they are written."""
        where = f"{self.path}: video {layout.attributes.video_id!r}"
        frames = Images(layout.frames.offsets, layout.frames.crc32, self._images(layout.frames, f"{where}: frame"))
        if layout.flow is None:
            return frames, None
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
