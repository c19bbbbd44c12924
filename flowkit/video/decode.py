"""Decode videos with PyAV: what a file holds, and its frames in presentation order, upright, resized and streamed.

What counts as one video's pixels is decided here, once:

* the first video stream that is not a cover picture; frames as decoded, none repeated, none dropped for timing
  (a variable frame rate changes nothing), frames that an edit list hides left out, as players do;
* upright: the display matrix (rotation and mirroring) of the first frame is applied to all;
* stored pixels: the sample aspect ratio is ignored and interlaced frames are not deinterlaced, as in OpenCV and the
  published flow tools. RGB comes from libswscale with its defaults, bit for bit what OpenCV's VideoCapture gives;
* a stream that changes its size midway is resized to the size of its first frame;
* decoding goes on after errors. A damaged place may show twice, as a packet the decoder refuses and as a frame it
  marks as corrupt because that packet is missing; `decode_errors` is the larger of the two counts, never their sum.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowkit.errors import ParameterError, VideoDecodeError
from flowkit.video.pixels import MAX_FRAME_PIXELS, MAX_SIDE, check_short_side, orientation_of, resize_into, resized_size, to_rgb, upright

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

_SUFFIXES = """.3g2 .3gp .asf .avi .divx .dv .f4v .flv .m1v .m2ts .m2v .m4v .mkv .mov .mp4 .mpe .mpeg .mpg .mts .mxf .nut .ogm
    .ogv .qt .ts .vob .webm .wmv .y4m"""
VIDEO_SUFFIXES = frozenset(_SUFFIXES.split())  # in lower case

# libavformat's names of real containers and elementary streams. Playlists and scripts (hls, concat, dash, image2, sdp ...),
# which read files other than the one that was named, are not among them.
CONTAINERS = "asf,avi,dv,flv,h264,hevc,ivf,m4v,matroska,mov,mpeg,mpegts,mpegvideo,mxf,nut,ogg,yuv4mpegpipe"

MAX_READ_ERRORS = 100  # after which the rest of a file is given up


@dataclass(frozen=True)
class VideoInfo:
    """What a video file says and shows.

    Parameters
    ----------
    path : Path
    width, height : int, px
        Size of the first frame as displayed: after rotation, before any resizing.
    frame_rate : Fraction, frames/second
        The average rate; 0 when the file does not say.
    header_frames : int
        Frames that the container promises, less those that its edit list hides; 0 when it promises none.
    rotation : {0, 90, 180, 270}, degrees
        Clockwise rotation that makes the stored pixels upright. `read_frames` applies it.
    codec : str
        FFmpeg's name of the codec, e.g. ``h264``.
    container : str
        FFmpeg's name of the container, e.g. ``mov,mp4,m4a,3gp,3g2,mj2``.
    duration_seconds : float or None
        As the file says; None when it does not.
    mirrored : bool
        Whether the upright picture is mirrored left to right too. `read_frames` applies it after the rotation.
    """

    path: Path
    width: int
    height: int
    frame_rate: Fraction
    header_frames: int
    rotation: int
    codec: str
    container: str
    duration_seconds: float | None
    mirrored: bool = False


@dataclass(frozen=True, eq=False)
class FrameBatch:
    """Consecutive frames of one video.

    Parameters
    ----------
    frames : uint8 array, shape (n, H, W, 3), RGB, n >= 1
    start : int
        Index of the first of them in the video, from 0.
    decode_errors : int
        Decode errors met up to now; in the last batch, those of the whole video.
    """

    frames: NDArray[np.uint8]
    start: int
    decode_errors: int

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.shape[0] < 1 or self.frames.shape[3] != 3 or self.frames.dtype.name != "uint8":
            raise ParameterError(f"frames must be uint8 (n, H, W, 3) with n >= 1, got {self.frames.dtype} {self.frames.shape}")
        if self.start < 0 or self.decode_errors < 0:
            raise ParameterError(f"start and decode_errors must be >= 0, got {self.start} and {self.decode_errors}")


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """Return what a video file says and shows, decoding its first frame.

    Raises
    ------
    VideoDecodeError
        As `read_frames`.
    """
    with _opened(Path(path), threads=1) as (container, stream):
        frame = next(_decoded(container, stream, _Faults()), None)
        if frame is None:
            raise VideoDecodeError(_nothing_decoded(path))
        rotation, mirrored = orientation_of(frame)
        width, height = (frame.width, frame.height) if rotation % 180 == 0 else (frame.height, frame.width)
        codec = stream.codec_context.codec
        return VideoInfo(
            path=Path(path),
            width=width,
            height=height,
            frame_rate=stream.average_rate or stream.guessed_rate or Fraction(0),
            header_frames=_header_frames(stream),
            rotation=rotation,
            codec=codec.canonical_name,
            container=container.format.name,
            duration_seconds=_duration_seconds(container, stream),
            mirrored=mirrored,
        )


def read_frames(
    path: str | os.PathLike[str], *, short_side: int | None = 256, batch_size: int = 16, threads: int = 1
) -> Iterator[FrameBatch]:
    """Decode a video and yield its frames in batches, holding no more than one batch in memory.

    Parameters
    ----------
    path : path of a local file
        Always a file name, whatever it looks like: never an URL, a pattern or an option.
    short_side : int, px, or None
        Frames are resized as `resized_size` says: bicubic when enlarging, by area when shrinking, untouched when they
        have that size. None keeps the video's own size.
    batch_size : int, >= 1
        All batches but the last hold this many frames.
    threads : int, >= 0
        Decoder threads; 0 is one per core. Only 1 is certain to count errors of a damaged file alike everywhere.

    Yields
    ------
    FrameBatch
        At least one, none empty. A batch is handed out once its successor's first frame, or the end, was reached, so
        the last one's `decode_errors` is the count of the whole video.

    Raises
    ------
    ParameterError
        At once, for a setting out of range.
    VideoDecodeError
        On the first iteration, if it is no regular file, no video in a real container, or none of its frames can be
        decoded. Errors after the first frame are counted, never raised.

    Notes
    -----
    OpenCV resizes with as many threads as it likes; ``cv2.setNumThreads`` is the caller's.
    """
    if short_side is not None:
        check_short_side(short_side)
    if batch_size < 1:
        raise ParameterError(f"batch_size must be at least 1, got {batch_size}")
    if threads < 0:
        raise ParameterError(f"threads must be at least 0 (0 is one per core), got {threads}")
    return _batches(Path(path), short_side, batch_size, threads)


class _Faults:
    """Places where a stream is damaged: see the module's docstring for why they are not added up."""

    def __init__(self) -> None:
        self.refused = 0
        self.marked = 0

    @property
    def count(self) -> int:
        return max(self.refused, self.marked)


def _batches(path: Path, short_side: int | None, batch_size: int, threads: int) -> Iterator[FrameBatch]:
    import av
    import numpy as np
    from av.video.reformatter import VideoReformatter

    faults = _Faults()
    reformatter = VideoReformatter()
    batch: NDArray[np.uint8] | None = None
    orientation = (0, False)
    start = filled = 0
    with _opened(path, threads) as (container, stream):
        for frame in _decoded(container, stream, faults):
            if batch is None:
                orientation = orientation_of(frame)
            try:
                picture = upright(to_rgb(frame, reformatter), orientation)
            except (av.FFmpegError, OSError):  # a size or format that libswscale cannot convert
                faults.refused += 1
                continue
            if batch is None:
                height, width = picture.shape[:2]
                if short_side is not None:
                    width, height = resized_size(width, height, short_side)
                if width * height > MAX_FRAME_PIXELS or max(width, height) > MAX_SIDE:
                    raise VideoDecodeError(f"{str(path)!r} would become frames of {width}x{height} px; use a smaller short side")
                batch = np.empty((batch_size, height, width, 3), dtype=np.uint8)
            elif filled == batch_size:
                yield FrameBatch(batch, start, faults.count)
                start, filled = start + filled, 0
                batch = np.empty_like(batch)
            resize_into(picture, batch[filled])
            filled += 1
        if batch is None:
            raise VideoDecodeError(_nothing_decoded(path))
        yield FrameBatch(batch[:filled], start, faults.count)


@contextmanager
def _opened(path: Path, threads: int) -> Iterator[tuple[Any, Any]]:
    """Open a local file as (container, its video stream), whatever its name looks like."""
    import av
    from av.stream import Disposition

    _check_regular_file(path)
    try:
        container = av.open(
            f"file:{path.absolute()}",  # so named it is a file, even if it is called "concat:x" or "-i"
            container_options={"protocol_whitelist": "file", "format_whitelist": CONTAINERS},
            metadata_errors="replace",  # old files hold titles in any encoding
        )
    except PermissionError as cause:
        raise VideoDecodeError(f"cannot open {str(path)!r}: {_reason(cause)}; check its permissions") from cause
    except (av.FFmpegError, OSError, ValueError) as cause:
        raise VideoDecodeError(
            f"cannot open {str(path)!r} as a video: {_reason(cause)}. It is damaged, or no video container "
            "(playlists and scripts are not followed); replace or remove it"
        ) from cause
    with container:
        streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
        if not streams:
            raise VideoDecodeError(f"{str(path)!r} holds no video stream (sound or cover pictures only); remove it")
        stream = streams[0]
        if stream.codec_context is None:
            raise VideoDecodeError(f"{str(path)!r} holds video of a codec that this FFmpeg cannot decode; convert it to another codec")
        stream.codec_context.thread_count = threads
        if threads != 1:
            stream.codec_context.thread_type = "AUTO"
        yield container, stream


def _decoded(container: Any, stream: Any, faults: _Faults) -> Iterator[Any]:
    """Yield a stream's frames in presentation order, counting errors and going on after them."""
    import av

    for packet in _packets(container, stream, faults):
        try:
            frames = stream.codec_context.decode(packet)
        except (av.FFmpegError, OSError):
            faults.refused += 1
            continue
        for frame in frames:
            faults.marked += frame.is_corrupt
            yield frame


def _packets(container: Any, stream: Any, faults: _Faults) -> Iterator[Any]:
    """Yield a stream's packets, reading on after errors; the last is empty, which makes a decoder give what it holds back."""
    import av

    for _ in range(MAX_READ_ERRORS):
        try:
            yield from container.demux(stream)
        except (av.FFmpegError, OSError):
            faults.refused += 1
        else:
            return
    yield av.Packet()


def _header_frames(stream: Any) -> int:
    """Return how many frames the container promises to show; 0 if it does not say."""
    hidden = sum(entry.is_discard for entry in stream.index_entries) if stream.frames else 0
    return max(int(stream.frames) - hidden, 0)


def _duration_seconds(container: Any, stream: Any) -> float | None:
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else container.duration / 1e6


def _check_regular_file(path: Path) -> None:
    try:
        status = path.stat()
    except (OSError, ValueError) as cause:  # ValueError: a NUL in the name
        raise VideoDecodeError(f"cannot open {str(path)!r}: {_reason(cause)}; check its name and permissions") from cause
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a device or pipe"
        raise VideoDecodeError(f"{str(path)!r} is {kind}, not a file; name a video file")
    if status.st_size == 0:
        raise VideoDecodeError(f"{str(path)!r} is empty (0 bytes); copy it again or remove it")


def _nothing_decoded(path: str | os.PathLike[str]) -> str:
    return f"no frame of {os.fspath(path)!r} can be decoded; the file is damaged: copy it again or remove it"


def _reason(cause: BaseException) -> str:
    return getattr(cause, "strerror", None) or str(cause)
