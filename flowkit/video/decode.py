"""Decode videos with PyAV: what a file contains, and its frames in presentation order, upright, resized and streamed.

This module decides, for all of flowkit, what the pixels of a video are:

* The frames are those of the first video stream that is not a cover picture, as they are decoded. None is repeated or dropped
  for its timing, so a variable frame rate changes nothing. Frames that an edit list hides are left out, as players do.
* They are upright: the display matrix (rotation and mirroring) of the first frame is applied to all frames.
* The pixels are those that are stored: the sample aspect ratio is ignored and interlaced frames are not deinterlaced, as in OpenCV
  and the published flow tools. RGB comes from libswscale with its defaults, and has the same bits as from OpenCV's VideoCapture.
* A stream that changes its frame size midway is resized to the size of its first frame.
* Decoding continues after errors. One damaged place may show twice: as a packet that the decoder refuses, and as a frame that it
  marks as corrupt because this packet is missing. `decode_errors` is therefore the larger of the two counts, not their sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowkit.errors import ParameterError, VideoDecodeError
from flowkit.video.pixels import MAX_FRAME_PIXELS, MAX_SIDE, check_short_side, orientation_of, resize_into, resized_size, to_rgb, upright
from flowkit.video.streams import opened

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

MAX_READ_ERRORS = 100  # after so many, the rest of the file is skipped


@dataclass(frozen=True)
class VideoInfo:
    """What the header and the first frame of a video file say.

    Parameters
    ----------
    path : Path
        The file.
    width, height : int, px
        Size of the first frame as it is displayed: after rotation, before any resizing.
    frame_rate : Fraction, frames/s
        The average rate; 0 if the file does not give it.
    header_frames : int
        Number of frames that the container promises, without those that its edit list hides; 0 if it gives no number.
    rotation : {0, 90, 180, 270}, degrees
        Clockwise rotation that makes the stored pixels upright; `read_frames` applies it.
    codec : str
        FFmpeg's name of the codec, e.g. ``h264``.
    container : str
        FFmpeg's name of the container, e.g. ``mov,mp4,m4a,3gp,3g2,mj2``.
    duration_seconds : float or None
        The duration that the file gives; None if it gives none.
    mirrored : bool
        Whether the upright picture is also mirrored left to right; `read_frames` does this after the rotation.

    Examples
    --------
    See `probe`, which makes it.

    >>> from fractions import Fraction
    >>> from pathlib import Path
    >>> from flowkit import VideoInfo
    >>> info = VideoInfo(Path("a.mp4"), 320, 240, Fraction(25), 50, 0, "h264", "mov,mp4,m4a,3gp,3g2,mj2", 2.0)
    >>> float(info.header_frames / info.frame_rate)
    2.0
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
        The frames.
    start : int
        Index of the first frame in the video, from 0.
    decode_errors : int
        Number of decode errors so far; in the last batch, that of the whole video.

    Raises
    ------
    ParameterError
        If the array has another shape or type, or a number is negative.

    Examples
    --------
    See `read_frames`, which yields them.

    >>> import numpy as np
    >>> from flowkit import FrameBatch
    >>> FrameBatch(np.zeros((16, 256, 340, 3), np.uint8), start=32, decode_errors=0)
    FrameBatch(frames 32 to 47 of 340x256 px, decode_errors=0)
    """

    frames: NDArray[np.uint8]
    start: int
    decode_errors: int

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.shape[0] < 1 or self.frames.shape[3] != 3 or self.frames.dtype.name != "uint8":
            raise ParameterError(f"frames must be uint8 (n, H, W, 3) with n >= 1, got {self.frames.dtype} {self.frames.shape}")
        if self.start < 0 or self.decode_errors < 0:
            raise ParameterError(f"start and decode_errors must be >= 0, got {self.start} and {self.decode_errors}")

    def __repr__(self) -> str:
        count, height, width, _ = self.frames.shape
        stop = self.start + count - 1
        return f"FrameBatch(frames {self.start} to {stop} of {width}x{height} px, decode_errors={self.decode_errors})"


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """Return what the header and the first frame of a video file say.

    Parameters
    ----------
    path : str or path of a local file
        The video.

    Returns
    -------
    VideoInfo
        Size, frame rate, number of frames, rotation, codec and container.

    Raises
    ------
    VideoDecodeError
        If the file cannot be opened, is not a video in a real container, or has no frame that can be decoded.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from flowkit import probe
    >>> from flowkit.demo_videos import write_video
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "video.avi")
    >>> write_video(path, np.full((20, 120, 160, 3), 128, np.uint8), frame_rate=25)
    >>> info = probe(path)
    >>> info.width, info.height, info.frame_rate, info.header_frames, info.codec
    (160, 120, Fraction(25, 1), 20, 'mpeg4')
    >>> folder.cleanup()
    """
    with opened(Path(path), threads=1) as video:
        container, stream = video.container, video.stream
        frame = next(_decoded(container, stream, _Faults()), None)
        if frame is None:
            raise video.nothing_decoded()
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
    """Decode a video and yield its frames in batches; no more than one batch is in memory at a time.

    Parameters
    ----------
    path : str or path of a local file
        The video. This is always a file name, whatever it looks like: never a URL, a pattern or an option.
    short_side : int, px, or None
        Length of the short side after resizing; the long side keeps the proportion and is rounded down to an even number.
        Frames are enlarged by bicubic interpolation and shrunk by area averaging. None keeps their own size.
    batch_size : int, >= 1
        Number of frames of each batch but the last.
    threads : int, >= 0
        Decoder threads; 0 means one per core. The count of errors in a damaged file is certain to be the same everywhere
        only with 1.

    Yields
    ------
    FrameBatch
        At least one, and none is empty. A batch is yielded when the first frame of the next one, or the end of the video,
        has been reached, so `decode_errors` of the last batch counts the errors of the whole video.

    Raises
    ------
    ParameterError
        When the function is called, if a setting is out of its range.
    VideoDecodeError
        On the first iteration, if the file is not a regular file or not a video in a real container, or if none of its
        frames can be decoded. Errors after the first frame are counted, not raised.

    Notes
    -----
    OpenCV resizes with several threads unless the caller has set another number with ``cv2.setNumThreads``.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from flowkit import read_frames
    >>> from flowkit.demo_videos import write_video
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "video.avi")
    >>> write_video(path, np.full((20, 120, 160, 3), 128, np.uint8), frame_rate=25)
    >>> for batch in read_frames(path, short_side=64):
    ...     print(batch, batch.frames.shape)
    FrameBatch(frames 0 to 15 of 84x64 px, decode_errors=0) (16, 64, 84, 3)
    FrameBatch(frames 16 to 19 of 84x64 px, decode_errors=0) (4, 64, 84, 3)
    >>> folder.cleanup()
    """
    if short_side is not None:
        check_short_side(short_side)
    if batch_size < 1:
        raise ParameterError(f"batch_size must be at least 1, got {batch_size}")
    if threads < 0:
        raise ParameterError(f"threads must be at least 0 (0 is one per core), got {threads}")
    return _batches(Path(path), short_side, batch_size, threads)


class _Faults:
    """Counts of the places where a stream is damaged; the docstring of the module says why they are not added."""

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
    with opened(path, threads) as video:
        for frame in _decoded(video.container, video.stream, faults):
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
            raise video.nothing_decoded()
        yield FrameBatch(batch[:filled], start, faults.count)


def _decoded(container: Any, stream: Any, faults: _Faults) -> Iterator[Any]:
    """Yield the frames of a stream in presentation order; count errors and continue after them."""
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
    """Yield the packets of a stream, also after errors; the last one is empty, which makes the decoder return the frames that it holds."""
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
    """Return how many frames the container promises to show; 0 if it gives no number."""
    hidden = sum(entry.is_discard for entry in stream.index_entries) if stream.frames else 0
    return max(int(stream.frames) - hidden, 0)


def _duration_seconds(container: Any, stream: Any) -> float | None:
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else container.duration / 1e6
