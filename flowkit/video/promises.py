"""What the header of a video file promises: frames, duration and frame rate, each as far as it makes sense.

Headers lie: an AVI counts chunks without a picture as frames, a broken recorder writes the largest number that there is, and
FFmpeg takes the ticks of a clock for a frame rate if a stream begins late. A number that contradicts the file's size, its index
or its time stamps is not used.
"""

from __future__ import annotations

import itertools
import re
import statistics
import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from flowkit.video.endings import has_complete_avi_index, is_cut_off

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from flowkit.video.streams import OpenVideo

# Containers whose header gives a duration. In the others FFmpeg estimates it from what is there, which promises nothing.
_STREAM_DURATIONS = ("mov", "mxf", "ivf")
_FILE_DURATIONS = ("flv", "matroska")
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_CHUNK_BYTES = 8  # of a chunk's header in an AVI
_MAX_RATE = 1000  # frames/s; more is a clock's rate
_TOO_FAST = 4  # an average rate so many times that of the time stamps is no rate of frames
_USUAL_RATES = [Fraction(rate) for rate in (10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 90, 100, 120, 240)]
_USUAL_RATES += [Fraction(1000 * rate, 1001) for rate in (24, 30, 48, 60, 120)]


@dataclass(frozen=True)
class Promise:
    """What a header promises.

    Parameters
    ----------
    frames : int
        Number of frames, without those that an edit list hides and without empty chunks; 0 if it gives no number.
    duration : float or None, s
        The duration of the video stream, or of the file.
    of_file : bool
        Whether the duration is that of the file, which may have other streams.
    chunks : int
        Number of frames as the header counts them; 0 if it gives none, or nonsense.
    is_indexed : bool
        Whether the file has the complete index of its chunks, which is more certain than the header's number.
    is_cut_off : bool
        Whether the file ends before the end that its structure gives.
    notes : tuple of str
        What in the header cannot be true.
    """

    frames: int
    duration: float | None
    of_file: bool
    chunks: int
    is_indexed: bool
    is_cut_off: bool = False
    notes: tuple[str, ...] = ()


def promise_of(video: OpenVideo) -> Promise:
    """Return what the header of an open video promises."""
    stream, names = video.stream, video.container.format.name.split(",")
    num_bytes = max(video.container.size, 0)
    chunks, notes = int(stream.frames), []
    if chunks and (chunks < 0 or chunks * (_CHUNK_BYTES if "avi" in names else 1) > num_bytes):
        notes.append(f"the header says {chunks} frames, which cannot be true")
        chunks = 0
    frames, is_indexed = chunks, False
    if "avi" in names or ("mov" in names and chunks):
        indexed = sum(entry.size > 0 and not entry.is_discard for entry in stream.index_entries)
        # The index of a fragmented MP4 holds the frames of fragments too, of which the header does not know.
        is_indexed = indexed > 0 and (has_complete_avi_index(video.path, num_bytes) if "avi" in names else indexed <= chunks)
        if is_indexed:
            frames = indexed
        if "avi" in names and is_indexed and stream.frames and not notes and _is_far(chunks, indexed, stream):
            notes.append(f"the header says {chunks} frames, the index {indexed}")
    duration, of_file = _duration(video, names)
    rate = stream.average_rate or stream.guessed_rate or Fraction(1)
    if notes or (duration is not None and duration * float(min(rate, _MAX_RATE)) > num_bytes):
        duration = None
    cut_off = is_cut_off(video.path, names, is_indexed=is_indexed)
    return Promise(frames, duration, of_file, chunks, is_indexed, cut_off, tuple(notes))


def _is_far(chunks: int, indexed: int, stream: Any) -> bool:
    """Whether the header of an AVI promises much more than the last entry of its complete index reaches."""
    last = max(int(entry.timestamp) for entry in stream.index_entries)
    return chunks > 2 * max(last + 1, indexed)


def _duration(video: OpenVideo, names: Sequence[str]) -> tuple[float | None, bool]:
    """Return (duration, whether it is the file's); None if the header gives none."""
    stream, container = video.stream, video.container
    if any(name in names for name in _STREAM_DURATIONS):
        return (None if stream.duration is None else float(stream.duration * stream.time_base)), False
    tag = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", "")) if "matroska" in names else None
    if tag:
        return 3600.0 * int(tag[1]) + 60 * int(tag[2]) + float(tag[3]), False
    if "asf" in names:
        return _asf_duration(video.path), len(container.streams) > 1
    if any(name in names for name in _FILE_DURATIONS) and container.duration is not None:
        return container.duration / 1e6, len(container.streams) > 1
    return None, False


def _asf_duration(path: Path) -> float | None:
    """Return the duration in the header of an ASF file, which FFmpeg forgets if the file is shorter than the header says."""
    with path.open("rb") as file:
        head = file.read(1 << 16)
    at = head.find(_ASF_PROPERTIES)
    if at < 0 or at + 92 > len(head):
        return None
    ticks, preroll = struct.unpack_from("<Q8xQ", head, at + 64)
    (is_live,) = struct.unpack_from("<I", head, at + 88)
    return None if is_live & 1 or not ticks else ticks / 1e7 - preroll / 1e3


def duration_seconds(video: OpenVideo, promise: Promise) -> float | None:
    """Return the duration that a file gives, or that FFmpeg estimates; None if there is none that makes sense."""
    if promise.notes:
        return None
    stream, container = video.stream, video.container
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else container.duration / 1e6


def frame_rate(stream: Any, times: Sequence[int]) -> Fraction:
    """Return the frame rate of a stream: the average that its header gives, if its time stamps allow it.

    Parameters
    ----------
    stream : av.VideoStream
        The stream.
    times : sequence of int
        Time stamps of its first packets, in the stream's unit, in any order.

    Returns
    -------
    Fraction, frames/s
        0 if nothing tells it.
    """
    ticks = sorted(set(times))
    intervals = [after - before for before, after in itertools.pairwise(ticks)]
    claims = [rate for rate in (stream.average_rate, stream.guessed_rate) if rate]
    if len(intervals) < 2 or not stream.time_base:
        return next((rate for rate in claims if rate <= _MAX_RATE), Fraction(0))
    median = 1 / (Fraction(statistics.median(intervals)) * stream.time_base)
    if claims and claims[0] <= min(_TOO_FAST * median, _MAX_RATE):
        return Fraction(claims[0])
    mean = len(intervals) / ((ticks[-1] - ticks[0]) * stream.time_base)
    is_regular = max(intervals) - min(intervals) <= max(2, min(intervals) // 50)
    measured: Fraction = mean if is_regular else median
    likely = [Fraction(rate) for rate in (stream.guessed_rate, stream.base_rate, *_USUAL_RATES) if rate]
    nearest = min(likely, key=lambda rate: abs(rate - measured))
    return nearest if abs(nearest / measured - 1) < Fraction(1, 100) else measured.limit_denominator(1001)
