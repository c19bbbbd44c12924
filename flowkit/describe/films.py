"""Films of pictures, encoded by PyAV, and animated GIFs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from flowkit.files import replacing

Animation = Literal["mp4", "gif"]

UNKNOWN_RATE = Fraction(25)  # in frames per second, for clips whose rate is not known
GIF_PX = 240  # height of a GIF, at most


def playing_rate(frame_rate: Fraction) -> Fraction:
    """Return the frames per second at which a clip is played: its own, or 25 if that is unknown (0), below 1 or above 240.

    Examples
    --------
    >>> from fractions import Fraction
    >>> from flowkit.describe.films import playing_rate
    >>> playing_rate(Fraction(30000, 1001)), playing_rate(Fraction(0))
    (Fraction(30000, 1001), Fraction(25, 1))
    """
    return frame_rate if 1 <= frame_rate <= 240 else UNKNOWN_RATE


def write_film(
    file: str | BinaryIO,
    pictures: Iterable[NDArray[np.uint8]],
    size: Sequence[int],
    *,
    rate: Fraction,
    container: str,
    codec: str,
    options: Mapping[str, str],
    container_options: Mapping[str, str] | None = None,
) -> None:
    """Encode pictures as a film, on one thread.

    Parameters
    ----------
    file : str or file object
        Where the film is written.
    pictures : iterable of uint8 arrays, shape (H, W, 3), RGB
        The pictures; H is even.
    size : two ints, px
        H and W.
    rate : Fraction, 1/s
        Pictures per second.
    container, codec : str
        The container's format and the codec, as FFmpeg names them.
    options, container_options : mapping of str to str
        The options of the codec and of the container.
    """
    import av

    with av.open(file, "w", format=container, options=dict(container_options or {})) as opened:
        stream: Any = opened.add_stream(codec, rate=rate.limit_denominator(65535), options=dict(options))
        stream.pix_fmt, stream.thread_count = "yuv420p", 1
        stream.height, stream.width = size
        for picture in pictures:
            opened.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        opened.mux(stream.encode())


def write_animation(
    kind: Animation, path: Path, pictures: Iterable[NDArray[np.uint8]], size: tuple[int, int], *, frame_rate: Fraction, step: int = 1
) -> None:
    """Write pictures as an MP4 film or as an animated GIF, which is at most 240 px high.

    Parameters
    ----------
    kind : {"mp4", "gif"}
        The format.
    path : Path
        The file.
    pictures : iterable of uint8 arrays, shape (H, W, 3), RGB
        The pictures.
    size : (int, int), px
        H and W.
    frame_rate : Fraction, 1/s
        That of the clip; 0 if it is not known.
    step : int
        How many frames of the clip lead from one picture to the next.
    """
    (_write_mp4 if kind == "mp4" else _write_gif)(path, pictures, size, frame_rate, step)


def _write_mp4(path: Path, pictures: Iterable[NDArray[np.uint8]], size: tuple[int, int], frame_rate: Fraction, step: int) -> None:
    import av

    codec, options = ("libx264", {"crf": "20", "preset": "fast"}) if "libx264" in av.codecs_available else ("mpeg4", {"qmax": "4"})
    odd = size[0] % 2, size[1] % 2  # the pixel format needs even sides
    even = (np.pad(picture, ((0, odd[0]), (0, odd[1]), (0, 0)), mode="edge") for picture in pictures)
    rate, even_size = playing_rate(frame_rate) / step, (size[0] + odd[0], size[1] + odd[1])
    with replacing(path) as part:
        write_film(str(part), even, even_size, rate=rate, container="mp4", codec=codec, options=options)


def _write_gif(path: Path, pictures: Iterable[NDArray[np.uint8]], size: tuple[int, int], frame_rate: Fraction, step: int) -> None:
    from PIL import Image

    height = min(size[0], GIF_PX)
    width = round(size[1] * height / size[0])
    rate = (frame_rate or UNKNOWN_RATE) / step
    octree = Image.Quantize.FASTOCTREE  # keeps rare colours, such as a legend's, and is many times faster than the default
    images = [Image.fromarray(shrunk(picture, height, width)).quantize(256, octree) for picture in pictures]
    with replacing(path) as part, part.open("wb") as file:
        hundredths = max(2, round(100 / rate))  # shorter ones are shown slowly by browsers
        images[0].save(file, format="GIF", save_all=True, append_images=images[1:], duration=10 * hundredths, loop=0)


def shrunk(picture: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Return a picture, or a flow field (H, W, 2), shrunk to a size by averaging areas."""
    import cv2

    if picture.shape[:2] == (height, width):
        return picture
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA))
