"""Packets whose picture is not shown on purpose: what a codec's own bytes say, without decoding them.

In most streams each packet gives one frame. VP8 and VP9 have pictures that only later ones refer to, an H.264 or HEVC packet may
hold nothing but parameters or messages, and MPEG-4 has pictures that are not coded, which stand for the one before. A decoder
returns no frame for these, and nothing is lost.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST_NOT_CODED_BYTES = 19  # FFmpeg's own limit for a packet of MPEG-4 without a picture
_SCANNED_BYTES = 4096  # in which the first slice of a packet with start codes is looked for
_H264_IDR = 5
_MARKS_HEVC_LEADING = (8, 9)  # RASL: leading pictures that cannot be decoded when decoding starts at their random access point


def is_hidden(codec: str, extradata: bytes | None, packet: Any) -> bool:
    r"""Whether a packet says itself that it gives no frame.

    Parameters
    ----------
    codec : str
        FFmpeg's name of the codec.
    extradata : bytes or None
        The parameters of the stream, which tell how NAL units are divided.
    packet : av.Packet
        The packet, not empty.

    Examples
    --------
    The first byte of a VP8 packet has a bit that says whether its picture is shown:

    >>> is_hidden("vp8", None, b"\\x11\\x02\\x00"), is_hidden("vp8", None, b"\\x01\\x02\\x00")
    (False, True)
    """
    if codec in ("h264", "hevc"):
        return first_slice(codec, extradata, packet) == -1
    if codec == "vp8":
        return not memoryview(packet)[0] & 0x10
    return codec == "vp9" and _is_hidden_vp9(memoryview(packet))


def is_skipped_leading(codec: str, extradata: bytes | None, packet: Any) -> bool:
    """Whether a packet is a leading picture of HEVC, which a decoder skips if it begins at the random access point before it."""
    return codec == "hevc" and first_slice(codec, extradata, packet) in _MARKS_HEVC_LEADING


def is_closed_start(codec: str, extradata: bytes | None, packet: Any) -> bool:
    """Whether a packet is an IDR picture of H.264: no later packet refers to an earlier one, or is shown before it."""
    return codec == "h264" and first_slice(codec, extradata, packet) == _H264_IDR


def is_not_coded(codec: str, extradata: bytes | None, packet: Any) -> bool:
    """Whether a packet may stand for a picture that is not coded, because it equals the one before.

    MPEG-4 says so with a bit. In other codecs any packet of at most 19 bytes may be one.
    """
    if packet.size > _MOST_NOT_CODED_BYTES:
        return False
    if codec != "mpeg4":
        return True
    data = bytes(packet)
    at = data.find(b"\0\0\1\xb6")
    resolution = _mpeg4_resolution(extradata or b"")
    if at < 0 or not resolution:
        return True
    bits = _Bits(data[at + 4 :])
    bits.take(2)
    while bits.take(1):
        pass
    bits.take(1 + max((resolution - 1).bit_length(), 1) + 1)
    return not bits.take(1)


def _mpeg4_resolution(extradata: bytes) -> int:
    """Return the time units per second of an MPEG-4 stream, which give the length of a field in its pictures; 0 if they are not found."""
    found = re.search(rb"\x00\x00\x01[\x20-\x2f]", extradata)
    if not found:
        return 0
    bits = _Bits(extradata[found.end() :])
    bits.take(9)
    version = 1
    if bits.take(1):
        version = bits.take(7) >> 3
    if bits.take(4) == 15:  # a sample aspect ratio of its own
        bits.take(16)
    if bits.take(1) and bits.take(4) & 1:  # control parameters, with those of a buffer
        bits.take(79)
    if bits.take(2) == 3 and version != 1:  # a shape of grey levels
        bits.take(4)
    bits.take(1)
    return bits.take(16)


class _Bits:
    """Reads bits from bytes; beyond their end they are 0."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        value = self._value >> self._left if self._left >= 0 else self._value << -self._left
        return value & ((1 << count) - 1)


def first_slice(codec: str, extradata: bytes | None, packet: Any) -> int:
    """Return the NAL unit type of the first slice of an H.264 or HEVC packet; -1 if it has none, -2 if that is not certain."""
    data = memoryview(packet)
    for start in _nal_units(codec, extradata, data):
        if start < 0:
            return -2
        kind = data[start] & 31 if codec == "h264" else data[start] >> 1 & 63
        if (1 <= kind <= 5) if codec == "h264" else kind < 32:
            return kind
    return -1


def _nal_units(codec: str, extradata: bytes | None, data: memoryview) -> Iterator[int]:
    """Yield where each NAL unit begins; -1 where this cannot be known."""
    at_length = 4 if codec == "h264" else 21
    if extradata and extradata[0] == 1 and len(extradata) > at_length:  # each unit begins with its length
        width = (extradata[at_length] & 3) + 1
        at = 0
        while at + width < len(data):
            size = int.from_bytes(data[at : at + width], "big")
            if size == 0 or at + width + size > len(data):
                yield -1
                return
            yield at + width
            at += width + size
        return
    head = bytes(data[:_SCANNED_BYTES])
    at = head.find(b"\0\0\1")
    if at < 0:
        yield -1
    while 0 <= at < len(head) - 3:
        yield at + 3
        at = head.find(b"\0\0\1", at + 3)
    if len(data) > _SCANNED_BYTES:
        yield -1


def _is_hidden_vp9(data: memoryview) -> bool:
    if data[-1] & 0xE0 == 0xC0:  # a superframe, which holds a picture that is shown and those that are not
        return False
    bits = int.from_bytes(data[:2], "big")
    if len(data) < 2 or bits >> 14 != 2:  # not the marker of a frame
        return False
    at = 11 if bits >> 12 & 3 != 3 else 10  # the bit of show_existing_frame; profile 3 has a reserved bit before it
    return not bits >> at & 1 and not bits >> (at - 2) & 1
