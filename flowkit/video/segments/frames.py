"""The frames of many segments of one video, which may overlap, from decoding it once.

Each segment is read as if it were a video of its own: frames are chosen for a rate, or every so many, from its first frame on.
A frame is converted once, however many segments have it, and those before, between and after the segments are not converted at all.
"""

from __future__ import annotations

from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flowkit.errors import VideoDecodeError
from flowkit.video.choosing import FrameChooser, NoTimesError
from flowkit.video.damage import DecodeReport, count_words
from flowkit.video.deep_grey import GreyRange
from flowkit.video.pixels import resize_into, stored_size, upright
from flowkit.video.reading import Reading
from flowkit.video.segments.sources import DecodedFrame, FileFrames, FolderFrames
from flowkit.video.stream_frames import pixels_of
from flowkit.video.streams import opened
from flowkit.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from fractions import Fraction
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from flowkit.video.segments.segment import Segment

DECODED_AT_ONCE = 1024  # frames that are decoded before a batch is yielded, even if it is empty


@dataclass(frozen=True, eq=False)
class SegmentBatch:
    """Some frames of a video, and which segments have them.

    Parameters
    ----------
    frames : uint8 array, shape (n, H, W, 3), RGB, n >= 0
        Frames that at least one segment has, in order.
    numbers : tuple of int
        The number of each frame among those that are decoded of the video, from 0.
    times : float64 array, shape (n,), s
        The time stamps of the frames; NaN where they are not known.
    places : dict of int to list of int
        For each segment that has some of the frames, by its index, which of the batch.
    ended : dict of int to DecodeReport
        The segments that have no further frames, with what was lost of them.
    """

    frames: NDArray[np.uint8]
    numbers: tuple[int, ...]
    times: NDArray[np.float64]
    places: dict[int, list[int]]
    ended: dict[int, DecodeReport]


class _GivenTimes:
    """The clock of a segment: the video's clock has told the time of each frame already."""

    def __init__(self) -> None:
        self.num_counted = 0

    def time_of(self, stamp: Fraction | None) -> Fraction | None:
        return stamp


@dataclass
class _Reading:
    """A segment that is being read."""

    segment: Segment
    chooser: FrameChooser[DecodedFrame]
    clock: _GivenTimes
    errors_before: int
    resized_before: int
    first: DecodedFrame | None = None
    last: DecodedFrame | None = None
    num_unconverted: int = 0

    def add(self, frame: DecodedFrame) -> list[DecodedFrame]:
        """Take the next frame of the video; return what is chosen."""
        self.first, self.last = self.first or frame, frame
        self.clock.num_counted += frame.was_counted
        return [chosen for chosen, _ in self.chooser.add(frame, frame.time)]

    def report(self, source: FileFrames | FolderFrames, greys: GreyRange) -> DecodeReport:
        """Return what was lost of the segment, after its last frame."""
        num_decoded, promised = self.chooser.num_seen - self.num_unconverted, self.segment.num_frames
        lost = 0
        if self.first is not None and self.last is not None:
            lost = source.lost_between(self.first, self.last, self.chooser.num_seen)
        errors = max(source.decode_errors - self.errors_before, 0) + lost
        num_resized = max(source.num_resized - self.resized_before, 0)
        notes = [*source.notes(), *self.chooser.notes(), *greys.notes()]
        if self.first is not None and self.first.number != self.segment.start_frame:
            notes.append(f"begins with frame {self.first.number} of those that were decoded")
        words = count_words(num_decoded, promised, errors, lost)
        if num_resized:
            words.append(f"{counted(num_resized, 'picture')} of another size than the first of the folder")
        return DecodeReport(promised, errors, ", ".join(words), ", ".join(notes), num_decoded)


@dataclass
class _Batch:
    """A batch in the making."""

    frames: NDArray[np.uint8]
    numbers: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    places: dict[int, list[int]] = field(default_factory=dict)
    ended: dict[int, DecodeReport] = field(default_factory=dict)

    def take(self) -> SegmentBatch:
        """Return the batch, and begin the next one."""
        import numpy as np

        n = len(self.numbers)
        taken = SegmentBatch(self.frames[:n], tuple(self.numbers), np.array(self.times, np.float64), self.places, self.ended)
        self.frames = np.empty_like(self.frames)
        self.numbers, self.times, self.places, self.ended = [], [], {}, {}
        return taken


def read_segments(
    path: Path, segments: Sequence[Segment], *, short_side: int | None, batch_size: int = 16, reading: Reading | None = None
) -> Iterator[SegmentBatch]:
    """Decode a video once, up to the end of its last segment, and yield the frames of its segments in batches.

    Parameters
    ----------
    path : Path
        The video: a file, or a folder of pictures.
    segments : sequence of Segment
        What to read of it. They may overlap.
    short_side : int, px, or None
        Length of the short side after resizing, as for `flowkit.read_frames`.
    batch_size : int
        At most so many frames are in memory at once.
    reading : Reading, optional
        Which stream is read, and which frames of each segment are chosen.

    Yields
    ------
    SegmentBatch
        One may be empty: it shows that the work goes on. Each segment is among those that have ended once.

    Raises
    ------
    VideoDecodeError
        As `flowkit.read_frames`; or if frames are chosen by times, and nothing tells them.
    """
    reading = reading or Reading()
    with ExitStack() as stack:
        video = None if path.is_dir() else stack.enter_context(opened(path, 1, reading.stream))
        source = FolderFrames(path, reading) if video is None else FileFrames(video, reading)
        try:
            yield from _Run(source, segments, reading, short_side, batch_size).batches()
        except NoTimesError as error:
            raise VideoDecodeError(f"{str(path)!r} {error}") from error


class _Run:
    """Decoding one video for its segments."""

    def __init__(
        self, source: FileFrames | FolderFrames, segments: Sequence[Segment], reading: Reading, short_side: int | None, batch_size: int
    ) -> None:
        from av.video.reformatter import VideoReformatter

        self._source, self._segments, self._reading = source, segments, reading
        self._short_side, self._batch_size = short_side, batch_size
        self._waiting = deque(sorted(range(len(segments)), key=lambda k: (segments[k].start_seconds or 0, segments[k].start_frame)))
        self._open: dict[int, _Reading] = {}
        self._closing: dict[int, _Reading] = {}  # those that end with the frame that is next
        self._reformatter, self._greys = VideoReformatter(), GreyRange(reading.stretch)
        self._orientation = (0, False)
        self._now = (0, 0)  # errors that spoil no frame from the present one on, and pictures of another size before it
        self._batch: _Batch | None = None

    def batches(self) -> Iterator[SegmentBatch]:
        """Yield the batches."""
        first: Fraction | None = None
        since = 0
        for frame in self._source.frames():
            if self._batch is None:
                first = self._source.begins_at(frame)
            batch = self._begun(frame)
            self._now = (frame.errors_before, frame.resized_before)
            since += 1
            chosen = self._advance(frame, None if first is None or frame.time is None else frame.time - first)
            for index, reading in self._open.items():
                for other in reading.add(frame):
                    chosen.setdefault(other.number, (other, []))[1].append(index)
            for other, indices in chosen.values():
                if len(batch.numbers) == self._batch_size:
                    yield batch.take()
                    since = 0
                self._convert(batch, other, indices)
            self._note_ended(batch)
            if (batch.ended and not self._open) or since >= DECODED_AT_ONCE:
                yield batch.take()
                since = 0
            if not self._open and not self._waiting:
                return
        if self._batch is None:
            raise self._source.nothing_decoded()
        for index in self._waiting:
            self._open[index] = self._reading_of(index)
        self._waiting.clear()
        chosen = self._close(list(self._open))
        for other, indices in chosen.values():
            if len(self._batch.numbers) == self._batch_size:
                yield self._batch.take()
            self._convert(self._batch, other, indices)
        self._note_ended(self._batch)
        yield self._batch.take()

    def _begun(self, frame: DecodedFrame) -> _Batch:
        """Return the batch, which the first frame of the video gives its size."""
        if self._batch is None:
            import numpy as np

            self._orientation = self._source.orientation(frame)
            width, height = frame.picture.width, frame.picture.height
            if self._orientation[0] % 180:
                width, height = height, width
            width, height = stored_size(self._source.path, width, height, self._short_side)
            self._batch = _Batch(np.empty((self._batch_size, height, width, 3), np.uint8))
        return self._batch

    def _reading_of(self, index: int) -> _Reading:
        clock = _GivenTimes()
        return _Reading(self._segments[index], FrameChooser(self._reading, clock), clock, *self._now)

    def _advance(self, frame: DecodedFrame, seconds: Fraction | None) -> dict[int, tuple[DecodedFrame, list[int]]]:
        """Open the segments that begin with this frame, and end those that end before it; return the frames that are chosen with that."""
        segments = self._segments
        if seconds is None and any(segments[index].start_seconds is not None for index in (*self._waiting, *self._open)):
            raise NoTimesError("has neither usable time stamps nor a frame rate, so segments must be given by frames")
        while self._waiting and segments[self._waiting[0]].begins_by(frame.number, seconds):
            index = self._waiting.popleft()
            self._open[index] = self._reading_of(index)
        return self._close([index for index in self._open if segments[index].ends_by(frame.number, seconds)])

    def _close(self, indices: list[int]) -> dict[int, tuple[DecodedFrame, list[int]]]:
        chosen: dict[int, tuple[DecodedFrame, list[int]]] = {}
        self._closing = {index: self._open.pop(index) for index in indices}
        for index, reading in self._closing.items():
            for frame, _ in reading.chooser.finish():
                chosen.setdefault(frame.number, (frame, []))[1].append(index)
        return chosen

    def _note_ended(self, batch: _Batch) -> None:
        batch.ended |= {index: reading.report(self._source, self._greys) for index, reading in self._closing.items()}
        self._closing = {}

    def _convert(self, batch: _Batch, frame: DecodedFrame, indices: list[int]) -> None:
        """Add a frame to the batch, for the segments that have it."""
        import av

        readings = [self._open.get(index) or self._closing[index] for index in indices]
        try:
            picture = upright(pixels_of(frame.picture, self._reformatter, self._reading, self._greys), self._orientation)
        except (av.FFmpegError, OSError):  # a size, format or matrix that libswscale cannot convert
            self._source.refuse()
            for reading in readings:
                reading.num_unconverted += 1
            return
        place = len(batch.numbers)
        resize_into(picture, batch.frames[place])
        batch.numbers.append(frame.number)
        batch.times.append(float("nan") if frame.time is None else float(frame.time))
        for index in indices:
            batch.places.setdefault(index, []).append(place)
