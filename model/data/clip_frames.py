"""Which frames and fields the other systems of the comparison see, and where ten crops lie: integer arithmetic.

Indices are 0-based, as in `flowkit.model.data.sampling`. A short video repeats its last frame, so that no video is too short for a clip.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ParameterError
from flowkit.model.data.sampling import NUM_TEST_CENTRES
from flowkit.model.data.transforms import Crop
from flowkit.model.settings.network import NUM_FLOW_FIELDS

NUM_CROPS = 10
C3D_SIZE, _C3D_CROP = (128, 171), 112  # px; frames of the paper, and its crops of them
_PUBLISHED_CENTRE = (16, 60)  # top and left of the centre crop in the code for frames of 256 x 340; the true centre is at 58


def forward_fields(starts: Sequence[int] | NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which flow fields stacks need that begin at these fields, each once, and which of them each stack consists of.

    Returns
    -------
    fields : int64 array, shape (n,)
        Indices of flow fields, increasing.
    where : int64 array, shape (T, 10)
        ``fields[where[t]]`` are the indices ``starts[t]`` to ``starts[t] + 9``: the stack is not centred on a frame.

    Examples
    --------
    >>> from flowkit.model.data.clip_frames import forward_fields
    >>> fields, where = forward_fields([0, 5])
    >>> fields.tolist() == list(range(15)), where[1].tolist()
    (True, [5, 6, 7, 8, 9, 10, 11, 12, 13, 14])
    """
    wanted = np.asarray(starts)[:, None] + np.arange(NUM_FLOW_FIELDS)
    fields, where = np.unique(wanted, return_inverse=True)
    return fields, where.reshape(wanted.shape)


def forward_starts(num_frames: int) -> range:
    """Return the fields at which a forward stack can begin: 0 to N - 11.

    Raises
    ------
    ParameterError
        If the video is shorter than 11 frames.
    """
    if num_frames <= NUM_FLOW_FIELDS:
        raise ParameterError(f"a stack of {NUM_FLOW_FIELDS} flow fields needs at least {NUM_FLOW_FIELDS + 1} frames, got {num_frames}")
    return range(num_frames - NUM_FLOW_FIELDS)


def two_stream_samples(num_frames: int, count: int = NUM_TEST_CENTRES) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the frames, and the fields at which stacks begin, on which the two-stream networks are tested: two int64 arrays (count,).

    Notes
    -----
    Frame i is ``i * floor((N - 1) / 24)`` and stack i begins at ``i * floor((F - 10 + 1) / 25)``, F = N - 1 fields, as in the code of
    Wang et al. (yjxiong/caffe, ``action_python``). In a video of fewer than 25 frames they are all the first.
    """
    places = np.arange(count)
    step = (num_frames - 1) // (count - 1) if count > 1 else 0
    return places * step, places * (len(forward_starts(num_frames)) // count)


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


def c3d_size(input_size: int) -> tuple[int, int]:
    """Return height and width, in px, to which C3D's frames are resized for crops of this side: 128 x 171 for 112."""
    height, width = ((side * input_size + _C3D_CROP // 2) // _C3D_CROP for side in C3D_SIZE)
    return height, width


def ten_crop_boxes(height: int, width: int, *, size: int, published_centre: bool = False) -> tuple[Crop, ...]:
    """Return the corners and the centre of a frame, then the same five mirrored.

    Parameters
    ----------
    height, width : int, px
        The size of the frame, at least that of a crop.
    size : int, px
        S, the side of a crop.
    published_centre : bool
        Place the centre of frames of 256 x 340 where the published code has it, two pixels to the right of the true centre.

    Returns
    -------
    tuple of Crop
        Upper left, upper right, lower left, lower right, centre.

    Notes
    -----
    The ten crops of the mirrored frame are these crops in another order, with the true centre only, and only if the free room in the
    width is even.

    Examples
    --------
    >>> from flowkit.model.data.clip_frames import ten_crop_boxes
    >>> [(crop.top, crop.left) for crop in ten_crop_boxes(256, 340, size=224)[:5]]
    [(0, 0), (0, 116), (32, 0), (32, 116), (16, 58)]
    """
    down, right = height - size, width - size
    if down < 0 or right < 0:
        raise ParameterError(f"crops of {size} px do not fit into frames of {height} x {width} px")
    centre = (down // 2, right // 2)
    if published_centre and (height, width, size) == (256, 340, 224):
        centre = _PUBLISHED_CENTRE
    places = ((0, 0), (0, right), (down, 0), (down, right), centre)
    return tuple(Crop(top, left, size, size, flip) for flip in (False, True) for top, left in places)
