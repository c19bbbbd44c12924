"""Opening a video file: one local file in a real container, and which of its video streams is used.

A file may hold several video streams: the programmes of a broadcast, the cameras of a drone, a small preview beside the film.
The one that the file marks as its default is used, else the largest, or the one whose number is asked for; cover pictures and preview
pictures never are.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowkit.errors import VideoDecodeError
from flowkit.video.containers import CONTAINERS, ENCRYPTED, check_regular_file, why_unreadable
from flowkit.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True)
class OpenVideo:
    """An open file, the stream that is used, and its number among the video streams, from 1."""

    path: Path
    container: Any
    stream: Any
    number: int
    num_streams: int

    def encrypted(self) -> VideoDecodeError:
        """Return the error of a video with encrypted pictures, from which a decoder may make any picture or none."""
        return VideoDecodeError(f"{str(self.path)!r} {ENCRYPTED}")

    def nothing_decoded(self) -> VideoDecodeError:
        """Return the error of a video without one frame that can be decoded."""
        reason = why_unreadable(self.path)
        if reason is not None:
            return VideoDecodeError(f"{str(self.path)!r} {reason}")
        return VideoDecodeError(f"no frame of {str(self.path)!r} can be decoded; the file is damaged: copy it again or remove it")


@contextmanager
def opened(path: Path, threads: int, stream_number: int = 0) -> Iterator[OpenVideo]:
    """Open a local file, whatever its name looks like.

    Parameters
    ----------
    path : Path
        The file.
    threads : int
        Decoder threads; 0 means one per core.
    stream_number : int
        Which video stream is used, from 1; 0 means the default one, else the largest.

    Raises
    ------
    VideoDecodeError
        If it is not a regular file, not a video in a real container, or has no video stream that can be decoded, or none of that number.
    """
    import av

    check_regular_file(path)
    try:
        container = av.open(
            f"file:{path.absolute()}",  # FFmpeg then treats it as a file, even if its name is "concat:x" or "-i"
            container_options={"protocol_whitelist": "file", "format_whitelist": CONTAINERS},
            metadata_errors="replace",  # old files have titles in any encoding
        )
    except PermissionError as cause:
        raise VideoDecodeError(f"cannot open {str(path)!r}: {cause.strerror or cause}; check its permissions") from cause
    except (av.FFmpegError, OSError, ValueError) as cause:
        reason = why_unreadable(path)
        if reason is not None:
            raise VideoDecodeError(f"{str(path)!r} {reason}") from cause
        raise VideoDecodeError(
            f"cannot open {str(path)!r} as a video: {getattr(cause, 'strerror', None) or cause}. It is damaged, or not in a container "
            "that flowkit reads; replace it, convert it to another one, or remove it"
        ) from cause
    with container:
        streams = moving_pictures(container.streams.video)
        if not streams:
            reason = why_unreadable(path) or "has no video stream that FFmpeg recognises (only sound or cover pictures, perhaps); remove it"
            raise VideoDecodeError(f"{str(path)!r} {reason}")
        if stream_number > len(streams):
            raise VideoDecodeError(
                f"{str(path)!r} has {counted(len(streams), 'video stream')}, so there is no stream {stream_number}; choose another, or none"
            )
        number = stream_number - 1 if stream_number else _choice(streams)
        stream = streams[number]
        if stream.codec_context is None:
            reason = why_unreadable(path) or "has video in a codec that this FFmpeg cannot decode; convert it to another codec"
            raise VideoDecodeError(f"{str(path)!r} {reason}")
        stream.codec_context.thread_count = threads
        if threads != 1:
            stream.codec_context.thread_type = "AUTO"
        yield OpenVideo(path, container, stream, number + 1, len(streams))


def moving_pictures(streams: Any) -> list[Any]:
    """Return the video streams that are no cover pictures, and no preview or still pictures unless the file has nothing else."""
    from av.stream import Disposition

    covers = Disposition.attached_pic
    stills = Disposition.timed_thumbnails | Disposition.still_image
    films = [stream for stream in streams if not stream.disposition & covers]
    return [stream for stream in films if not stream.disposition & stills] or films


def _choice(streams: list[Any]) -> int:
    """Return the index of the stream to use: the default one that can be decoded, of several the largest, of those the first."""
    from av.stream import Disposition

    def worth(index: int) -> tuple[bool, bool, int, int]:
        stream = streams[index]
        codec = stream.codec_context
        pixels = 0 if codec is None else codec.width * codec.height
        return codec is not None, bool(stream.disposition & Disposition.default), pixels, -index

    return max(range(len(streams)), key=worth)
