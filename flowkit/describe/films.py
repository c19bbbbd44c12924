"""Films of pictures, encoded by PyAV."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

UNKNOWN_RATE = Fraction(25)  # in frames per second, for clips whose rate is not known


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
