"""What was lost of a video while it was decoded, and what only looks like a loss.

These count as damage:

* Decode errors: packets that the decoder refuses, and frames that it marks as corrupt. One damaged place may show as both, so the
  larger count is taken, not the sum.
* Packets that give no frame, in the codecs whose decoders drop pictures without an error: HEVC, VVC, H.264, AV1, VP8 and VP9. Not
  counted are packets that an edit list hides, those that say themselves that they are not shown, those with the time stamp of the
  one before, and those that would be shown before the first frame (leading pictures of an open GOP, and a start amid a GOP where
  no index promises its frames). Of interlaced video every second packet may be the other field of a frame.
* Fewer frames than the index or the header promises, without those that were left out on purpose: empty chunks, hidden frames, and
  in other codecs pictures that are not coded (`flowkit.video.packets`).
* An end more than 0.5 s and 2 % before the promised duration, by time stamps, where no index gives the number of frames. Of a
  Matroska file that ends before its own structure does, an end more than 2.5 frames before.
* An MP4 file that ends amid its index or, if it has none for the whole file, amid a fragment.
* A jump: an interval of more than 2.5 frames, in a file whose other intervals are equal but for the first and the last. If the
  interval lacks one frame only, it is noted and no damage. If more than 1 interval in 20 is that long, or more than 1 in 10 is
  longer than 1.5 frames, the frame rate is variable.

An AVI has no jumps: its time stamps count chunks, and empty ones are how it stores a picture that did not change. A stream without
a container has no time stamps. Frames that were lost there are only seen where the decoder returns no frame for others in turn; of
H.264 that is known if the stream begins with an IDR picture, because other beginnings have leading pictures. MPEG-4 gives a frame,
if a spoiled one, for every packet.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowkit.video.endings import count_avi_chunks
from flowkit.video.packets import is_closed_start, is_hidden, is_not_coded, is_skipped_leading
from flowkit.video.promises import promise_of
from flowkit.words import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from flowkit.video.streams import OpenVideo

_DROPPING_CODECS = frozenset(("hevc", "vvc", "h264", "av1", "vp8", "vp9"))
_SHORTER_SECONDS, _SHORTER_SHARE = 0.5, 0.02
_CUT_OFF_FRAMES = 2.5  # that may be missing of a file that is cut off, because durations are rounded
_JUMP = 1.5  # frame intervals
_LOSS = 2.5  # frame intervals; less lacks one frame only
_MIN_INTERVALS = 8  # below, equal intervals may be chance
_MOST_GAPS, _MOST_LOSSES = 1 / 10, 1 / 20  # of all intervals; if there are more (and more than 2), the frame rate is variable
_MOST_REORDERED = 32  # intervals by which a picture may be stored after one that is shown later
_WITH_CLOCK = ("asf", "flv", "ivf", "matroska", "mov", "mpeg", "mpegts", "mxf", "nut", "ogg")  # in the others FFmpeg makes time stamps up
_UNKNOWN = -(1 << 63)  # a time stamp that is not known


@dataclass(frozen=True)
class DecodeReport:
    """What decoding a complete video has shown.

    Parameters
    ----------
    header_frames : int
        Number of frames that the file promises, without those that it leaves out on purpose; 0 if it does not say.
    decode_errors : int
        Number of packets and frames that could not be decoded.
    losses : str
        What was lost, in words; empty if nothing was.
    notes : str
        What is odd but no damage, in words.
    num_decoded : int
        Number of frames that were decoded, whether they were chosen or not.
    """

    header_frames: int
    decode_errors: int
    losses: str
    notes: str
    num_decoded: int = 0


def count_words(num_frames: int, header_frames: int, decode_errors: int, lost_packets: int = 0) -> list[str]:
    """Return in words what counts say about losses.

    Examples
    --------
    >>> count_words(30, 55, 26, lost_packets=25)
    ['decoded 30 of 55 frames', '1 decode error', '25 packets gave no frame']
    """
    words = []
    if num_frames < header_frames:
        words.append(f"decoded {num_frames} of {header_frames} frames")
    if decode_errors > lost_packets:
        words.append(counted(decode_errors - lost_packets, "decode error"))
    if lost_packets:
        words.append(f"{counted(lost_packets, 'packet')} gave no frame")
    return words


class Account:
    """Counts what goes into a decoder and what comes out of it; 8 bytes are kept of each packet."""

    def __init__(self, video: OpenVideo) -> None:
        self.video = video
        self.promise = promise_of(video)
        self.unread = self.refused = self.marked = 0
        stream = video.stream
        self.codec = stream.codec_context.codec.canonical_name
        self._extradata = stream.codec_context.extradata
        names = video.container.format.name.split(",")
        self._counts_chunks = "avi" in names  # its time stamps are the numbers of its chunks
        self._tells_end = "matroska" in names  # its header gives the duration of the video; that of MP4 may lie in the lost part
        self._has_clock = any(name in names for name in _WITH_CLOCK)
        self._times = array("q")  # of the packets that should give a frame: pts, or dts, or unknown
        self._have_pts = True
        self._last_pts = _UNKNOWN
        self._end = _UNKNOWN
        self._end_elsewhere = 0.0
        self._num_packets = self._num_not_coded = self._before_key = self._skipped_leading = 0
        self._num_keys = 0
        self._early_refused = array("q")
        self._counted = self._has_no_picture = self._is_closed_start = False
        self._num_frames = self._num_interlaced = 0
        self._first_frame_pts: int | None = None
        self._first_size, self._size_change = (0, 0), ""

    @property
    def decode_errors(self) -> int:
        """Number of decode errors so far."""
        return self._errors()

    def _errors(self, lost: int = 0) -> int:
        """Return the number of decode errors with `lost` packets that gave no frame in silence."""
        return max(self.unread + self.refused + len(self._early_refused) + lost, self.marked)

    @property
    def times(self) -> list[int]:
        """The time stamps so far."""
        return [time for time in self._times if time != _UNKNOWN]

    @property
    def num_pictures(self) -> int:
        """Number of packets so far that should give a frame."""
        return len(self._times)

    @property
    def notes(self) -> list[str]:
        """What is odd about the file so far, in words."""
        streams = [f"video stream {self.video.number} of {self.video.num_streams}"] if self.video.num_streams > 1 else []
        return [*streams, *self.promise.notes, *([self._size_change] if self._size_change else [])]

    def lost_between(self, first: int | None, last: int | None, num_frames: int) -> int:
        """Return how many packets with time stamps from that of one frame to that of another gave none of these frames.

        Only decoders that drop pictures without an error do that. 0 if it cannot be known.
        """
        if first is None or last is None or not self._have_pts or self._num_interlaced or self.codec not in _DROPPING_CODECS:
            return 0
        return max(sum(first <= time <= last for time in self._times) - num_frames, 0)

    def note_packet(self, packet: Any) -> None:
        """Note a packet of the stream that is about to be decoded."""
        self._counted = self._has_no_picture = False
        if not packet.size or packet.is_discard:
            return
        self._num_packets += 1
        pts, dts = packet.pts, packet.dts
        if self._counts_chunks:
            pts = None  # FFmpeg's guess
        time = pts if pts is not None else dts
        if time is not None:
            self._end = max(self._end, time + (packet.duration or 0))
        if pts is not None and pts == self._last_pts:
            return
        self._last_pts = _UNKNOWN if pts is None else pts
        if is_hidden(self.codec, self._extradata, packet):
            self._has_no_picture = self.codec in ("h264", "hevc")
            return
        if not self._times:
            self._is_closed_start = is_closed_start(self.codec, self._extradata, packet)
        self._num_keys += packet.is_keyframe
        if not self._num_keys:
            self._before_key += 1
        elif self._num_keys == 1 and pts is None and is_skipped_leading(self.codec, self._extradata, packet):
            self._skipped_leading += 1
        if self.codec not in _DROPPING_CODECS:
            self._num_not_coded += is_not_coded(self.codec, self._extradata, packet)
        self._have_pts &= pts is not None
        self._times.append(_UNKNOWN if time is None else time)
        self._counted = True

    def note_other_packet(self, packet: Any) -> None:
        """Note a packet of another stream, which tells how far the file reaches."""
        if packet.pts is not None and packet.time_base:
            self._end_elsewhere = max(self._end_elsewhere, float((packet.pts + (packet.duration or 0)) * packet.time_base))

    def note_refused(self) -> None:
        """Note that the decoder refused the last packet, which is no error if there is no picture in it."""
        if self._has_no_picture:
            return
        if self._counted and self._num_frames == 0:
            self._early_refused.append(self._times[-1])
        else:
            self.refused += 1

    def note_frame(self, frame: Any) -> None:
        """Note a frame that came out of the decoder."""
        if self._num_frames == 0:
            self._first_frame_pts = frame.pts
            self._first_size = (frame.width, frame.height)
        elif not self._size_change and (frame.width, frame.height) != self._first_size:
            width, height = self._first_size
            self._size_change = (
                f"the picture size changes from {width}x{height} to {frame.width}x{frame.height} px at frame {self._num_frames}"
            )
        self._num_frames += 1
        self._num_interlaced += frame.interlaced_frame
        self.marked += frame.is_corrupt

    def report(self, num_frames: int, notes_on_times: Sequence[str] = ()) -> DecodeReport:
        """Return what was lost, after the last packet.

        Parameters
        ----------
        num_frames : int
            Number of frames that were decoded, without those that were to be converted to RGB and could not be.
        notes_on_times : sequence of str
            What is odd about the times of the frames.
        """
        import numpy as np

        times = np.frombuffer(self._times, np.int64) if self._times else np.empty(0, np.int64)
        missing, leading = self._missing(times)
        leading = min(leading, max(len(times) - self._num_frames, 0))  # some decoders can begin anywhere
        notes = list(self.promise.notes)
        if self.video.num_streams > 1:
            notes.insert(0, f"video stream {self.video.number} of {self.video.num_streams}")
        if leading:
            notes.append(f"{counted(leading, 'packet')} before the first frame")
        lost = missing
        if self.codec not in _DROPPING_CODECS:
            repeated = min(missing, self._num_not_coded)
            lost, missing = 0, missing - repeated
            if repeated:
                notes.append(f"{counted(repeated, 'picture')} not coded")
        decode_errors = self._errors(lost)
        header_frames = self._header_frames(times, num_frames, missing, leading, notes)
        words = count_words(num_frames, header_frames, decode_errors, min(lost, decode_errors))
        words += self._shorter()
        if self.promise.is_cut_off and (self.promise.duration is None or not self._tells_end):
            words.append("the file is cut off before its end")
        if self._has_clock and len(times) > _MIN_INTERVALS and _UNKNOWN not in self._times:
            words += self._jumps(times, notes)
        if self._size_change:
            notes.append(self._size_change)
        notes += notes_on_times
        return DecodeReport(header_frames, decode_errors, ", ".join(words), ", ".join(notes), num_frames)

    def _missing(self, times: NDArray[np.int64]) -> tuple[int, int]:
        """Return how many packets gave no frame and no error although they should, and how many would come before the first frame."""
        refused = self.refused
        if self._have_pts and self._first_frame_pts is not None:
            leading = int((times < self._first_frame_pts).sum())
            refused += sum(time >= self._first_frame_pts for time in self._early_refused)
        else:
            leading = self._before_key + self._skipped_leading
            if self.codec == "h264" and not self._is_closed_start:  # whose leading pictures are only known by time stamps
                return 0, 0
            refused += max(len(self._early_refused) - leading, 0)
        expected = len(times) - leading
        if self._num_interlaced:
            expected = min(expected, max(self._num_frames, math.ceil(expected / 2)))
        return max(expected - self._num_frames - refused, 0), leading

    def _header_frames(self, times: NDArray[np.int64], num_frames: int, missing: int, leading: int, notes: list[str]) -> int:
        """Return how many frames the file promises, without those that were left out on purpose."""
        promise = self.promise
        unread = max(promise.frames - self._num_packets, 0)
        if self._counts_chunks and len(times) and self._end != _UNKNOWN:
            empty = self._end - self._num_packets
            if 0 < empty <= promise.chunks:
                notes.append(counted(empty, "empty chunk"))
            if not promise.is_indexed:
                unread = max(promise.chunks - max(self._end, self._num_packets), 0)
                if unread:  # there may be empty chunks at the end
                    unread = max(promise.chunks - count_avi_chunks(self.video.path, self.video.stream.index), 0)
        if not promise.frames:
            return 0
        refused = self.refused + len(self._early_refused)
        amid = 0
        if promise.is_indexed:  # which promises the pictures of a start amid a group of pictures too
            undecoded = leading if self._have_pts else max(len(times) - self._num_frames - refused, 0)
            amid = min(undecoded, self._before_key)
        return min(promise.frames, unread + max(num_frames, self._num_frames) + refused + missing + amid)

    def _shorter(self) -> list[str]:
        """Return in words whether the last frame ends long before the promised duration."""
        promise = self.promise
        first = self._times[0] if self._times else _UNKNOWN
        if promise.duration is None or promise.is_indexed or first == _UNKNOWN or not self.video.stream.time_base:
            return []
        end = float(max(self._end, self._end - first) * self.video.stream.time_base)
        last = end
        if promise.of_file:  # other streams may be longer: the video is cut off only where all of them are
            if self._end_elsewhere > end + _SHORTER_SECONDS:
                return []
            last = max(end, self._end_elsewhere)
        slack = max(_SHORTER_SECONDS, _SHORTER_SHARE * promise.duration)
        if promise.is_cut_off:  # and what is missing cannot be an inexact duration
            slack = min(slack, _CUT_OFF_FRAMES / float(self.video.stream.average_rate or 25))
        if promise.duration - last <= slack:
            return []
        digits = 1 if promise.duration - end >= 0.1 else 2
        return [f"{end:.{digits}f} s of {promise.duration:.{digits}f} s"]

    def _jumps(self, times: NDArray[np.int64], notes: list[str]) -> list[str]:
        """Return in words where the time stamps jump although all other frames follow each other evenly."""
        import numpy as np

        starts = np.unique(times)
        intervals = np.diff(starts)
        if len(intervals) < _MIN_INTERVALS:
            return []
        usual = float(np.median(intervals))
        behind = np.maximum.accumulate(times) - times
        if behind.max() > _MOST_REORDERED * usual + intervals.max():  # the clock starts again: files that were joined
            return []
        inner = slice(1, -1)  # the first and the last interval may be of any length
        is_gap = intervals[inner] > max(_JUMP * usual, usual + 2)
        even = np.abs(intervals[inner] - usual) <= max(1.0, usual / 50)
        gaps = np.flatnonzero(is_gap)
        if not len(gaps) or not (even | is_gap).all() or len(gaps) > max(_MOST_GAPS * len(intervals), 2):
            return []
        sizes, places = intervals[inner][gaps], starts[:-1][inner][gaps] - starts[0]
        unit = float(self.video.stream.time_base)
        is_loss = sizes > _LOSS * usual
        if is_loss.sum() > max(_MOST_LOSSES * len(intervals), 2):
            return []
        if (~is_loss).any():
            notes.append(f"{counted(int((~is_loss).sum()), 'place')} where one frame is missing")
        if not is_loss.any():
            return []
        first = int(np.flatnonzero(is_loss)[0])
        where = f"of {sizes[first] * unit:.2f} s at {places[first] * unit:.2f} s"
        number = int(is_loss.sum())
        return [f"a jump in time {where}" if number == 1 else f"{number} jumps in time, the first {where}"]
