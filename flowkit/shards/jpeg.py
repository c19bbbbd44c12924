"""JPEG images in memory: encode them, read their size without decoding, and decode those that have the expected size."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ShardFormatError
from flowkit.shards.schema import JPEG_QUALITY

# Start-of-frame markers of baseline, extended and progressive JPEG, which common decoders read.
_START_OF_FRAME = (0xC0, 0xC1, 0xC2)
_NO_LENGTH = (0x01, *range(0xD0, 0xD9))  # markers without a length
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
# What ends the data of a scan: any marker but a restart. In those data, 0xFF stands before 0x00 and is no marker.
_END_OF_SCAN = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")

MAX_SCANS = 100  # of a JPEG; encoders write 1 to 12, and each one makes a decoder go through the whole image


def encode_jpeg(image: NDArray[np.uint8]) -> bytes:
    """Encode an image at quality 95.

    Parameters
    ----------
    image : uint8 array, shape (H, W, 3) RGB or (H, W) grey
        The image.
    """
    import cv2

    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    good, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert good, f"OpenCV could not encode an image of shape {image.shape}"
    data: bytes = encoded.tobytes()
    return data


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Return the (height, width) that a JPEG's header declares; see `jpeg_header`."""
    return jpeg_header(data)[:2]


def jpeg_header(data: bytes) -> tuple[int, int, int]:
    """Return the height, the width and the number of channels that a JPEG's header declares.

    Raises
    ------
    ShardFormatError
        If it is not a JPEG, of a kind that flowkit does not read (lossless, arithmetic, 12 bit, CMYK), or has so many scans that
        a small file would take minutes to decode.
    """
    if data[:2] != b"\xff\xd8":
        raise ShardFormatError("is not a JPEG")
    position, end = 2, len(data)
    while position + 4 <= end and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker in _NO_LENGTH:
            position += 2
            continue
        if marker in _START_OF_FRAME and position + 10 <= end:
            precision, num_components = data[position + 4], data[position + 9]
            if precision != 8 or num_components not in (1, 3):
                raise ShardFormatError(f"is a JPEG with {num_components} components of {precision} bits; flowkit reads 1 or 3 of 8 bits")
            if data.count(b"\xff\xda", position) > MAX_SCANS and _num_scans(data, position) > MAX_SCANS:
                raise ShardFormatError(f"is a JPEG with more than {MAX_SCANS} scans, which would take very long to decode")
            height, width = (int.from_bytes(data[position + at : position + at + 2], "big") for at in (5, 7))
            return height, width, num_components
        if marker == _START_OF_SCAN:
            break
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    raise ShardFormatError("is a JPEG whose header flowkit cannot read")


def _num_scans(data: bytes, position: int) -> int:
    """Return how many scans follow the marker at a position, without those of thumbnails inside other segments."""
    num_scans = 0
    while 0 <= (position := data.find(b"\xff", position)) < len(data) - 3:  # decoders skip what stands between segments
        marker = data[position + 1]
        if marker == _END_OF_IMAGE:
            break
        if marker in (0x00, 0xFF, *_NO_LENGTH):
            position += 1 if marker == 0xFF else 2
            continue
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == _START_OF_SCAN:
            num_scans += 1
            found = _END_OF_SCAN.search(data, position)
            position = len(data) if found is None else found.end() - 2
    return num_scans


def decode_jpeg(data: bytes, out: NDArray[np.uint8]) -> None:
    """Decode a JPEG into `out`, if its header declares exactly the size of `out`.

    Parameters
    ----------
    data : bytes
        The JPEG.
    out : uint8 array, shape (H, W, 3) for RGB or (H, W) for grey, C-contiguous
        The array to fill. A JPEG of another size is refused before any pixel is decoded.

    Raises
    ------
    ShardFormatError
        If the JPEG is damaged or has another size.
    """
    import cv2

    height, width = jpeg_size(data)
    if (height, width) != out.shape[:2]:
        raise ShardFormatError(f"is a JPEG of {width}x{height} px instead of {out.shape[1]}x{out.shape[0]} px")
    flags = (cv2.IMREAD_COLOR if out.ndim == 3 else cv2.IMREAD_GRAYSCALE) | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    except cv2.error as cause:
        raise ShardFormatError(f"is a JPEG that cannot be decoded ({cause})") from cause
    if image is None or image.shape != out.shape:
        raise ShardFormatError("is a JPEG that cannot be decoded")
    if out.ndim == 3:
        cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=out)
    else:
        out[:] = image
