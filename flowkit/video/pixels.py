"""From a decoded frame to upright RGB pixels of the size that is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowkit.errors import ParameterError, VideoDecodeError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

MAX_FRAME_PIXELS = 2**27  # 16K video; larger frames come from damaged or hostile headers and would exhaust the memory
MAX_SIDE = 2**15 - 2  # px; OpenCV cannot warp larger frames
UNSPECIFIED_MATRIX = 2  # AVCOL_SPC_UNSPECIFIED
KNOWN_MATRICES = frozenset({0, 1, 2, 4, 5, 6, 7, 9})  # the AVCOL_SPC_* that libswscale converts to RGB
REFUSED_MATRICES = {  # those that it would convert to other colours, without a word
    8: "YCgCo",
    10: "BT.2020 with constant luminance",
    11: "SMPTE ST 2085",
    12: "derived from the primaries",
    13: "derived from the primaries with constant luminance",
    14: "ICtCp",
    15: "IPT-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}


def resized_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Return the size to which a frame is resized: short side exactly `short_side`, long side in proportion and even.

    Parameters
    ----------
    width, height : int, px, >= 1
        Size of the frame.
    short_side : int, px, >= 2
        Length of the short side after resizing.

    Returns
    -------
    (width, height) : tuple of int, px
        ``long = (long * short_side // short) & ~1``, in integers; if the sides are equal, the width is the long one.

    Raises
    ------
    ParameterError
        If a size is not positive, or `short_side` is below 2.

    Examples
    --------
    >>> resized_size(320, 240, 256)
    (340, 256)
    """
    if width < 1 or height < 1:
        raise ParameterError(f"a frame's sides must be at least 1 px, got {width}x{height}")
    check_short_side(short_side)
    if width >= height:
        return (width * short_side // height) & ~1, short_side
    return short_side, (height * short_side // width) & ~1


def stored_size(path: Path, width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Return the (width, height), px, of the frames that a video with upright pictures of a size gives; None keeps their size.

    Raises
    ------
    VideoDecodeError
        If the frames would be too large.
    """
    if short_side is not None:
        width, height = resized_size(width, height, short_side)
    if width * height > MAX_FRAME_PIXELS or max(width, height) > MAX_SIDE:
        raise VideoDecodeError(f"{str(path)!r} would become frames of {width}x{height} px; use a smaller short side")
    return width, height


def check_short_side(short_side: int) -> None:
    """Refuse a short side below 2 px."""
    if short_side < 2:
        raise ParameterError(f"short_side must be at least 2 px, got {short_side}")


def orientation_of(frame: Any) -> tuple[int, bool]:
    """Return a frame's (clockwise rotation in degrees, mirroring after it) from its display matrix, to the nearest right angle."""
    import numpy as np

    if "DISPLAYMATRIX" not in frame.side_data:
        return 0, False
    # 3x3 numbers in 16.16 fixed point, row by row: x' = a x + c y, y' = b x + d y, with y pointing down.
    a, b, _, c, d = np.frombuffer(bytes(frame.side_data["DISPLAYMATRIX"]), dtype=np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return (180 if d < 0 else 0), (a < 0) != (d < 0)
    return (90 if b > 0 else 270), (b < 0) == (c < 0)


def check_matrix(frame: Any, path: Path) -> None:
    """Refuse a video whose colours are coded in a way that libswscale does not convert to RGB.

    Parameters
    ----------
    frame : av.VideoFrame
        The first frame.
    path : Path
        The file, for the message.

    Raises
    ------
    VideoDecodeError
        If the frame has such colours. Grey pictures and those that are stored as RGB need no matrix.
    """
    if _has_refused_matrix(frame):
        raise VideoDecodeError(
            f"{str(path)!r} codes its colours with the matrix {REFUSED_MATRICES[frame.colorspace]}, which flowkit cannot convert to RGB; "
            "convert the video first, to BT.709 for instance, with a program that supports this matrix"
        )


def _has_refused_matrix(frame: Any) -> bool:
    return frame.colorspace in REFUSED_MATRICES and not frame.format.is_rgb and len(frame.format.components) > 2


def to_rgb(frame: Any, reformatter: Any) -> NDArray[np.uint8]:
    """Return the stored pixels of a frame as RGB, (H, W, 3)."""
    if frame.width * frame.height > MAX_FRAME_PIXELS:
        raise OSError(f"a frame of {frame.width}x{frame.height} px is too large")
    if _has_refused_matrix(frame):
        raise OSError(f"a frame with the matrix {REFUSED_MATRICES[frame.colorspace]} cannot be converted")
    if frame.colorspace not in KNOWN_MATRICES:
        frame.colorspace = UNSPECIFIED_MATRIX
    # threads=1: the cores of the machine are divided among processes, each of which has one video.
    pixels: NDArray[np.uint8] = reformatter.reformat(frame, format="rgb24", interpolation="BICUBIC", threads=1).to_ndarray()
    return pixels


def upright(picture: NDArray[np.uint8], orientation: tuple[int, bool]) -> NDArray[np.uint8]:
    """Return a picture (H, W, 3) turned and mirrored as `orientation_of` says."""
    import numpy as np

    rotation, mirrored = orientation
    turned = np.rot90(picture, k=-rotation // 90)
    return np.ascontiguousarray(turned[:, ::-1] if mirrored else turned)


def resize_into(picture: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """Resize the picture into `out`."""
    if picture.shape == out.shape:
        out[...] = picture
        return
    import cv2

    enlarging = min(out.shape[:2]) > min(picture.shape[:2])
    interpolation = cv2.INTER_CUBIC if enlarging else cv2.INTER_AREA
    cv2.resize(picture, (out.shape[1], out.shape[0]), dst=out, interpolation=interpolation)
