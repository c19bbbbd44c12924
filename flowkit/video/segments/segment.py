"""What a segment is: a range of frames of a video, given by their numbers or by times (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from flowkit.errors import ManifestError, ParameterError
from flowkit.video.ids import check_video_id

TOLERANCE = Fraction(1, 1000)  # s: time stamps of Matroska are whole milliseconds


@dataclass(frozen=True)
class Segment:
    """The frames `start_frame` to `end_frame` of a video, without the latter.

    Parameters
    ----------
    video_id : str
        The video.
    start_frame, end_frame : int
        Numbers of decoded frames, from 0.
    start_seconds, end_seconds : Fraction, s, optional
        If the segment was given by times, counted from the first frame of the video. The frames whose time stamps lie between them are
        then those of the segment, and the numbers above are what the time stamps of the file promised.

    Examples
    --------
    >>> Segment("Jump/game", 250, 300).segment_id
    'Jump/game_250_300'
    """

    video_id: str
    start_frame: int
    end_frame: int
    start_seconds: Fraction | None = None
    end_seconds: Fraction | None = None

    @property
    def segment_id(self) -> str:
        """The id of the video that the segment becomes."""
        return f"{self.video_id}_{self.start_frame}_{self.end_frame}"

    @property
    def num_frames(self) -> int:
        """How many frames the segment has, of which some may be chosen."""
        return self.end_frame - self.start_frame

    def begins_by(self, number: int, seconds: Fraction | None) -> bool:
        """Whether the frame of this number and time, counted from the first frame, is not before the segment."""
        if self.start_seconds is None or seconds is None:
            return number >= self.start_frame
        return seconds >= self.start_seconds - TOLERANCE

    def ends_by(self, number: int, seconds: Fraction | None) -> bool:
        """Whether the frame of this number and time, counted from the first frame, is after the segment."""
        if self.end_seconds is None or seconds is None:
            return number >= self.end_frame
        return seconds >= self.end_seconds - TOLERANCE

    def to_dict(self) -> dict[str, Any]:
        """Return what is stored with a clip, as built-in types."""
        return {"video_id": self.video_id, "start_frame": self.start_frame, "end_frame": self.end_frame}


def check_stored_segment(values: dict[str, Any]) -> None:
    """Raise `ParameterError` unless this is what `Segment.to_dict` returns."""
    try:
        start, end = values["start_frame"], values["end_frame"]
        check_video_id(values["video_id"])
    except (KeyError, ManifestError) as cause:
        raise ParameterError(f"a segment must have a video_id, start_frame and end_frame, got {values!r}") from cause
    if len(values) != 3 or type(start) is not int or type(end) is not int or not 0 <= start < end:
        raise ParameterError(f"a segment must have whole numbers 0 <= start_frame < end_frame, got {values!r}")
