"""The decoded frames from which segments take theirs, of a video file or of a folder of pictures, and what is lost of them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from flowkit.errors import VideoDecodeError
from flowkit.video.choosing import FrameClock
from flowkit.video.damage import Account
from flowkit.video.decode import probe
from flowkit.video.pictures.frames import PictureFrames
from flowkit.video.pixels import check_matrix, orientation_of
from flowkit.video.stream_frames import decoded_frames, packets_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from flowkit.video.reading import Reading


@dataclass(frozen=True)
class DecodedFrame:
    """A frame of a video.

    Parameters
    ----------
    picture : av.VideoFrame
        The decoded picture.
    number : int
        Its number among those that are decoded, from 0; in a folder, how far its number is from the first one.
    stamp : int or None
        Its time stamp, as the file has it.
    time : Fraction, s, or None
        Its time, if that is known.
    was_counted : bool
        Whether the time was counted by the frame rate, because the file tells none.
    errors_before : int
        How many decode errors spoil only frames before this one.
    resized_before : int
        How many pictures before this one have another size than the first.
    """

    picture: Any
    number: int
    stamp: int | None
    time: Fraction | None
    was_counted: bool = False
    errors_before: int = 0
    resized_before: int = 0


class FileFrames:
    """The frames of a video file.

    Parameters
    ----------
    video : OpenedVideo
        The open file.
    reading : Reading
        Which of its streams is read.
    """

    num_resized = 0  # a change of size is a note on the video, not damage

    def __init__(self, video: Any, reading: Reading) -> None:
        self._video, self._reading = video, reading
        self._account = Account(video)

    @property
    def path(self) -> Path:
        """The file."""
        path: Path = self._video.path
        return path

    def frames(self) -> Iterator[DecodedFrame]:
        """Yield all frames in order."""
        account, path = self._account, self._video.path
        clock = FrameClock(self._video.stream.time_base, lambda: probe(path, stream=self._reading.stream).frame_rate)
        errors_at_key = 0
        for number, picture in enumerate(decoded_frames(packets_of(account), account)):
            if number == 0:
                check_matrix(picture, path)
            num_counted = clock.num_counted
            time = clock.time_of(picture.pts)
            if picture.key_frame:  # what was lost before it spoils no later frame
                errors_at_key = account.decode_errors
            yield DecodedFrame(picture, number, picture.pts, time, clock.num_counted > num_counted, errors_at_key)

    def begins_at(self, first: DecodedFrame) -> Fraction | None:
        """Return the time from which the seconds of a list count, if it is known: that of the first frame."""
        return first.time

    def orientation(self, first: DecodedFrame) -> tuple[int, bool]:
        """Return the clockwise rotation in degrees that makes the frames upright, and whether they are mirrored then."""
        return orientation_of(first.picture)

    @property
    def decode_errors(self) -> int:
        """How many packets and frames could not be decoded so far."""
        return self._account.decode_errors

    def refuse(self) -> None:
        """Note that a frame could not be converted."""
        self._account.refused += 1

    def lost_between(self, first: DecodedFrame, last: DecodedFrame, num_frames: int) -> int:
        """Return how many packets from one frame to another gave none of the frames that were seen."""
        return self._account.lost_between(first.stamp, last.stamp, num_frames)

    def notes(self) -> list[str]:
        """Return what is odd about the video but no damage."""
        return [*self._account.notes]

    def nothing_decoded(self) -> VideoDecodeError:
        """Return the error that says so."""
        error: VideoDecodeError = self._video.nothing_decoded()
        return error


class FolderFrames:
    """The pictures of a folder as the frames of a video. One that is missing has its number and its time nevertheless.

    Parameters
    ----------
    path : Path
        The folder.
    reading : Reading
        The frame rate, if that is known.
    """

    def __init__(self, path: Path, reading: Reading) -> None:
        self.path = path
        self._pictures = PictureFrames(path, reading)
        self.decode_errors = self.num_resized = 0  # of the pictures before the present one: those not complete, those of another size

    def frames(self) -> Iterator[DecodedFrame]:
        """Yield all pictures that can be decoded, in order."""
        pictures = self._pictures
        first = pictures.folder.numbers[0]
        for picture, index in pictures.decoded():
            number = pictures.folder.numbers[index] - first
            time = Fraction(number) / pictures.rate if pictures.rate else None
            yield DecodedFrame(picture, number, number, time, errors_before=self.decode_errors, resized_before=self.num_resized)
            self.decode_errors += not pictures.is_complete
            self.num_resized = pictures.num_resized

    def begins_at(self, first: DecodedFrame) -> Fraction | None:
        """Return the time from which the seconds of a list count, if it is known: that of the first number, decoded or not."""
        return Fraction(0) if self._pictures.rate else None

    def orientation(self, first: DecodedFrame) -> tuple[int, bool]:
        """Return the clockwise rotation in degrees that makes the frames upright, and whether they are mirrored then."""
        return self._pictures.orientation

    def refuse(self) -> None:
        """Note that a frame could not be converted."""
        self.decode_errors += 1

    def lost_between(self, first: DecodedFrame, last: DecodedFrame, num_frames: int) -> int:
        """Return 0: a picture that is missing or cannot be decoded is one frame fewer than the segment promises."""
        return 0

    def notes(self) -> list[str]:
        """Return nothing, as nothing can be odd about a folder that is no damage."""
        return []

    def nothing_decoded(self) -> VideoDecodeError:
        """Return the error that says so, which `PictureFrames` raises before."""
        return VideoDecodeError(f"no picture in {str(self.path)!r} can be decoded")
