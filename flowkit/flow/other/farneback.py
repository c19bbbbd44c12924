"""Farneback's optical flow, as OpenCV computes it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ParameterError


@dataclass(frozen=True)
class Farneback:
    """Flow from polynomial expansions of both frames [1]_: ``FarnebackOpticalFlow`` of the installed OpenCV, with its defaults.

    Parameters
    ----------
    num_levels : int
        Largest number of pyramid levels.
    pyr_scale : float
        Ratio of the size of a pyramid level to that of the next finer one, in (0, 1).
    fast_pyramids : bool
        Whether OpenCV's faster pyramid is used; `pyr_scale` is 0.5 then.
    win_size : int, px
        Side of the window over which the flow is averaged, at least 2.
    num_iters : int
        Iterations per pyramid level.
    poly_n : int, px
        Side of the neighbourhood of a pixel that a polynomial is fitted to, from 3 to 31.
    poly_sigma : float, px
        Standard deviation of the weights of that neighbourhood.
    gaussian : bool
        Whether the window is a Gaussian one instead of a box.

    Raises
    ------
    ParameterError
        If a value is out of its range.

    References
    ----------
    .. [1] Farneback, "Two-frame motion estimation based on polynomial expansion", SCIA 2003, doi:10.1007/3-540-45103-X_50

    Examples
    --------
    >>> import numpy as np
    >>> from flowkit import compute_flow
    >>> y, x = np.mgrid[:32, :48]
    >>> frames = np.stack([128 + 100 * np.sin((x - 2 * t) / 5) * np.cos(y / 7) for t in range(2)]).astype(np.uint8)
    >>> np.median(compute_flow(frames, method="farneback"), axis=(2, 3)).round().astype(int).tolist()
    [[2, 0]]
    """

    num_levels: int = 5
    pyr_scale: float = 0.5
    fast_pyramids: bool = False
    win_size: int = 13
    num_iters: int = 10
    poly_n: int = 5
    poly_sigma: float = 1.1
    gaussian: bool = False

    def __post_init__(self) -> None:
        for name, least, most in (("num_levels", 1, 32), ("win_size", 2, 1000), ("num_iters", 1, 10_000), ("poly_n", 3, 31)):
            if not least <= getattr(self, name) <= most:
                raise ParameterError(f"farneback {name} must be from {least} to {most}, got {getattr(self, name)!r}")
        if not 0 < self.pyr_scale < 1 or (self.fast_pyramids and self.pyr_scale != 0.5):
            raise ParameterError(f"farneback pyr_scale must be between 0 and 1, and 0.5 with fast_pyramids, got {self.pyr_scale!r}")
        if not 0 < self.poly_sigma < math.inf:
            raise ParameterError(f"farneback poly_sigma must be positive, got {self.poly_sigma!r}")

    def flows(self, grey: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the flow, float32 (T - 1, 2, H, W), between consecutive grey frames, uint8 (T, H, W)."""
        solver = cv2.FarnebackOpticalFlow_create(  # type: ignore[attr-defined]
            numLevels=self.num_levels,
            pyrScale=self.pyr_scale,
            fastPyramids=self.fast_pyramids,
            winSize=self.win_size,
            numIters=self.num_iters,
            polyN=self.poly_n,
            polySigma=self.poly_sigma,
            flags=cv2.OPTFLOW_FARNEBACK_GAUSSIAN if self.gaussian else 0,
        )
        flow = np.empty((len(grey) - 1, 2, *grey.shape[1:]), np.float32)
        for k, field in enumerate(flow):
            field[...] = solver.calc(grey[k], grey[k + 1], None).transpose(2, 0, 1)
        return flow
