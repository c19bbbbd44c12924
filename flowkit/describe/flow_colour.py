"""Flow as colours, as the Middlebury benchmark draws it: the hue is the direction, the saturation is the speed."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ParameterError

# Steps between the corners of the wheel, chosen by its authors so that equal angles look equally different.
_STEPS = (("red", 15), ("yellow", 6), ("green", 4), ("cyan", 11), ("blue", 13), ("magenta", 6))
_CORNERS = {
    "red": (255, 0, 0),
    "yellow": (255, 255, 0),
    "green": (0, 255, 0),
    "cyan": (0, 255, 255),
    "blue": (0, 0, 255),
    "magenta": (255, 0, 255),
}
_UNKNOWN_PX = 1e9  # components beyond it mean "unknown" in .flo files
_BEYOND = 0.75  # how flow faster than the scale is darkened


@lru_cache(maxsize=1)
def colour_wheel() -> NDArray[np.uint8]:
    """Return the 55 colours of the wheel, uint8 (55, 3) RGB, from red (to the right) by yellow (down)."""
    names = [name for name, _ in _STEPS]
    wheel = []
    for k, (name, num_steps) in enumerate(_STEPS):
        start, end = np.array(_CORNERS[name]), np.array(_CORNERS[names[(k + 1) % len(names)]])
        for step in range(num_steps):
            rising = 255 * step // num_steps
            wheel.append(np.where(end > start, rising, np.where(end < start, 255 - rising, start)))
    return np.array(wheel, dtype=np.uint8)


def flow_to_colour(flow: NDArray[np.floating], *, scale_px: float) -> NDArray[np.uint8]:
    """Draw flow in the Middlebury colour code.

    Parameters
    ----------
    flow : float array, shape (..., 2, H, W), px/frame
        Channel 0 is u (to the right), 1 is v (down). NaN, or a component beyond 1e9, means unknown and is drawn black.
    scale_px : float, px/frame
        The speed that gets full saturation. Zero flow is white; faster flow is darkened.

    Returns
    -------
    uint8 array, shape (..., H, W, 3), RGB

    Raises
    ------
    ParameterError
        If the shape is different, or the scale is not a positive number.

    References
    ----------
    S. Baker et al., "A Database and Evaluation Methodology for Optical Flow", IJCV 92, 2011,
    doi:10.1007/s11263-010-0390-2; the colours as in the authors' ``colorcode.cpp``.
    """
    if flow.ndim < 3 or flow.shape[-3] != 2:
        raise ParameterError(f"flow must have shape (..., 2, H, W), got {flow.shape}")
    if not 0 < scale_px < np.inf:
        raise ParameterError(f"scale_px must be a positive number of px/frame, got {scale_px!r}")
    u, v = flow[..., 0, :, :].astype(np.float32), flow[..., 1, :, :].astype(np.float32)
    with np.errstate(invalid="ignore"):
        unknown = ~((np.abs(u) <= _UNKNOWN_PX) & (np.abs(v) <= _UNKNOWN_PX))
    u, v = np.where(unknown, 0, u / scale_px), np.where(unknown, 0, v / scale_px)
    wheel = colour_wheel().astype(np.float32) / 255
    speed = np.sqrt(u * u + v * v)
    # + 0.0 turns -0.0 into 0.0, which would lie at the other end of the wheel
    turn = (np.arctan2(-(v + 0.0), -(u + 0.0)) / np.pi + 1) / 2 * (len(wheel) - 1)
    before = turn.astype(np.intp)
    share = (turn - before)[..., None]
    hue = (1 - share) * wheel[before] + share * wheel[(before + 1) % len(wheel)]
    inside = (speed <= 1)[..., None]
    colour = np.where(inside, 1 - speed[..., None] * (1 - hue), hue * _BEYOND)
    colour[unknown] = 0
    picture: NDArray[np.uint8] = (255 * colour).astype(np.uint8)
    return picture


def wheel_picture(radius_px: int) -> NDArray[np.uint8]:
    """Return a legend: a disc in which each point has the colour of the flow that leads to it from the centre.

    Parameters
    ----------
    radius_px : int, px
        The rim is the scale's full speed.

    Returns
    -------
    uint8 array, shape (2 R + 1, 2 R + 1, 3), RGB, white outside the disc
    """
    steps = np.arange(-radius_px, radius_px + 1, dtype=np.float32)
    flow = np.stack(np.meshgrid(steps, steps))  # (2, H, W): u grows to the right, v downwards
    picture = flow_to_colour(flow, scale_px=radius_px)
    picture[np.hypot(flow[0], flow[1]) > radius_px] = 255
    return picture


def round_scale(speed_px: float) -> float:
    """Return the next of 1, 2, 5, 10, 20, 50, ... px/frame that is at least `speed_px`; at least 1, so that noise stays pale."""
    scale = 1.0
    for factor in (2.0, 2.5, 2.0) * 6:
        if scale >= speed_px:
            break
        scale *= factor
    return scale
