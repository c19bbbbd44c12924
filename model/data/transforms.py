"""From stored frames and flow to the network's input: one crop and flip for both streams in training, whole frames in the test.

Everything stays uint8 until it is on the device, where `normalise_rgb` and `normalise_flow` turn it into floats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowkit.errors import ParameterError
from flowkit.model.settings.network import NUM_FLOW_FIELDS
from flowkit.model.settings.network_config import View
from flowkit.model.settings.training import Corners
from flowkit.model.settings.training import Crop as CropKind
from flowkit.quantise import Quantiser

# The paper crops frames with a short side of 256 px. At other sizes, crops keep the same share of the frame.
_REFERENCE_SIDE = 256
_BORDERS25_SIDES = (168, 280)
_REGULAR_SIDES = (256, 224, 192, 168)
_MEAN_SIDE = 224
_C3D_SIZE, _C3D_CROP = (128, 171), 112  # px: frames of C3D's code, whatever their proportions before, and its crops of them

_RGB_MEAN = (0.485, 0.456, 0.406)  # ImageNet's, for RGB in [0, 1], as in torchvision
_RGB_STD = (0.229, 0.224, 0.225)
_FLOW_ZERO = 128.0
_FLOW_STD = 255 * 0.226  # the range of values that filters trained on such RGB expect


@dataclass(frozen=True)
class Crop:
    """A box in the stored frame, in px, and whether it is mirrored; the same for all frames and flow fields of a clip."""

    top: int
    left: int
    height: int
    width: int
    flip: bool = False


def draw_crop(
    generator: np.random.Generator, height: int, width: int, *, kind: CropKind = "borders25", corners: Corners = "four", flip: bool = True
) -> Crop:
    """Draw one training crop of a stored frame.

    Parameters
    ----------
    generator : numpy.random.Generator
        The clip's random numbers.
    height, width : int, px
        The size of the stored frame.
    kind : {"borders25", "regular", "uniform", "none"}
        ``borders25``: each side is drawn from 168 to 280 (of 256), and the box lies within a quarter of the free room from a corner.
        ``regular``: each side is one of 256, 224, 192 and 168, and the box lies in a corner or the centre. ``uniform``: the box has
        112/128 of the height and 112/171 of the width, and lies anywhere. ``none``: the whole frame.
    corners : {"four", "diagonal"}
        For ``borders25``: any corner, or only top left and bottom right (as the official code, cnn_get_im_flow_batch.m:55-62).
    flip : bool
        Whether to mirror the clip with probability 1/2.

    Returns
    -------
    Crop
    """
    short = min(height, width)
    if kind == "none":
        top, left, tall, wide = 0, 0, height, width
    elif kind == "borders25":
        least, most = (_scaled(side, short) for side in _BORDERS25_SIDES)
        tall, wide = (min(int(generator.integers(least, most, endpoint=True)), side) for side in (height, width))
        far_down, far_right = (bool(far) for far in generator.integers(2, size=2))
        if corners == "diagonal":
            far_right = far_down
        top = _near_border(generator, height - tall, far_down)
        left = _near_border(generator, width - wide, far_right)
    elif kind == "regular":
        sides = [_scaled(side, short) for side in _REGULAR_SIDES]
        tall, wide = (min(sides[int(generator.integers(len(sides)))], side) for side in (height, width))
        room = (height - tall, width - wide)
        top, left = [(0, 0), (0, room[1]), (room[0], 0), room, (room[0] // 2, room[1] // 2)][int(generator.integers(5))]
    elif kind == "uniform":
        tall, wide = (max((side * _C3D_CROP + whole // 2) // whole, 1) for side, whole in zip((height, width), _C3D_SIZE, strict=True))
        top, left = (int(generator.integers(room, endpoint=True)) for room in (height - tall, width - wide))
    else:
        raise ParameterError(f"crop must be borders25, regular, uniform or none, got {kind!r}")
    return Crop(top, left, tall, wide, bool(flip and generator.integers(2)))


def crop_rgb(frames: NDArray[np.uint8], crop: Crop, *, size: int) -> NDArray[np.uint8]:
    """Crop, resize and mirror RGB frames.

    Parameters
    ----------
    frames : uint8 array, shape (T, H, W, 3)
        The stored frames.
    crop : Crop
        The box, and whether to mirror it.
    size : int, px
        S, the side of the result.

    Returns
    -------
    uint8 array, shape (T, S, S, 3)
    """
    region = frames[:, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    out = _resized(region, (size, size), cv2.INTER_CUBIC)
    return np.ascontiguousarray(out[:, :, ::-1]) if crop.flip else out


def crop_flow(fields: NDArray[np.uint8], crop: Crop, *, size: int, quantiser: Quantiser) -> NDArray[np.uint8]:
    """Crop, resize and mirror quantised flow; mirroring also negates u.

    Parameters
    ----------
    fields : uint8 array, shape (n, 2, H, W)
        The stored flow.
    crop : Crop
        The box, and whether to mirror it.
    size : int, px
        S, the side of the result.
    quantiser : Quantiser
        The quantiser that the flow was stored with.

    Returns
    -------
    uint8 array, shape (n, 2, S, S)
    """
    region = fields[:, :, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    out = _resized(region.reshape(-1, *region.shape[2:]), (size, size), cv2.INTER_LINEAR).reshape(len(fields), 2, size, size)
    return mirror_flow(out, quantiser) if crop.flip else out


def mirror_flow(fields: NDArray[np.uint8], quantiser: Quantiser) -> NDArray[np.uint8]:
    """Return the quantised flow, uint8 (n, 2, H, W), of the mirrored video: columns reversed, u negated by the quantiser's rule."""
    mirrored = np.ascontiguousarray(fields[..., ::-1])
    mirrored[:, 0] = quantiser.flip_u(mirrored[:, 0])
    return mirrored


def whole_size(height: int, width: int, *, input_size: int) -> tuple[int, int]:
    """Return the height and width, in px, at which a whole stored frame is tested; each is in [S, 2S].

    Notes
    -----
    The paper tests 256-px frames at their own size with a 224-px network, whose training crops have the same scale on average. If
    the stored short side and S have another ratio, the frame is resized to the scale of the training crops.
    """
    short = min(height, width)

    def side(length: int) -> int:
        same_scale = (length * input_size * _REFERENCE_SIDE + short * _MEAN_SIDE // 2) // (short * _MEAN_SIDE)
        return min(max(same_scale, input_size), 2 * input_size)

    return side(height), side(width)


def c3d_size(input_size: int) -> tuple[int, int]:
    """Return height and width, in px, to which C3D's frames are resized for crops of this side: 128 x 171 for 112."""
    height, width = ((side * input_size + _C3D_CROP // 2) // _C3D_CROP for side in _C3D_SIZE)
    return height, width


def seen_rgb(frames: NDArray[np.uint8], *, input_size: int, view: View = "whole") -> NDArray[np.uint8]:
    """Return what a test sees of frames.

    Parameters
    ----------
    frames : uint8 array, shape (T, H, W, 3)
        The stored frames.
    input_size : int, px
        S, the side of a training crop.
    view : {"whole", "centre"}
        The whole frame at its test size, or the centre of S x S of a frame that is resized to `c3d_size`.

    Returns
    -------
    uint8 array, shape (T, h, w, 3)
    """
    if view == "whole":
        return resized_rgb(frames, whole_size(*frames.shape[1:3], input_size=input_size))
    rows, columns = _centre(c3d_size(input_size), input_size)
    return np.ascontiguousarray(resized_rgb(frames, c3d_size(input_size))[:, rows, columns])


def seen_flow(fields: NDArray[np.uint8], *, input_size: int, view: View = "whole") -> NDArray[np.uint8]:
    """Return what a test sees of quantised flow, uint8 (n, 2, H, W); see `seen_rgb`."""
    if view == "whole":
        return resized_flow(fields, whole_size(*fields.shape[2:], input_size=input_size))
    rows, columns = _centre(c3d_size(input_size), input_size)
    return np.ascontiguousarray(resized_flow(fields, c3d_size(input_size))[:, :, rows, columns])


def resized_rgb(frames: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return frames, uint8 (T, H, W, 3), at another height and width, in px, whatever their proportions."""
    return _resized(frames, size, cv2.INTER_CUBIC)


def resized_flow(fields: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return quantised flow, uint8 (n, 2, H, W), at another height and width, in px; the displacements keep their values."""
    return _resized(fields.reshape(-1, *fields.shape[2:]), size, cv2.INTER_LINEAR).reshape(len(fields), 2, *size)


def normalise_rgb(rgb: Tensor) -> Tensor:
    """Turn uint8 (..., H, W, 3) into float32 (..., 3, H, W): ``(RGB / 255 - mean) / std`` with ImageNet's moments."""
    mean = torch.tensor(_RGB_MEAN, device=rgb.device) * 255
    scale = 1 / (torch.tensor(_RGB_STD, device=rgb.device) * 255)
    return rgb.float().sub_(mean).mul_(scale).movedim(-1, -3).contiguous()


def normalise_flow(flow: Tensor) -> Tensor:
    """Turn quantised flow, uint8 of any shape, into float32: ``(q - 128) / 57.63``."""
    return flow.float().sub_(_FLOW_ZERO).mul_(1 / _FLOW_STD)


def input_normalisation() -> dict[str, Any]:
    """Return how `normalise_rgb` and `normalise_flow` turn bytes into the network's input, as built-in types."""
    return {
        "rgb": {"order": "RGB", "formula": "(byte / 255 - mean) / std", "mean": list(_RGB_MEAN), "std": list(_RGB_STD)},
        "flow": {
            "order": f"u, v of the {NUM_FLOW_FIELDS} fields around the frame, interleaved",
            "formula": "(byte - zero) / std",
            "zero": _FLOW_ZERO,
            "std": _FLOW_STD,
        },
    }


def _centre(size: tuple[int, int], side: int) -> tuple[slice, slice]:
    """Return the rows and columns of the centre of `side` x `side` in images of a height and width."""
    top, left = ((length - side) // 2 for length in size)
    return slice(top, top + side), slice(left, left + side)


def _scaled(side: int, short: int) -> int:
    """Scale a side from 256-px frames to frames with this short side; at least 1 px."""
    return max((side * short + _REFERENCE_SIDE // 2) // _REFERENCE_SIDE, 1)


def _near_border(generator: np.random.Generator, room: int, far: bool) -> int:
    """Draw an offset within the first or the last quarter of the free room."""
    offset = int(generator.integers(room // 4, endpoint=True))
    return room - offset if far else offset


def _resized(planes: NDArray[np.uint8], size: tuple[int, int], enlarge: int) -> NDArray[np.uint8]:
    """Resize images (n, H, W[, 3]) to (height, width): area averages if both sides shrink, else `enlarge`."""
    height, width = planes.shape[1:3]
    if (height, width) == size:
        return np.ascontiguousarray(planes)
    how = cv2.INTER_AREA if size[0] <= height and size[1] <= width else enlarge
    out = np.empty((len(planes), *size, *planes.shape[3:]), np.uint8)
    for plane, target in zip(planes, out, strict=True):
        cv2.resize(plane, (size[1], size[0]), dst=target, interpolation=how)
    return out
