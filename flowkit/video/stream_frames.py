"""The packets of a video stream, the frames that its decoder makes of them, and their pixels; errors are counted, and decoding goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowkit.errors import VideoDecodeError
from flowkit.video.deep_grey import GreyRange, grey_levels, stretched
from flowkit.video.pixels import MAX_FRAME_PIXELS, to_rgb

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from flowkit.video.damage import Account
    from flowkit.video.reading import Reading

MAX_READ_ERRORS = 100  # after so many, the rest of the file is skipped


def packets_of(account: Account) -> Iterator[Any]:
    """Yield the packets of a stream, also after errors; the last one is empty, which makes the decoder return the frames that it holds."""
    import av

    container, stream = account.video.container, account.video.stream
    for _ in range(MAX_READ_ERRORS):
        try:
            for packet in container.demux():
                if packet.stream is not stream:
                    account.note_other_packet(packet)
                    continue
                if packet.has_sidedata("encryption_info"):
                    raise account.video.encrypted()
                account.note_packet(packet)
                yield packet
        except VideoDecodeError:
            raise
        except (av.FFmpegError, OSError):
            account.unread += 1
        else:
            return
    yield av.Packet()


def decoded_frames(packets: Iterable[Any], account: Account) -> Iterator[Any]:
    """Yield the frames of a stream in presentation order; count errors and continue after them."""
    import av

    codec = account.video.stream.codec_context
    for packet in packets:
        try:
            frames = codec.decode(packet)
        except (av.FFmpegError, OSError):
            account.note_refused()
            continue
        for frame in frames:
            account.note_frame(frame)
            yield frame


def pixels_of(frame: Any, reformatter: Any, reading: Reading, greys: GreyRange) -> NDArray[np.uint8]:
    """Return the pixels of a frame as RGB; note the range of grey levels of more than 8 bits, and stretch it where asked to."""
    levels = grey_levels(frame) if frame.width * frame.height <= MAX_FRAME_PIXELS else None
    if levels is not None:
        greys.note(frame, levels)
        if reading.stretch is not None:
            return stretched(levels, *reading.stretch)
    picture = to_rgb(frame, reformatter)
    if levels is not None:
        greys.note_result(picture)
    return picture
