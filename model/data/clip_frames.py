"""Which frames and fields the other systems of the comparison see, and where ten crops lie: integer arithmetic.

Indices are 0-based, as in `flowkit.model.data.sampling`. A short video repeats its last frame, so that no video is too short for a clip.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ParameterError


def clip_frames(num_frames: int, *, length: int, stride: int, first: int = 0, to_the_end: bool = False) -> NDArray[np.int64]:
    """Return the frames of clips of consecutive frames at equal distances.

    Parameters
    ----------
    num_frames : int
        N, at least 1.
    length : int
        Frames of a clip: 16 for C3D and LRCN, 10 for a dynamic image.
    stride : int
        Distance between the first frames of neighbouring clips: 8 for C3D, 6 for dynamic images.
    first : int
        The first frame of the first clip; dynamic images are trained from frame 2 on.
    to_the_end : bool
        Whether frames after the last whole clip are part of one more clip, which ends with the video.

    Returns
    -------
    int64 array, shape (n, length)
        At least one clip. Where the video is too short for one, its last frame is repeated.

    Examples
    --------
    >>> from flowkit.model.data.clip_frames import clip_frames
    >>> clip_frames(30, length=16, stride=8)[:, [0, -1]].tolist()
    [[0, 15], [8, 23]]
    >>> clip_frames(30, length=16, stride=8, to_the_end=True)[:, [0, -1]].tolist()
    [[0, 15], [8, 23], [14, 29]]
    """
    for name, value, least in (("num_frames", num_frames, 1), ("length", length, 1), ("stride", stride, 1), ("first", first, 0)):
        if value < least:
            raise ParameterError(f"{name} must be at least {least}, got {value!r}")
    last = max(num_frames - length, 0)
    first = min(first, last)
    starts = list(range(first, last + 1, stride))
    if to_the_end and starts[-1] < last:
        starts.append(last)
    return np.minimum(np.array(starts)[:, None] + np.arange(length), num_frames - 1)


def chosen_clips(clips: NDArray[np.int64], count: int, *, generator: np.random.Generator | None = None) -> NDArray[np.int64]:
    """Return exactly `count` of a video's clips, in their order, so that videos of any length fit into one batch.

    Parameters
    ----------
    clips : int64 array, shape (n, length)
        What `clip_frames` returns.
    count : int
        The number of clips.
    generator : numpy.random.Generator, optional
        Draws which clips are kept if there are more; without it they are spread evenly, the first and the last included.

    Returns
    -------
    int64 array, shape (count, length)
        If there are too few, some are repeated, which changes no maximum over clips.
    """
    num = len(clips)
    if num <= count:
        return clips[np.arange(count) % num] if num < count else clips
    if generator is not None:
        return clips[np.sort(generator.choice(num, count, replace=False))]
    return clips[(np.arange(count) * (num - 1)) // max(count - 1, 1)]


def five_crops(height: int, width: int, *, size: int) -> tuple[tuple[int, int], ...]:
    """Return where the corners and the centre of a frame lie, whose crops and mirror images are the ten crops of a test.

    Parameters
    ----------
    height, width : int, px
        The size of the frame, at least that of a crop.
    size : int, px
        S, the side of a crop.

    Returns
    -------
    tuple of (int, int), px
        Top and left: upper left, upper right, lower left, lower right, centre.

    Notes
    -----
    The code of Wang et al. (yjxiong/caffe, ``action_python``) has the centre of frames of 256 x 340 two pixels farther to the right, so
    that the crops of a mirrored frame are not the mirrored crops.

    Examples
    --------
    >>> from flowkit.model.data.clip_frames import five_crops
    >>> five_crops(256, 340, size=224)
    ((0, 0), (0, 116), (32, 0), (32, 116), (16, 58))
    """
    down, right = height - size, width - size
    if down < 0 or right < 0:
        raise ParameterError(f"crops of {size} px do not fit into frames of {height} x {width} px")
    return (0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)
