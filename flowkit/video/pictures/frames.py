"""The frames of a folder of pictures.

PNG files are decoded by FFmpeg, as the frames of a lossless video are: the same pixels in, the same pixels out, also of grey with 16 bits.
JPEG files are decoded by OpenCV, that is by libjpeg: full range, the matrix of JFIF, and smooth upsampling of colours, which comes
closer to the original colours than libswscale. The rotation that a camera has noted in the Exif data of the first picture is applied to
all. A picture of another size than the first is damage, and is resized.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from flowkit.errors import VideoDecodeError
from flowkit.files import read_file
from flowkit.video.choosing import FrameChooser, FrameClock, NoTimesError
from flowkit.video.damage import DecodeReport, count_words
from flowkit.video.deep_grey import GreyRange
from flowkit.video.pictures.folder import PictureFolder, picture_folder
from flowkit.video.pixels import upright
from flowkit.video.stream_frames import pixels_of
from flowkit.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from flowkit.video.reading import Reading

MAX_PICTURE_BYTES = 1 << 28
_EXIF_ORIENTATION = 0x0112
_PNG = b"\x89PNG"
# From the orientation of Exif to the clockwise rotation in degrees that makes a picture upright, and whether it is mirrored then.
_ORIENTATIONS = {2: (0, True), 3: (180, False), 4: (180, True), 5: (90, True), 6: (90, False), 7: (270, True), 8: (270, False)}


class PictureFrames:
    """Decodes the pictures of a folder one after the other, and counts what is wrong with them.

    Parameters
    ----------
    path : Path
        The folder.
    reading : Reading
        Which of them are chosen, at which frame rate, and how grey levels are stretched.
    """

    def __init__(self, path: Path, reading: Reading) -> None:
        from av.video.reformatter import VideoReformatter

        self.folder: PictureFolder = picture_folder(path)
        self.rate: Fraction = reading.known_rate or Fraction(0)
        self.orientation = (0, False)
        self.decode_errors = 0
        self._reading, self._reformatter, self._greys = reading, VideoReformatter(), GreyRange(reading.stretch)
        self._chooser: FrameChooser[Any] = FrameChooser(reading, FrameClock(1 / self.rate if self.rate else None, lambda: self.rate))
        self._num_decoded = self.num_resized = 0  # pictures so far, and those of another size than the first
        self.is_complete = True  # the picture that was decoded last
        self._size: tuple[int, int] | None = None
        self._change = ""

    @property
    def codec(self) -> str:
        """FFmpeg's name of the codec of the first picture."""
        return _codec(self.folder.names[0])

    def decoded(self) -> Iterator[tuple[Any, int]]:
        """Yield each picture that can be decoded, with its index in the folder."""
        for index, name in enumerate(self.folder.names):
            path = self.folder.path / name
            frame, is_complete = _decode(path)
            self.is_complete = is_complete
            self.decode_errors += frame is None or not is_complete
            if frame is None:
                continue
            if self._size is None:
                self.orientation = _orientation(path)
                self._size = (frame.width, frame.height)
            elif (frame.width, frame.height) != self._size:
                self.num_resized += 1
                sizes = f"{frame.width}x{frame.height} instead of {self._size[0]}x{self._size[1]} px"
                self._change = self._change or f"{sizes} from {name!r} on"
            self._num_decoded += 1
            yield frame, index
        if self._size is None:
            raise VideoDecodeError(f"no picture in {str(self.folder.path)!r} can be decoded; copy them again or remove the folder")

    def chosen(self) -> Iterator[tuple[NDArray[np.uint8], Fraction | None]]:
        """Yield the chosen pictures as upright RGB, uint8 (H, W, 3), with their times in s, as far as the frame rate tells them."""
        import av

        for frame, time in self._choose():
            try:
                yield upright(pixels_of(frame, self._reformatter, self._reading, self._greys), self.orientation), time
            except (av.FFmpegError, OSError):  # a format that libswscale cannot convert
                self.decode_errors += 1
                self._num_decoded -= 1

    def _choose(self) -> Iterator[tuple[Any, Fraction | None]]:
        first = self.folder.numbers[0]
        try:
            for frame, index in self.decoded():  # the number is the time stamp: a picture that is missing took its time all the same
                yield from self._chooser.add(frame, self.folder.numbers[index] - first)
            yield from self._chooser.finish()
        except NoTimesError as error:
            raise VideoDecodeError(
                f"{str(self.folder.path)!r} is a folder of pictures, whose frame rate is not known, so none can be chosen for a rate; "
                "give it with --frame-rate"
            ) from error

    def report(self) -> DecodeReport:
        """Return what was lost, after the last picture."""
        promised = self.folder.num_promised
        words = count_words(self._num_decoded, promised, self.decode_errors)
        if gaps := self.folder.gaps():
            words.append(gaps)
        if self._change:
            words.append(f"{counted(self.num_resized, 'picture')} of another size: {self._change}")
        notes = [*(self._chooser.notes() if self.rate else []), *self._greys.notes()]
        return DecodeReport(promised, self.decode_errors, ", ".join(words), ", ".join(notes), self._num_decoded)


def _codec(name: str) -> str:
    return "png" if name.lower().endswith(".png") else "mjpeg"


def _decode(path: Path) -> tuple[Any, bool]:
    """Return the frame that a picture holds, None if it cannot be decoded, and whether the file is complete."""
    import av
    import cv2
    import numpy as np

    try:
        data = read_file(path, most_bytes=MAX_PICTURE_BYTES)
        if data[:4] != _PNG:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION) if data else None
            rgb = None if pixels is None else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
            frame = None if rgb is None else av.VideoFrame.from_ndarray(rgb, format="rgb24")
            return frame, data.rfind(b"\xff\xd9") > 0
        context: Any = av.CodecContext.create("png", "r")
        context.thread_count = 1
        frames = [*context.decode(av.Packet(data)), *context.decode(None)]
    except (av.FFmpegError, cv2.error, OSError, ValueError):
        return None, False
    return next(iter(frames), None), data.rfind(b"IEND") > 0


def _orientation(path: Path) -> tuple[int, bool]:
    """Return the clockwise rotation in degrees, and the mirroring after it, that the Exif data of a picture asks for."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return _ORIENTATIONS.get(picture.getexif().get(_EXIF_ORIENTATION, 1), (0, False))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0, False
