"""Grey pictures of more than 8 bits, as thermal and depth cameras record them: their range, and how a part of it is stretched to 8 bits.

libswscale keeps about the upper 8 bits of such pictures. A camera that uses a small part of its 16 bits then leaves a few grey levels, in
which there is no motion to see.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from flowkit.words import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FORMAT = re.compile(r"gray(9|10|12|14|16)(le|be)")


def grey_levels(frame: Any) -> NDArray[np.uint16] | None:
    """Return the pixels of a grey picture of more than 8 bits, uint16 (H, W); None if the picture is of another kind."""
    import numpy as np

    match = _FORMAT.fullmatch(frame.format.name)
    if match is None:
        return None
    plane = frame.planes[0]
    rows = np.frombuffer(plane, "<u2" if match[2] == "le" else ">u2").reshape(-1, plane.line_size // 2)
    return rows[: frame.height, : frame.width].astype(np.uint16)


def stretched(levels: NDArray[np.uint16], low: int, high: int) -> NDArray[np.uint8]:
    """Return grey levels as RGB, uint8 (H, W, 3): `low` becomes 0 and `high` 255, and what lies beyond is clipped."""
    import numpy as np

    grey = np.rint((np.clip(levels, low, high).astype(np.float64) - low) * (255 / (high - low))).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


class GreyRange:
    """The smallest and the largest grey level of the pictures of a video that have more than 8 bits.

    Parameters
    ----------
    stretch : (int, int) or None
        The range that is stretched to 8 bits, if one is.
    """

    def __init__(self, stretch: tuple[int, int] | None) -> None:
        self._stretch = stretch
        self._bits = 0
        self._low, self._high = 1 << 16, -1
        self._results: set[int] = set()

    def note(self, frame: Any, levels: NDArray[np.uint16]) -> None:
        """Take the next picture."""
        match = _FORMAT.fullmatch(frame.format.name)
        assert match is not None
        self._bits = int(match[1])
        self._low, self._high = min(self._low, int(levels.min())), max(self._high, int(levels.max()))

    def note_result(self, picture: NDArray[np.uint8]) -> None:
        """Take what a picture became without stretching, (H, W, 3)."""
        import numpy as np

        self._results.update(np.flatnonzero(np.bincount(picture[..., 0].ravel(), minlength=256)).tolist())

    def notes(self) -> list[str]:
        """Return in words what is lost of the grey levels."""
        if not self._bits:
            return []
        if self._stretch is None:
            becomes = counted(len(self._results), "grey level")
            option = f"--grey-range {min(self._low, self._high - 1)}:{self._high}" if self._high else "--grey-range"
            return [f"{self._bits}-bit grey from {self._low} to {self._high} becomes {becomes}; {option} stretches it"]
        if self._low < self._stretch[0] or self._high > self._stretch[1]:
            return [f"grey from {self._low} to {self._high} is clipped to {self._stretch[0]} to {self._stretch[1]}"]
        return []
