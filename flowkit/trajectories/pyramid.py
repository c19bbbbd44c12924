"""The pyramid of improved trajectories: its scales and sizes, and a frame at each of them.

Level k is smaller than the frame by sqrt(2)**k. Two pictures of a frame are needed at every level: a grey one (uint8), for corners
and gradients, which is made from the next finer level; and a smooth one (float32), for the flow, which is made from the full frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ParameterError

MAX_LEVELS = 8
MIN_SIDE_PX = 32  # of the coarsest level; a patch of the descriptors is as large
STEP = np.float32(np.sqrt(2))

Grey = NDArray[np.uint8]
Smooth = NDArray[np.float32]


@dataclass(frozen=True)
class Pyramid:
    """The levels of a frame size [1]_.

    Parameters
    ----------
    height, width : int, px
        Size of the frames, at least 1 each. If a side is below 32 px, the full size is the only level.

    Raises
    ------
    ParameterError
        If a side is below 1 px.

    References
    ----------
    .. [1] Wang, Schmid, "Action recognition with improved trajectories", ICCV 2013, and the authors' program of October 2013.

    Examples
    --------
    >>> from flowkit.trajectories.pyramid import Pyramid
    >>> Pyramid(120, 160).sizes
    ((120, 160), (85, 113), (60, 80), (42, 57))
    """

    height: int
    width: int

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1:
            raise ParameterError(f"frames must have at least 1 px per side, got {self.width}x{self.height}")

    @property
    def scales(self) -> tuple[np.float32, ...]:
        """How many px of the frame one px of each level is: sqrt(2)**k, multiplied up in float32."""
        num_levels, side = 0, np.float32(min(self.height, self.width))
        while side >= MIN_SIDE_PX and num_levels < MAX_LEVELS:
            num_levels, side = num_levels + 1, side / STEP
        scales = [np.float32(1)]
        while len(scales) < num_levels:
            scales.append(scales[-1] * STEP)
        return tuple(scales)

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of each level, finest first; halves are rounded to even."""
        return tuple((int(np.rint(self.height / scale)), int(np.rint(self.width / scale))) for scale in self.scales)

    def grey_levels(self, grey: Grey) -> tuple[Grey, ...]:
        """Return a grey frame, uint8 (H, W), at each level; each is a bilinear resize of the next finer one."""
        levels = [grey]
        for height, width in self.sizes[1:]:
            levels.append(cv2.resize(levels[-1], (width, height), interpolation=cv2.INTER_LINEAR))  # type: ignore[arg-type]
        return tuple(levels)

    def smooth_levels(self, grey: Grey) -> tuple[Smooth, ...]:
        """Return a grey frame, uint8 (H, W), as float32 at each level: blurred at full size, then resized bilinearly.

        The deviation of the Gaussian is (scale - 1)/2 px. At scale 1 that is 0, for which OpenCV takes 0.8 px, as its size is 3.
        """
        full = grey.astype(np.float32)
        levels = []
        for scale, (height, width) in zip(self.scales, self.sizes, strict=True):
            sigma = (float(scale) - 1) / 2
            side = max(int(np.rint(5 * sigma)) | 1, 3)
            blurred = cv2.GaussianBlur(full, (side, side), sigma, sigmaY=sigma)
            levels.append(cv2.resize(blurred, (width, height), interpolation=cv2.INTER_LINEAR))
        return tuple(levels)  # type: ignore[arg-type]
