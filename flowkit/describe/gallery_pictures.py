"""The pictures of a video in the gallery: a still and a short film of its frames beside their flow, both small and bounded in bytes.

The film is VP9 in WebM. A codec that predicts one frame from another takes 0.4 times the bytes of animated WebP at about the same
error, and 0.4 times the time (benchmarks/README.md). All current browsers play it, can pause it and step through it.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from flowkit.describe.encoding import jpeg
from flowkit.describe.films import playing_rate, write_film
from flowkit.describe.flow_colour import flow_to_colour, round_scale
from flowkit.describe.pictures import measure_flow, small_moment
from flowkit.errors import DeviceError
from flowkit.shards.reader import Clip

DRAWING = 1  # changes whenever the same clip would be drawn differently
MOST_BYTES = 150_000  # of still and film together
SHORT_SIDE_PX, LONG_SIDE_PX = 128, 320  # of frames, at most
SECONDS = 5  # that a film lasts, at most
_MOST_FRAMES_PER_SECOND = 15
_MEASURED_FIELDS = 50  # at most, spread evenly over the clip
_LEAST_SIDE_PX = 16  # smaller pictures are padded, because not every decoder plays them
_STILL_QUALITIES, _STILL_BYTES = (80, 60, 40, 20), 40_000
_STILL_RANK = 0.8  # of its speed among the fields of the film
_QUALITIES = (34, 44, 54, 63)  # of VP9, the best first


@dataclass(frozen=True)
class ShownFields:
    """Which flow fields of a clip a film shows, with the frames from which they lead.

    Parameters
    ----------
    start, stop, step : int
        The fields ``range(start, stop, step)``.
    rate : Fraction, 1/s
        Frames of the film per second, so that it runs at the speed of the video.
    """

    start: int
    stop: int
    step: int
    rate: Fraction

    @property
    def indices(self) -> range:
        """The indices of the fields."""
        return range(self.start, self.stop, self.step)

    @property
    def seconds(self) -> float:
        """How long the film lasts, s."""
        return float(len(self.indices) / self.rate)


@dataclass(frozen=True)
class GalleryPictures:
    """What is drawn of a clip.

    Parameters
    ----------
    still, film : bytes
        A JPEG and a WebM file of `width` x `height` px: frames on the left, flow on the right.
    shown : ShownFields
        The fields of the film. The still is one of them that moves more than most, but not the fastest, which may be a cut.
    width, height : int, px
        The size of both.
    speed_px, scale_px : float, px/frame
        The mean speed of the pixels of up to 50 fields, spread evenly over the whole clip, and the speed of full saturation.
    """

    still: bytes
    film: bytes
    shown: ShownFields
    width: int
    height: int
    speed_px: float
    scale_px: float


def shown_fields(num_frames: int, frame_rate: Fraction, *, seconds: float = SECONDS) -> ShownFields:
    """Choose the fields of a film: the middle `seconds` of the video, at 15 frames per second at most.

    Parameters
    ----------
    num_frames : int
        Frames of the clip, at least 2.
    frame_rate : Fraction, 1/s
        Frames of the clip per second; 0 if it is unknown, which counts as 25.
    seconds : float, s
        How long the film may last.

    Examples
    --------
    >>> from fractions import Fraction
    >>> from flowkit.describe.gallery_pictures import shown_fields
    >>> shown_fields(251, Fraction(25))
    ShownFields(start=63, stop=187, step=2, rate=Fraction(25, 2))
    >>> shown_fields(251, Fraction(25)).seconds
    4.96
    """
    rate = playing_rate(frame_rate)
    step = -(-rate // _MOST_FRAMES_PER_SECOND)
    num_fields = num_frames - 1
    most = max(int(seconds * rate / step), 1) * step
    length = min(num_fields, most)
    start = (num_fields - length) // 2
    return ShownFields(start, start + length, int(step), rate / step)


def draw_pictures(clip: Clip) -> GalleryPictures:
    """Draw the still and the film of a clip.

    Raises
    ------
    ShardFormatError
        If the clip is damaged.
    DeviceError
        If this PyAV cannot write VP9.
    """
    stats = measure_flow(clip, most=_MEASURED_FIELDS).stats()
    assert stats is not None  # a clip has at least one flow field
    scale_px = round_scale(stats.p99_px)
    shown = shown_fields(clip.num_frames, clip.frame_rate)
    frames, speeds = _drawn(clip, shown.indices, scale_px)
    still = _still(frames[np.argsort(speeds, kind="stable")[int(_STILL_RANK * (len(frames) - 1))]])
    film, shown = _bounded_film(frames, shown, MOST_BYTES - len(still))
    return GalleryPictures(still, film, shown, frames.shape[2], frames.shape[1], stats.mean_px, scale_px)


def _drawn(clip: Clip, indices: range, scale_px: float) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Draw these fields: the frame from which each leads on the left, its colours on the right.

    Returns
    -------
    pictures : uint8 array, shape (n, H, W, 3), RGB
    speeds : float32 array, shape (n,), px/frame
        The mean speed of each field.
    """
    height, width = _small_size(clip.height, clip.width)
    pictures, speeds = [], []
    for k in indices:
        frame, flow = small_moment(clip, k, height, width)
        pictures.append(np.concatenate([frame, flow_to_colour(flow, scale_px=scale_px)], axis=1))
        speeds.append(np.hypot(flow[0], flow[1]).mean())
    drawn = np.stack(pictures)
    below = max(_LEAST_SIDE_PX - drawn.shape[1], drawn.shape[1] % 2)  # the pixel format needs even sides
    beside = max(_LEAST_SIDE_PX - drawn.shape[2], 0)
    return np.pad(drawn, ((0, 0), (0, below), (0, beside), (0, 0)), mode="edge"), np.array(speeds, np.float32)


def _small_size(height: int, width: int) -> tuple[int, int]:
    """Return the height and width of small pictures of frames of this size: never enlarged, in proportion."""
    scale = min(SHORT_SIDE_PX / min(height, width), LONG_SIDE_PX / max(height, width), 1)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _still(picture: NDArray[np.uint8]) -> bytes:
    """Encode a picture as JPEG, with lower quality if it would take too many bytes."""
    encoded = b""
    for quality in _STILL_QUALITIES:
        encoded = jpeg(picture, quality=quality)
        if len(encoded) <= _STILL_BYTES:
            break
    return encoded


def _bounded_film(frames: NDArray[np.uint8], shown: ShownFields, most_bytes: int) -> tuple[bytes, ShownFields]:
    """Encode frames as a film of at most so many bytes: with lower quality if need be, and at last with fewer frames around the middle."""
    for quality in _QUALITIES:
        film = _film(frames, shown.rate, quality)
        if len(film) <= most_bytes:
            return film, shown
    while len(film) > most_bytes and len(frames) > 1:
        cut = -(-len(frames) // 4)
        frames = frames[cut // 2 : len(frames) - (cut - cut // 2)]
        start = shown.start + cut // 2 * shown.step
        shown = ShownFields(start, start + len(frames) * shown.step, shown.step, shown.rate)
        film = _film(frames, shown.rate, _QUALITIES[-1])
    return film, shown


def _film(frames: NDArray[np.uint8], rate: Fraction, quality: int) -> bytes:
    """Encode frames (n, H, W, 3) as VP9 in WebM; the same frames give the same bytes."""
    import av

    if "libvpx-vp9" not in av.codecs_available:
        raise DeviceError(
            "this PyAV cannot write VP9, the codec of the gallery's films; take it from PyPI: `pip install --force-reinstall av`"
        )
    buffer = io.BytesIO()
    options = {"crf": str(quality), "b": "0", "deadline": "realtime", "cpu-used": "6", "row-mt": "0"}
    write_film(
        buffer,
        frames,
        frames.shape[1:3],
        rate=rate,
        container="webm",
        codec="libvpx-vp9",
        options=options,
        container_options={"fflags": "+bitexact"},
    )
    return buffer.getvalue()
