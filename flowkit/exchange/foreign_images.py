"""Images of foreign trees as pixels: read with a bound on their size, decoded, compared with what flow looks like.

Only one image is decoded at a time, and none of more than `MAX_PIXELS`, so importing a video takes at most about 400 MB, whatever
its number of frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ShardFormatError
from flowkit.exchange.image_runs import ImageRun
from flowkit.files import read_file
from flowkit.quantise import Quantiser
from flowkit.shards.jpeg import jpeg_header
from flowkit.video.pixels import resize_into

MAX_PIXELS = 1 << 25  # of an image: more than an 8K video has (7680x4320)
MAX_IMAGE_BYTES = 1 << 27  # of a file

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END_OF_JPEG = b"\xff\xd9"
_SAMPLES = 16  # fields of a video that are looked at
_MOST_CHROMA, _MOST_MEAN_CHROMA = 16, 4.0  # grey levels between the channels of a picture that is still grey
_WHITE, _BLACK = 225, 30  # a picture that is all lighter, or all darker, is not flow in grey: there, no motion is 128
_MOVING_PX, _FEW_PIXELS = 1.0, 50
_MUCH_BETTER = 0.7
_MIDDLE_PX = 1024


def read_image(path: Path) -> tuple[bytes, tuple[int, int]]:
    """Read a JPEG or PNG file; return its bytes and (height, width).

    Raises
    ------
    ShardFormatError
        If it is not a regular file, too large, truncated, or not of the kind that its name says.
    """
    try:
        data = read_file(path, most_bytes=MAX_IMAGE_BYTES)
    except OSError as cause:
        raise ShardFormatError(f"{path.name} cannot be read: {cause.strerror}") from cause
    if path.suffix.lower() == ".png":
        if data[:8] != _PNG_SIGNATURE or data[12:16] != b"IHDR" or b"IEND" not in data[-12:]:
            raise ShardFormatError(f"{path.name} is not a complete PNG")
        if data[24] > 8:
            raise ShardFormatError(f"{path.name} is a PNG of {data[24]} bits; flowkit reads those of 8 bits")
        size = int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")
    else:
        try:
            size = jpeg_header(data)[:2]
        except ShardFormatError as cause:
            raise ShardFormatError(f"{path.name} {cause}") from cause
        if _END_OF_JPEG not in data[-1024:]:
            raise ShardFormatError(f"{path.name} is a truncated JPEG")
    if size[0] * size[1] > MAX_PIXELS:
        raise ShardFormatError(f"{path.name} has {size[1]}x{size[0]} px; images of up to {MAX_PIXELS} pixels (8K video) are imported")
    return data, size


def decode_frame(data: bytes, name: str) -> NDArray[np.uint8]:
    """Decode an image to RGB (H, W, 3); grey becomes three equal channels."""
    import cv2

    pixels = _decoded(data, name)
    if pixels.ndim == 3 and pixels.shape[2] != 3:
        raise ShardFormatError(f"{name} has {pixels.shape[2]} channels; frames have 1 or 3")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB if pixels.ndim == 2 else cv2.COLOR_BGR2RGB))


def decode_plane(data: bytes, name: str) -> NDArray[np.uint8]:
    """Decode an image of u or v to (H, W); one of three channels must be grey.

    Raises
    ------
    ShardFormatError
        If it cannot be decoded, or is in colours.
    """
    pixels = _decoded(data, name)
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[2] != 3:
        raise ShardFormatError(f"{name} has {pixels.shape[2]} channels; an image of u or v is grey")
    if is_colourful(pixels):
        raise ShardFormatError(_colours(name))
    return np.ascontiguousarray(pixels[..., 1])


def _decoded(data: bytes, name: str) -> NDArray[np.uint8]:
    import cv2

    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as cause:
        raise ShardFormatError(f"{name} cannot be decoded ({cause.err})") from cause
    if image is None or image.dtype != np.uint8:
        raise ShardFormatError(f"{name} cannot be decoded, or does not have 8 bits")
    return np.asarray(image)


def resized(frame: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize a frame as extraction does; its sides must have nearly the proportion of the new ones.

    Raises
    ------
    ShardFormatError
        If they have not, since the frame then shows another part of the picture than the flow.
    """
    own_height, own_width = frame.shape[:2]
    if abs(own_width * height / (own_height * width) - 1) > 0.05:
        raise ShardFormatError(
            f"frames of {own_width}x{own_height} px and flow of {width}x{height} px have different proportions, so one of them was cropped"
        )
    if (own_height, own_width) == (height, width):
        return frame
    out = np.empty((height, width, 3), np.uint8)
    resize_into(frame, out)
    return out


def is_colourful(pixels: NDArray[np.uint8]) -> bool:
    """Return whether a picture of three channels has colours, beyond what JPEG makes of grey."""
    chroma = pixels.max(axis=2).astype(np.int16) - pixels.min(axis=2)
    return bool(chroma.max() > _MOST_CHROMA or chroma.mean() > _MOST_MEAN_CHROMA)


def check_grey(u: ImageRun, v: ImageRun) -> None:
    """Refuse flow that is drawn in colours (by hue, or those of Middlebury) instead of u and v in grey, by some fields of a video.

    Raises
    ------
    ShardFormatError
        If a sampled image has colours; if all are of three channels and white or black, as slow motion is in colours; or if u and v
        are always the same picture.
    """
    chosen = _evenly(len(u.paths), _SAMPLES)
    all_same, all_flat, seen_structure = True, True, False
    for k in chosen:
        pair = [read_image(run.paths[k])[0] for run in (u, v)]
        all_same = all_same and pair[0] == pair[1]
        for data, run in zip(pair, (u, v), strict=True):
            if all_same or _has_channels(data, run.is_png):
                pixels = _decoded(data, run.paths[k].name)
                if pixels.ndim == 3 and is_colourful(pixels[..., :3]):
                    raise ShardFormatError(_colours(run.paths[k].name))
                all_flat = all_flat and pixels.ndim == 3 and bool(pixels.min() >= _WHITE or pixels.max() <= _BLACK)
                seen_structure = seen_structure or int(pixels.max()) - int(pixels.min()) > _MOST_CHROMA
            else:
                all_flat = False
    if all_flat:
        raise ShardFormatError(f"{_colours(u.paths[0].name)} (all of the picture is white or black; where nothing moves, u and v are 128)")
    if all_same and seen_structure and len(chosen) > 1:
        raise ShardFormatError("u and v are the same pictures, so they are not the two parts of flow; export u and v as grey images")


def _colours(name: str) -> str:
    return (
        f"{name} shows flow in colours, from which u and v cannot be read back exactly; write u and v as two grey images "
        "(128 where nothing moves) and import those"
    )


def _has_channels(data: bytes, is_png: bool) -> bool:
    return data[25] not in (0, 4) if is_png else jpeg_header(data)[2] > 1


def _evenly(count: int, most: int) -> list[int]:
    """Return up to `most` different numbers below `count`, evenly spaced, with the first and the last."""
    return sorted({round(k * (count - 1) / max(most - 1, 1)) for k in range(most)})


def check_step(frames: Sequence[Path], u: ImageRun, v: ImageRun, *, bound_px: float, num_dropped: int, trim: str) -> None:
    """Refuse flow that leads over several frames, though there are fewer fields than frames as if some were missing.

    denseflow with ``-s=2`` writes one field less than the flow of neighbours has, so its numbers look like those of a video whose
    last field was lost. The pictures tell: moved along the flow, the second frame equals the first.

    Parameters
    ----------
    frames : sequence of Path
        All frames, before any were dropped.
    u, v : ImageRun
        The flow images.
    bound_px : float, px/frame
        The bound of the flow.
    num_dropped : int
        How many frames are to be dropped.
    trim : {"first", "last"}
        At which end.

    Raises
    ------
    ShardFormatError
        If flow from frame k to k + 1 + `num_dropped`, or between the neighbours that the other end would give, fits the frames much
        better.
    """
    step = num_dropped + 1
    offsets = {"first": (num_dropped, num_dropped + 1), "last": (0, 1), "step": (0, step)}  # what field k may lead from and to
    misfits = dict.fromkeys(offsets, 0.0)
    for k in _evenly(len(u.paths), _SAMPLES // 2):
        planes = [decode_plane(read_image(run.paths[k])[0], run.paths[k].name) for run in (u, v)]
        size = planes[0].shape
        flow = Quantiser(bound_px, "paper").decode(np.stack([_middle(plane) for plane in planes]))
        needed = {k + offset for pair in offsets.values() for offset in pair}
        pictures = {n: _middle(_grey(frames[n], *size)).astype(np.float32) for n in needed}
        for name, (start, stop) in offsets.items():
            misfits[name] += _misfit(pictures[k + start], pictures[k + stop], flow)
    best = min(misfits, key=misfits.__getitem__)
    if misfits[best] >= _MUCH_BETTER * misfits[trim]:
        return
    if best == "step":
        raise ShardFormatError(
            f"has flow that fits frames {step} apart better than neighbours, as denseflow -s={step} writes it; flowkit needs flow from "
            "each frame to the next, so --trim does not help"
        )
    raise ShardFormatError(f"has flow that fits the frames much better with --trim {best} than with --trim {trim}")


def _grey(path: Path, height: int, width: int) -> NDArray[np.uint8]:
    import cv2

    frame = decode_frame(read_image(path)[0], path.name)
    return np.asarray(cv2.cvtColor(resized(frame, height, width), cv2.COLOR_RGB2GRAY))


def _middle(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the middle of a picture, enough to see how it moves in bounded memory."""
    top, left = (max(0, (side - _MIDDLE_PX) // 2) for side in picture.shape)
    return picture[top : top + _MIDDLE_PX, left : left + _MIDDLE_PX].copy()


def _misfit(first: NDArray[np.float32], second: NDArray[np.float32], flow: NDArray[np.float32]) -> float:
    """Return the mean difference of two frames where something moves, the second taken back along the flow; 0 if nothing moves."""
    import cv2

    height, width = first.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    moving = np.hypot(flow[0], flow[1]) > _MOVING_PX
    if moving.sum() < _FEW_PIXELS:
        return 0.0
    back = cv2.remap(second, x + flow[0], y + flow[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return float(np.abs(back - first)[moving].mean())
