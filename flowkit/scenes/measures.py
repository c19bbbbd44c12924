"""How much neighbouring frames of a video differ, and whether blocks of one can be found in the other.

Everything is measured on small frames (short side 32 px, averages of the stored picture), where the noise of cameras and encoders is
small. Memory grows by a few numbers per frame.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from flowkit.errors import ShardFormatError
from flowkit.shards.jpeg import jpeg_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SMALL_SIDE = 32  # px; the short side of a small frame
FLASH_FRAMES = 3  # frames for which a flash lasts at most
NEAR_PAIRS = 8  # pairs on either side with which a pair is compared
SUSPECT_CHANGE = 0.35  # of the contrast; pairs that differ less are no cuts
LEAST_ERROR = 0.3  # of the contrast; blocks that match worse are those of another scene
_REACH, _BLOCK = 4, 4  # px of frames of half the small size: how far blocks are looked for, and how large they are
_MATCHED_SHARE = 0.75  # of the blocks, the best: others may show what came into the picture
_USUAL_MATCH = 0.5  # of the change of pairs that are no suspects, whose blocks are not looked for
_LEAST_CONTRAST = 6.0  # grey levels; a black picture has none
_LARGEST_SHARE = 0.02  # of the pixels, those that change most: a small thing moves in front of a still background


def small_frame(jpeg: bytes, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Return a stored frame with a short side of 32 px, BGR, decoded from the JPEG at a fraction of its size.

    Parameters
    ----------
    jpeg : bytes
        The frame.
    size : (int, int), px, optional
        Its height and width, if they are known; by default its header is read, of which a foreign JPEG may have a harmful one.

    Raises
    ------
    ShardFormatError
        If it is not a JPEG.
    """
    import cv2

    height, width = size or jpeg_size(jpeg)
    short = min(height, width)
    reduced = (
        (8, cv2.IMREAD_REDUCED_COLOR_8),
        (4, cv2.IMREAD_REDUCED_COLOR_4),
        (2, cv2.IMREAD_REDUCED_COLOR_2),
    )
    flag = next((flag for times, flag in reduced if short >= times * SMALL_SIDE), cv2.IMREAD_COLOR)
    try:
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as cause:
        raise ShardFormatError(f"is a JPEG that cannot be decoded ({cause})") from cause
    if image is None:
        raise ShardFormatError("is a JPEG that cannot be decoded")
    small = tuple(max(side * SMALL_SIDE // short, 1) for side in (width, height))
    if image.shape[1::-1] == small:
        return image  # type: ignore[return-value]
    return cv2.resize(image, small, interpolation=cv2.INTER_AREA if min(image.shape[:2]) > SMALL_SIDE else cv2.INTER_LINEAR)  # type: ignore[return-value]


class _Frame:
    """A small frame, with what is derived from it."""

    def __init__(self, jpeg: bytes, size: tuple[int, int] | None) -> None:
        self.jpeg, self.small = jpeg, small_frame(jpeg, size)

    @cached_property
    def contrast(self) -> float:
        """The mean distance of the colours from their mean, grey levels."""
        pixels = self.small.reshape(-1, 3).astype(np.float32)
        return float(np.abs(pixels - pixels.mean(0)).mean())

    @cached_property
    def half(self) -> NDArray[np.int16]:
        """The frame at half the small size."""
        import cv2

        height, width = self.small.shape[:2]
        half: NDArray[np.int16] = cv2.resize(self.small, (max(width // 2, 1), max(height // 2, 1)), interpolation=cv2.INTER_AREA).astype(
            np.int16
        )
        return half


def _contrast(first: _Frame, second: _Frame) -> float:
    """Return the smaller contrast of two frames."""
    return max(min(first.contrast, second.contrast), _LEAST_CONTRAST)


def match_error(earlier: NDArray[np.int16], later: NDArray[np.int16]) -> float:
    """Return how badly the blocks of a frame match the best places of an earlier frame.

    Parameters
    ----------
    earlier, later : int16 array, shape (h, w, 3)
        Two frames of one size.

    Returns
    -------
    float, grey levels
        The mean over the best three quarters of the blocks of 4 x 4 px of the mean absolute difference at the best of 9 x 9 places.
    """
    height, width = (max(side - side % _BLOCK, min(side, _BLOCK)) for side in later.shape[:2])
    rows, columns = max(height // _BLOCK, 1), max(width // _BLOCK, 1)
    wide = np.pad(earlier[:height, :width], ((_REACH, _REACH), (_REACH, _REACH), (0, 0)), mode="edge")
    wanted = later[:height, :width]
    best = np.full((rows, columns), np.inf)
    for down in range(2 * _REACH + 1):
        for right in range(2 * _REACH + 1):
            apart = np.abs(wide[down : down + height, right : right + width] - wanted).sum(axis=2)
            blocks = apart.reshape(rows, height // rows, columns, width // columns).mean(axis=(1, 3))
            np.minimum(best, blocks, out=best)
    errors = np.sort(best.reshape(-1))
    return float(errors[: int(np.ceil(len(errors) * _MATCHED_SHARE))].mean()) / 3


@dataclass(frozen=True)
class PairMeasures:
    """What is measured of the pairs of neighbouring frames of a video; pair k is frames k and k + 1, as flow field k.

    Parameters
    ----------
    change : float64 array, shape (T - 1,), grey levels
        The mean of the largest 2 % of the differences.
    error : float64 array, shape (T - 1,), grey levels
        How badly blocks match, as `match_error` returns it; of pairs that change little, half of the mean difference.
    relative : float64 array, shape (T - 1,)
        The same as a share of the contrast; 0 for pairs that change little.
    is_equal : bool array, shape (T - 1,)
        Whether the stored pictures are the same, byte for byte.
    goes_back : bool array, shape (T - 1,)
        Whether the scene is the one before a few frames later, or was it a few frames earlier: a flash begins or ends here.
    """

    change: NDArray[np.float64]
    error: NDArray[np.float64]
    relative: NDArray[np.float64]
    is_equal: NDArray[np.bool_]
    goes_back: NDArray[np.bool_]


class PairScan:
    """Measures the pairs of neighbouring frames of one video, frame by frame.

    Examples
    --------
    >>> import numpy as np
    >>> from flowkit.scenes.measures import PairScan
    >>> from flowkit.shards.jpeg import encode_jpeg
    >>> frames = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
    >>> scan = PairScan()
    >>> scan.add([encode_jpeg(frames[k]) for k in (0, 0, 1)])
    >>> measures = scan.measures()
    >>> measures.is_equal.tolist(), measures.error.round().tolist()[0]
    ([True, False], 0.0)
    """

    def __init__(self) -> None:
        self._last: deque[_Frame] = deque(maxlen=FLASH_FRAMES + 2)
        self._change: list[float] = []
        self._error: list[float] = []
        self._relative: list[float] = []
        self._is_equal: list[bool] = []
        self._goes_back: list[bool] = []

    def add(self, jpegs: Sequence[bytes], size: tuple[int, int] | None = None) -> None:
        """Take the next frames, as they are stored; `size` is as for `small_frame`.

        Raises
        ------
        ShardFormatError
            If one is not a JPEG.
        """
        for jpeg in jpegs:
            frame = self._last[-1] if self._last and self._last[-1].jpeg == jpeg else _Frame(jpeg, size)
            if self._last:
                self._measure(self._last[-1], frame)
            self._last.append(frame)
            self._look_back()

    def measures(self) -> PairMeasures:
        """Return what was measured of all pairs so far."""
        return PairMeasures(
            change=np.array(self._change, np.float64),
            error=np.array(self._error, np.float64),
            relative=np.array(self._relative, np.float64),
            is_equal=np.array(self._is_equal, np.bool_),
            goes_back=np.array(self._goes_back, np.bool_),
        )

    def _measure(self, earlier: _Frame, later: _Frame) -> None:
        self._goes_back.append(False)
        self._is_equal.append(earlier is later)
        if earlier is later or earlier.small.shape != later.small.shape:
            for values in (self._change, self._error, self._relative):
                values.append(0.0)
            return
        apart = np.abs(earlier.small.astype(np.int16) - later.small)
        largest = np.maximum(np.maximum(apart[..., 0], apart[..., 1]), apart[..., 2]).reshape(-1)  # ten times as fast as .max(axis=2)
        num = max(int(len(largest) * _LARGEST_SHARE), 1)
        self._change.append(float(np.partition(largest, -num)[-num:].mean()))
        mean, contrast = float(apart.mean()), _contrast(earlier, later)
        if mean < SUSPECT_CHANGE * contrast:
            self._error.append(_USUAL_MATCH * mean)
            self._relative.append(0.0)
            return
        error = match_error(earlier.half, later.half)
        self._error.append(error)
        self._relative.append(error / contrast)

    def _look_back(self) -> None:
        """Note which of the last pairs begin or end a flash, as far as the last frame shows it."""
        frames, count = list(self._last), len(self._error)
        for apart in range(2, len(frames)):
            for pair in {count - 1, count - apart}:  # it ends, or it began, with this pair
                if self._relative[pair] and not self._goes_back[pair] and self._is_peak(pair):
                    back = match_error(frames[-1 - apart].half, frames[-1].half)
                    contrast = _contrast(frames[-1 - apart], frames[-1])
                    self._goes_back[pair] = back < min(_USUAL_MATCH * self._error[pair], LEAST_ERROR * contrast)

    def _is_peak(self, pair: int) -> bool:
        """Return whether a pair differs more than those before it, without which it is no cut in any case."""
        before = self._error[max(pair - NEAR_PAIRS, 0) : pair]
        return sum(error > _USUAL_MATCH * self._error[pair] for error in before) <= 1
