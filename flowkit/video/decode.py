"""Decode videos with PyAV: what a file contains, and its frames in presentation order, upright, resized and streamed.

This module decides, for all of flowkit, what the pixels of a video are:

* The frames are those of the default video stream, else the largest, as they are decoded (`flowkit.video.streams`). None is
  repeated or dropped for its timing, so a variable frame rate changes nothing, unless frames are chosen for a rate
  (`flowkit.video.choosing`). Frames that an edit list hides are left out, as players do.
* They are upright: the display matrix (rotation and mirroring) of the first frame is applied to all frames.
* The pixels are those that are stored: the sample aspect ratio is ignored and interlaced frames are not deinterlaced, as in OpenCV
  and the published flow tools. RGB comes from libswscale with its defaults, and has the same bits as from OpenCV's VideoCapture.
* A stream that changes its frame size midway is resized to the size of its first frame.
* Decoding continues after errors; `flowkit.video.damage` says what counts as one.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowkit.errors import ParameterError, VideoDecodeError
from flowkit.video.choosing import FrameChooser, FrameClock, NoTimesError
from flowkit.video.damage import Account, DecodeReport
from flowkit.video.deep_grey import GreyRange
from flowkit.video.pixels import check_matrix, check_short_side, orientation_of, resize_into, stored_size, upright
from flowkit.video.promises import duration_seconds, frame_rate
from flowkit.video.reading import Reading
from flowkit.video.stream_frames import decoded_frames, packets_of, pixels_of
from flowkit.video.streams import opened

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

RATE_PACKETS = 64  # whose time stamps tell the frame rate


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
        The average rate, or what the time stamps say if that makes no sense; 0 if the file does not give it.
    header_frames : int
        Number of frames that the container promises, without those that its edit list hides and without empty chunks; 0 if it
        gives no number, or one that cannot be true.
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
    stream_number, num_streams : int
        Which of the video streams is used, from 1, and how many the file has, without cover pictures.

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
    stream_number: int = 1
    num_streams: int = 1


@dataclass(frozen=True, eq=False)
class FrameBatch:
    """Consecutive frames of one video.

    Parameters
    ----------
    frames : uint8 array, shape (n, H, W, 3), RGB, n >= 1
        The frames.
    start : int
        Index of the first frame among those that are read of the video, from 0.
    decode_errors : int
        Number of decode errors so far; in the last batch, that of the whole video.
    report : DecodeReport, optional
        What was lost of the whole video, in its last batch only.
    times : float64 array, shape (n,), s, optional
        The time stamps of the frames, as the file gives them; counted by the frame rate where it gives none, and NaN where that is
        unknown too.

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
    report: DecodeReport | None = None
    times: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.shape[0] < 1 or self.frames.shape[3] != 3 or self.frames.dtype.name != "uint8":
            raise ParameterError(f"frames must be uint8 (n, H, W, 3) with n >= 1, got {self.frames.dtype} {self.frames.shape}")
        if self.start < 0 or self.decode_errors < 0:
            raise ParameterError(f"start and decode_errors must be >= 0, got {self.start} and {self.decode_errors}")
        if self.times is not None and (self.times.shape != self.frames.shape[:1] or self.times.dtype.name != "float64"):
            raise ParameterError(f"times must be float64 ({len(self.frames)},), got {self.times.dtype} {self.times.shape}")

    def __repr__(self) -> str:
        count, height, width, _ = self.frames.shape
        stop = self.start + count - 1
        return f"FrameBatch(frames {self.start} to {stop} of {width}x{height} px, decode_errors={self.decode_errors})"


def probe(path: str | os.PathLike[str], *, stream: int = 0) -> VideoInfo:
    """Return what the header and the first frame of a video file say.

    Parameters
    ----------
    path : str or path of a local file
        The video, or a folder of numbered pictures.
    stream : int
        Which of its video streams, from 1; 0 means the default one, else the largest.

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
    path = Path(path)
    if path.is_dir():
        return _probe_pictures(path)
    with opened(path, threads=1, stream_number=stream) as video:
        account = Account(video)
        packets = packets_of(account)
        frame = next(decoded_frames(packets, account), None)
        if frame is None:
            raise video.nothing_decoded()
        check_matrix(frame, video.path)
        for _ in islice(packets, RATE_PACKETS):
            pass
        rotation, mirrored = orientation_of(frame)
        width, height = (frame.width, frame.height) if rotation % 180 == 0 else (frame.height, frame.width)
        return VideoInfo(
            path=path,
            width=width,
            height=height,
            frame_rate=frame_rate(video.stream, account.times),
            header_frames=account.promise.frames,
            rotation=rotation,
            codec=account.codec,
            container=video.container.format.name,
            duration_seconds=duration_seconds(video, account.promise),
            mirrored=mirrored,
            stream_number=video.number,
            num_streams=video.num_streams,
        )


def read_frames(
    path: str | os.PathLike[str],
    *,
    short_side: int | None = 256,
    batch_size: int = 16,
    threads: int = 1,
    reading: Reading | None = None,
) -> Iterator[FrameBatch]:
    """Decode a video and yield its frames in batches; no more than one batch is in memory at a time.

    Parameters
    ----------
    path : str or path of a local file
        The video, or a folder of numbered pictures. This is always a file name, whatever it looks like: never a URL, a pattern or an
        option.
    short_side : int, px, or None
        Length of the short side after resizing; the long side keeps the proportion and is rounded down to an even number.
        Frames are enlarged by bicubic interpolation and shrunk by area averaging. None keeps their own size.
    batch_size : int, >= 1
        Number of frames of each batch but the last.
    threads : int, >= 0
        Decoder threads; 0 means one per core. The count of errors in a damaged file is certain to be the same everywhere
        only with 1.
    reading : Reading, optional
        Which frames are read, and how. By default all.

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
        frames can be decoded; on any, if its pictures are encrypted. Errors after the first frame are counted, not raised.

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
    path, reading = Path(path), reading or Reading()
    if path.is_dir():
        return _picture_batches(path, short_side, batch_size, reading)
    return _batches(path, short_side, batch_size, threads, reading)


def _probe_pictures(path: Path) -> VideoInfo:
    """Return what the first picture of a folder says."""
    from flowkit.video.pictures.frames import PictureFrames

    pictures = PictureFrames(path, Reading())
    frame, _ = next(pictures.decoded())
    rotation, mirrored = pictures.orientation
    width, height = (frame.width, frame.height) if rotation % 180 == 0 else (frame.height, frame.width)
    promised = pictures.folder.num_promised
    return VideoInfo(path, width, height, Fraction(0), promised, rotation, pictures.codec, "folder", None, mirrored)


def _picture_batches(path: Path, short_side: int | None, batch_size: int, reading: Reading) -> Iterator[FrameBatch]:
    """Yield the frames of a folder of pictures."""
    from flowkit.video.pictures.frames import PictureFrames

    pictures = PictureFrames(path, reading)
    yield from _in_batches(
        path,
        pictures.chosen(),
        short_side,
        batch_size,
        num_errors=lambda: pictures.decode_errors,
        report=pictures.report,
        nothing=lambda: VideoDecodeError(f"no picture in {str(path)!r} can be converted to RGB; copy them again or remove the folder"),
    )


def _batches(path: Path, short_side: int | None, batch_size: int, threads: int, reading: Reading) -> Iterator[FrameBatch]:
    """Yield the frames of a video file."""
    import av
    from av.video.reformatter import VideoReformatter

    reformatter = VideoReformatter()
    greys = GreyRange(reading.stretch)
    unconverted = 0
    with opened(path, threads, reading.stream) as video:
        account = Account(video)
        chooser: FrameChooser[Any] = FrameChooser(
            reading, FrameClock(video.stream.time_base, lambda: probe(path, stream=reading.stream).frame_rate)
        )

        def pictures() -> Iterator[tuple[NDArray[np.uint8], Fraction | None]]:
            nonlocal unconverted
            orientation: tuple[int, bool] | None = None
            for frame, time in _chosen(decoded_frames(packets_of(account), account), chooser, path):
                if orientation is None:
                    check_matrix(frame, video.path)
                turned = orientation or orientation_of(frame)
                try:
                    picture = upright(pixels_of(frame, reformatter, reading, greys), turned)
                except (av.FFmpegError, OSError):  # a size, format or matrix that libswscale cannot convert
                    account.refused += 1
                    unconverted += 1
                    continue
                orientation = turned
                yield picture, time

        yield from _in_batches(
            path,
            pictures(),
            short_side,
            batch_size,
            num_errors=lambda: account.decode_errors,
            report=lambda: account.report(chooser.num_seen - unconverted, [*chooser.notes(), *greys.notes()]),
            nothing=video.nothing_decoded,
        )


def _in_batches(
    path: Path,
    pictures: Iterable[tuple[NDArray[np.uint8], Fraction | None]],
    short_side: int | None,
    batch_size: int,
    *,
    num_errors: Callable[[], int],
    report: Callable[[], DecodeReport],
    nothing: Callable[[], VideoDecodeError],
) -> Iterator[FrameBatch]:
    """Yield upright pictures, with their times, as resized frames in batches; the last one has the report.

    Raises
    ------
    VideoDecodeError
        That of `nothing`, if there is no picture.
    """
    import numpy as np

    batch: NDArray[np.uint8] | None = None
    start = filled = 0
    times = np.full(batch_size, np.nan)
    for picture, time in pictures:
        if batch is None:
            width, height = stored_size(path, picture.shape[1], picture.shape[0], short_side)
            batch = np.empty((batch_size, height, width, 3), np.uint8)
        elif filled == batch_size:
            yield FrameBatch(batch, start, num_errors(), times=times)
            start, filled = start + filled, 0
            batch, times = np.empty_like(batch), np.full(batch_size, np.nan)
        resize_into(picture, batch[filled])
        if time is not None:
            times[filled] = float(time)
        filled += 1
    if batch is None:
        raise nothing()
    last = report()
    yield FrameBatch(batch[:filled], start, last.decode_errors, last, times[:filled])


def _chosen(frames: Iterable[Any], chooser: FrameChooser[Any], path: Path) -> Iterator[tuple[Any, Fraction | None]]:
    """Yield the frames that are chosen, with their times."""
    try:
        for frame in frames:
            yield from chooser.add(frame, frame.pts)
        yield from chooser.finish()
    except NoTimesError as error:
        raise VideoDecodeError(f"{str(path)!r} {error}") from error
