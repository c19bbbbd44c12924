"""Training crops on the device: stored frames and flow are cropped, resized, mirrored and normalised there, by two matrix products.

Resizing is linear in the pixels of a row and in those of a column, so out = R X C^T with one matrix for each. The crop's box and
its mirroring are part of the matrices. The weights follow OpenCV's rules (`crop_rgb` and `crop_flow` are the reference), but nothing
is rounded to bytes. A value therefore differs from the reference by that rounding: at most one level of 255.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from flowkit.model.data.transforms import normalise_flow, normalise_rgb
from flowkit.quantise import ZERO, Quantiser

Enlarge = Literal["linear", "cubic"]
_CUBIC = -0.75  # OpenCV's


class UncroppedClips(NamedTuple):
    """Clips with one frame size as they are stored, and the crops that were drawn for them; b clips of T samples.

    Parameters
    ----------
    frames : uint8 tensor, shape (b*T, H, W, 3), or None
        The frames, clip after clip; None if the phase has no appearance stream.
    fields : uint8 tensor, shape (n, 2, H, W), or None
        Every flow field that a clip needs, once; None if the phase has no motion stream.
    where : int64 tensor, shape (b*T, 10), or None
        The indices into `fields` of each stack.
    owners : int64 tensor, shape (n,), or None
        The clip that each field belongs to.
    boxes : int64 tensor, shape (b, 4), px
        Top, left, height and width of each clip's crop.
    flips : bool tensor, shape (b,)
        Whether each clip is mirrored.
    """

    frames: Tensor | None
    fields: Tensor | None
    where: Tensor | None
    owners: Tensor | None
    boxes: Tensor
    flips: Tensor


def crop_clips(clips: UncroppedClips, *, size: int, quantiser: Quantiser) -> tuple[Tensor | None, Tensor | None]:
    """Crop, resize, mirror and normalise clips on the device on which they lie.

    Parameters
    ----------
    clips : UncroppedClips
        The stored clips.
    size : int, px
        S, the side of the result.
    quantiser : Quantiser
        The quantiser that the flow was stored with.

    Returns
    -------
    rgb : float32 tensor, shape (b, T, 3, S, S), or None
    flow : float32 tensor, shape (b, T, 20, S, S), or None
    """
    rgb = flow = None
    num_clips = len(clips.boxes)
    if clips.frames is not None:
        owners = torch.arange(num_clips, device=clips.boxes.device).repeat_interleave(len(clips.frames) // num_clips)
        planes = _resized(clips.frames.movedim(-1, 1), owners, clips, size, "cubic")
        rgb = normalise_rgb(planes.movedim(1, -1).view(num_clips, -1, size, size, planes.shape[1]))
    if clips.fields is not None:
        assert clips.where is not None
        assert clips.owners is not None
        planes = _resized(clips.fields, clips.owners, clips, size, "linear")
        flipped = clips.flips[clips.owners][:, None, None]
        planes[:, 0] = torch.where(flipped, _minus_u(planes[:, 0], quantiser), planes[:, 0])
        flow = normalise_flow(planes)[clips.where].view(num_clips, -1, 2 * clips.where.shape[1], size, size)
    return rgb, flow


def resize_weights(start: Tensor, length: Tensor, mirrored: Tensor, shrinks: Tensor, *, frame: int, size: int, enlarge: Enlarge) -> Tensor:
    """Return the matrices that crop, resize and mirror along one axis, as `cv2.resize` does.

    Parameters
    ----------
    start, length : int64 tensor, shape (b,), px
        Each crop's side along this axis.
    mirrored : bool tensor, shape (b,)
        Whether this axis is mirrored.
    shrinks : bool tensor, shape (b,)
        Whether neither side of a crop grows: then area averages are taken, else `enlarge`.
    frame, size : int, px
        The length of the axis before and after.
    enlarge : {"linear", "cubic"}
        The interpolation of crops that grow.

    Returns
    -------
    float32 tensor, shape (b, size, frame)
        Rows sum to 1.
    """
    position = torch.arange(size, device=start.device, dtype=torch.float32)
    position = torch.where(mirrored[:, None], size - 1 - position, position)[:, :, None]  # (b, size, 1)
    pixel = (torch.arange(frame, device=start.device) - start[:, None])[:, None]  # (b, 1, frame), from the crop's border
    last = (length - 1)[:, None, None]
    scale = (length / size)[:, None, None]
    # Each new pixel covers `scale` old ones.
    covered = torch.minimum(pixel + 1, (position + 1) * scale) - torch.maximum(pixel, position * scale)
    area = covered.clamp_(min=0) / scale
    centre = (position + 0.5) * scale - 0.5
    first = centre.floor()
    enlarged = torch.zeros_like(area)
    for tap in (0, 1) if enlarge == "linear" else (-1, 0, 1, 2):
        index = first + tap
        # Beyond the crop's border, its outermost pixel is repeated.
        enlarged += _kernel((centre - index).abs(), enlarge) * (pixel == index.clamp(min=0).minimum(last))
    inside = (pixel >= 0) & (pixel <= last)  # rounding of the scale must not reach beyond the border
    return torch.where(shrinks[:, None, None], area, enlarged) * inside


def _kernel(distance: Tensor, enlarge: Enlarge) -> Tensor:
    """Return the weight of a pixel at a distance in px."""
    if enlarge == "linear":
        return 1 - distance
    near = ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * _CUBIC - 4 * _CUBIC
    return torch.where(distance <= 1, near, far)


def _resized(planes: Tensor, owners: Tensor, clips: UncroppedClips, size: int, enlarge: Enlarge) -> Tensor:
    """Return the crops of uint8 planes (n, channels, H, W): float32 (n, channels, S, S), in [0, 255]."""
    top, left, height, width = clips.boxes.unbind(1)
    shrinks = (height >= size) & (width >= size)
    never = torch.zeros_like(clips.flips)
    rows = resize_weights(top, height, never, shrinks, frame=planes.shape[2], size=size, enlarge=enlarge)
    columns = resize_weights(left, width, clips.flips, shrinks, frame=planes.shape[3], size=size, enlarge=enlarge)
    # A GPU multiplies float16 many times as fast as float32. Bytes are exact in it; the weights and the rows in between are off by
    # at most 2^-11 of their value. That is less than half a level of 255; rounding to bytes costs the reference up to one.
    dtype = torch.float16 if planes.is_cuda else torch.float32
    rows, columns = (weights.to(dtype)[owners][:, None] for weights in (rows, columns))
    return (rows @ planes.to(dtype) @ columns.mT).float().clamp_(0, 255)


def _minus_u(levels: Tensor, quantiser: Quantiser) -> Tensor:
    """Return the quantiser's `flip_u`, also between its bytes: ``top - q``, at most 255."""
    top = 2 * ZERO if quantiser.mapping == "symmetric" else 255
    return (top - levels).clamp_(max=255)
