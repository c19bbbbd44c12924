"""DIS optical flow (dense inverse search), as OpenCV computes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ParameterError
from flowkit.flow.methods import OF_MACHINE

MIN_SIDE_PX = 32  # OpenCV reads outside of its memory on wide frames of a smaller height

_PRESETS = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}


@dataclass(frozen=True)
class DIS:
    """Flow from a search for patches, refined variationally [1]_: ``DISOpticalFlow`` of the installed OpenCV.

    Parameters
    ----------
    preset : {"medium", "fast", "ultrafast"}
        OpenCV's set of parameters.
    opencv : str
        The version of OpenCV whose result this is, which must be the installed one; empty for that one. OpenCV 4.14 and 5.0 differ by up
        to .18 px.

    Raises
    ------
    ParameterError
        If there is no such preset, or another OpenCV is installed.

    References
    ----------
    .. [1] Kroeger, Timofte, Dai, Van Gool, "Fast optical flow using dense inverse search", ECCV 2016, arXiv:1603.03590

    Examples
    --------
    >>> import numpy as np
    >>> from flowkit import compute_flow
    >>> y, x = np.mgrid[:32, :48]
    >>> frames = np.stack([128 + 100 * np.sin((x - 2 * t) / 5) * np.cos(y / 7) for t in range(2)]).astype(np.uint8)
    >>> np.median(compute_flow(frames, method="dis", params={"preset": "fast"}), axis=(2, 3)).round().astype(int).tolist()
    [[2, 0]]
    """

    min_side_px: ClassVar[int] = MIN_SIDE_PX

    preset: str = "medium"
    opencv: str = field(default="", metadata=OF_MACHINE)

    def __post_init__(self) -> None:
        if self.preset not in _PRESETS:
            raise ParameterError(f"dis preset must be one of {', '.join(_PRESETS)}, got {self.preset!r}")
        if not self.opencv:
            object.__setattr__(self, "opencv", cv2.__version__)
        elif self.opencv != cv2.__version__:
            raise ParameterError(
                f"this flow of dis is that of OpenCV {self.opencv}, and OpenCV {cv2.__version__} is installed, whose flow differs: install "
                f"OpenCV {self.opencv}, or extract into another data root"
            )

    def flows(self, grey: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the flow, float32 (T - 1, 2, H, W), between consecutive grey frames, uint8 (T, H, W) with sides of at least 32 px."""
        if min(grey.shape[1:]) < MIN_SIDE_PX:
            raise ParameterError(f"dis needs frames of at least {MIN_SIDE_PX} px per side, got {grey.shape[2]}x{grey.shape[1]}")
        flow = np.empty((len(grey) - 1, 2, *grey.shape[1:]), np.float32)
        for k, target in enumerate(flow):
            # A new object each time: it keeps the pyramid levels that it chose for small frames, and the next flow would differ.
            solver = cv2.DISOpticalFlow_create(_PRESETS[self.preset])  # type: ignore[attr-defined]
            target[...] = solver.calc(grey[k], grey[k + 1], None).transpose(2, 0, 1)
        return flow
