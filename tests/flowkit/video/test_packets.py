"""Packets that say themselves that they give no frame."""

from __future__ import annotations

import struct

import pytest

from flowkit.video.packets import first_slice, is_closed_start, is_hidden, is_not_coded, is_skipped_leading

START = b"\0\0\1"


class PacketBytes(bytes):
    """Bytes with the size that a packet has."""

    @property
    def size(self) -> int:
        return len(self)


def bits(text: str) -> bytes:
    """Return bytes from digits of 0 and 1, filled up with zeros."""
    digits = text.replace(" ", "")
    digits += "0" * (-len(digits) % 8)
    return int(digits, 2).to_bytes(len(digits) // 8, "big")


def with_lengths(*units: bytes, width: int = 4) -> PacketBytes:
    return PacketBytes(b"".join(len(unit).to_bytes(width, "big") + unit for unit in units))


def with_start_codes(*units: bytes) -> PacketBytes:
    return PacketBytes(b"".join(b"\0" + START + unit for unit in units))


SPS, PPS, SEI, SLICE, IDR = (bytes([kind, 1, 2, 3]) for kind in (0x67, 0x68, 0x06, 0x41, 0x65))
AVCC = b"\1\x64\0\x1f\xff" + bytes(20)


@pytest.mark.parametrize(
    ("units", "kind"), [((SPS, PPS), -1), ((SEI,), -1), ((SEI, SLICE), 1), ((SPS, PPS, SEI, IDR), 5), ((SLICE, SLICE), 1), ((), -1)]
)
def test_an_h264_packet_without_a_slice_gives_no_frame(units: tuple[bytes, ...], kind: int) -> None:
    assert first_slice("h264", AVCC, with_lengths(*units)) == kind
    assert is_hidden("h264", AVCC, with_lengths(*units)) == (kind == -1)
    if units:
        assert first_slice("h264", None, with_start_codes(*units)) == kind
        assert first_slice("h264", START + SPS, with_start_codes(*units)) == kind


def test_only_an_idr_picture_closes_what_was_before() -> None:
    assert is_closed_start("h264", AVCC, with_lengths(SPS, PPS, SEI, IDR))
    assert is_closed_start("h264", None, with_start_codes(SPS, IDR, IDR))
    assert not is_closed_start("h264", AVCC, with_lengths(SEI, SLICE))
    assert not is_closed_start("h264", None, PacketBytes(b"no start code"))
    assert not is_closed_start("hevc", None, with_start_codes(IDR))


def test_lengths_have_the_width_that_the_stream_says() -> None:
    for width in (1, 2, 4):
        extradata = b"\1\x64\0\x1f" + bytes([0xFC | width - 1]) + bytes(20)
        assert first_slice("h264", extradata, with_lengths(SPS, IDR, width=width)) == 5


def test_a_packet_that_cannot_be_divided_is_never_hidden() -> None:
    assert not is_hidden("h264", AVCC, PacketBytes(struct.pack(">I", 1 << 20) + SPS))
    assert not is_hidden("h264", None, PacketBytes(b"no start code"))
    assert not is_hidden("h264", None, with_start_codes(SEI + bytes(5000)))


def test_leading_pictures_of_hevc_are_recognised() -> None:
    for kind in range(32):
        packet = with_start_codes(bytes([kind << 1, 1, 0]))
        assert is_skipped_leading("hevc", None, packet) == (kind in (8, 9))
        assert not is_hidden("hevc", None, packet)
    assert is_hidden("hevc", None, with_start_codes(bytes([32 << 1, 1, 0])))  # a parameter set


@pytest.mark.parametrize(
    ("frame", "hidden"),
    [
        ("10 00 0 0 1", False),  # marker, profile, show_existing_frame, frame_type, show_frame
        ("10 00 0 0 0", True),
        ("10 00 0 1 0", True),
        ("10 00 1 000", False),
        ("10 10 0 1 0", True),
        ("10 11 0 0 1 0", True),  # profile 3 has a reserved bit
        ("10 11 0 0 1 1", False),
        ("01 00 0 0 0", False),  # no frame of VP9
    ],
)
def test_hidden_pictures_of_vp9_are_recognised(frame: str, hidden: bool) -> None:
    assert is_hidden("vp9", None, PacketBytes(bits(frame) + bytes(3))) == hidden
    assert not is_hidden("vp9", None, PacketBytes(bits(frame) + bytes(3) + b"\xc0"))  # a superframe


def mpeg4_header(resolution: int, *, version: str = "0", aspect: str = "0001", control: str = "0") -> bytes:
    layer = f"0 00000001 {version} {aspect} {control} 00 1 {resolution:016b} 1"
    return START + b"\x20" + bits(layer)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"version": "1 0010 001"},
        {"aspect": "1111 00010000 00001011"},
        {"control": "1 01 0 0"},
        {"control": "1 01 1 1" + "01" * 39 + "1"},
    ],
)
@pytest.mark.parametrize("resolution", [1, 25, 30000, 65535])
def test_pictures_of_mpeg4_that_are_not_coded_are_recognised(resolution: int, options: dict[str, str]) -> None:
    header = mpeg4_header(resolution, **options)
    width = max((resolution - 1).bit_length(), 1)
    for seconds in ("0", "110"):
        picture = f"01 {seconds} 1 {'1' * width} 1"
        assert is_not_coded("mpeg4", header, PacketBytes(START + b"\xb6" + bits(picture + "0 1111111")))
        assert not is_not_coded("mpeg4", header, PacketBytes(START + b"\xb6" + bits(picture + "1 0000000")))


def test_only_small_packets_may_be_pictures_that_are_not_coded() -> None:
    assert is_not_coded("mpeg4", None, PacketBytes(START + b"\xb6\0\0"))  # without a header that says how to read it
    assert is_not_coded("cinepak", None, PacketBytes(bytes(19)))
    assert not is_not_coded("cinepak", None, PacketBytes(bytes(20)))
