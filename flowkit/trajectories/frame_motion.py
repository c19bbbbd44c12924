"""What trajectories need of each pair of frames: grey levels, flow at every level, and the same flow without the camera's motion."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ParameterError
from flowkit.trajectories.camera_motion import (
    Keypoints,
    find_keypoints,
    homography,
    match_corners,
    match_keypoints,
    outside_boxes,
    without_camera_motion,
)
from flowkit.trajectories.level_flow import Expansions, expand, level_flows
from flowkit.trajectories.pyramid import Grey, Pyramid

CAMERA_MOTIONS = ("sift", "flow", "none")

Levels = tuple[NDArray[np.float32], ...]


@dataclass(frozen=True)
class FrameMotion:
    """The motion between two consecutive frames at each level of their pyramid, finest first.

    Parameters
    ----------
    number : int
        Number of the second frame, from 1.
    previous, current : tuple of uint8 arrays, shape (h, w)
        Grey levels of the first and of the second frame.
    flows : tuple of float32 arrays, shape (h, w, 2), px of the level
        Flow from the first frame to the second, x and y.
    compensated : tuple of float32 arrays, shape (h, w, 2), px of the level
        Flow from the first frame to the second after the camera's motion is removed from the second.
    homography : float64 array, shape (3, 3)
        The camera's motion: where it leads the pixels of the first frame. It is the identity where none was found.
    """

    number: int
    previous: tuple[Grey, ...]
    current: tuple[Grey, ...]
    flows: Levels
    compensated: Levels
    homography: NDArray[np.float64]


@dataclass(frozen=True)
class _Frame:
    """What is computed once per frame, and used for two pairs."""

    levels: tuple[Grey, ...]
    expansions: Expansions
    mask: NDArray[np.uint8] | None
    keypoints: Keypoints | None

    @property
    def grey(self) -> Grey:
        return self.levels[0]


def frame_motions(
    grey_frames: Iterable[Grey], *, camera_motion: str = "sift", boxes: Mapping[int, NDArray[np.floating]] | None = None
) -> Iterator[FrameMotion]:
    """Yield the motion from each frame to the next. One frame is kept, so memory does not grow with their number.

    Parameters
    ----------
    grey_frames : iterable of uint8 arrays, shape (H, W)
        Frames of one size. They are copied, so their memory may be used again for the next one.
    camera_motion : {"sift", "flow", "none"}
        How the camera's motion is found: from SIFT keypoints and corners that follow the flow, from these corners alone, or not
        at all; `FrameMotion.compensated` is then `FrameMotion.flows`.
    boxes : mapping of int to float array, shape (n, 4), optional
        Boxes around people (x1, y1, x2, y2 in px) by the frame's number from 0, in which no points are matched.

    Yields
    ------
    motion : FrameMotion
        One fewer than there are frames.

    Raises
    ------
    ParameterError
        If a frame is no uint8 (H, W) array or has another size than the first, or `camera_motion` is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from flowkit.trajectories.frame_motion import frame_motions
    >>> y, x = np.mgrid[:40, :60]
    >>> frames = [(128 + 90 * np.sin((x - 2 * t) / 5) * np.cos(y / 7)).astype(np.uint8) for t in range(3)]
    >>> motions = list(frame_motions(frames, camera_motion="none"))
    >>> [motion.number for motion in motions], motions[0].flows[0].shape
    ([1, 2], (40, 60, 2))
    >>> abs(np.median(motions[0].flows[0], axis=(0, 1))).round(1).tolist()
    [2.0, 0.0]
    """
    check_camera_motion(camera_motion)
    return _motions(grey_frames, camera_motion, boxes or {})


def camera_homographies(grey_frames: Iterable[Grey], *, camera_motion: str = "sift") -> Iterator[NDArray[np.float64]]:
    """Yield the camera's motion from each frame to the next, as `frame_motions` has it, without the flow that is left.

    Parameters
    ----------
    grey_frames : iterable of uint8 arrays, shape (H, W)
        Frames of one size.
    camera_motion : {"sift", "flow"}
        As for `frame_motions`.

    Yields
    ------
    float64 array, shape (3, 3)
        A homography that leads the pixels of a frame to the next one; one fewer than there are frames. It depends on these two alone.

    Raises
    ------
    ParameterError
        As for `frame_motions`.

    Examples
    --------
    >>> import numpy as np
    >>> from flowkit.trajectories.frame_motion import camera_homographies
    >>> texture = np.random.default_rng(0).integers(0, 256, (24, 40), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    >>> (matrix,) = camera_homographies([texture[:, 40:130], texture[:, 38:128]])
    >>> np.abs(matrix).round(1).tolist()
    [[1.0, 0.0, 2.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    check_camera_motion(camera_motion)
    return (_homography(*pair, level_flows(*(frame.expansions for frame in pair))) for pair, _ in _pairs(grey_frames, camera_motion, {}))


def check_camera_motion(camera_motion: str) -> None:
    """Raise `ParameterError` unless this is a way to find the camera's motion, or ``none``."""
    if camera_motion not in CAMERA_MOTIONS:
        raise ParameterError(f"unknown camera motion {camera_motion!r}; choose one of {', '.join(CAMERA_MOTIONS)}")


def _motions(grey_frames: Iterable[Grey], camera_motion: str, boxes: Mapping[int, NDArray[np.floating]]) -> Iterator[FrameMotion]:
    for number, ((previous, current), pyramid) in enumerate(_pairs(grey_frames, camera_motion, boxes), start=1):
        yield _motion(number, previous, current, pyramid, camera_motion)


def _pairs(
    grey_frames: Iterable[Grey], camera_motion: str, boxes: Mapping[int, NDArray[np.floating]]
) -> Iterator[tuple[tuple[_Frame, _Frame], Pyramid]]:
    """Yield each frame with the next one, and the pyramid of their size."""
    pyramid: Pyramid | None = None
    previous: _Frame | None = None
    for number, grey in enumerate(grey_frames):
        pyramid = pyramid or _pyramid_of(grey)
        _check(grey, number, pyramid)
        current = _prepare(np.array(grey, order="C"), pyramid, camera_motion, boxes.get(number))
        if previous is not None:
            yield (previous, current), pyramid
        previous = current


def _pyramid_of(grey: Grey) -> Pyramid:
    if grey.ndim != 2:
        raise ParameterError(f"grey frames must be uint8 (H, W), got {grey.dtype} {grey.shape}")
    return Pyramid(*grey.shape)


def _check(grey: Grey, number: int, pyramid: Pyramid) -> None:
    if grey.dtype != np.uint8 or grey.shape != (pyramid.height, pyramid.width):
        expected = f"uint8 {pyramid.height, pyramid.width} as the first"
        raise ParameterError(f"grey frames must be uint8 (H, W) of one size; frame {number} is {grey.dtype} {grey.shape}, not {expected}")


def _prepare(grey: Grey, pyramid: Pyramid, camera_motion: str, boxes: NDArray[np.floating] | None) -> _Frame:
    mask = None if boxes is None or not len(boxes) else outside_boxes(boxes, *grey.shape)
    keypoints = find_keypoints(grey, mask) if camera_motion == "sift" else None
    return _Frame(pyramid.grey_levels(grey), expand(grey, pyramid), mask, keypoints)


def _motion(number: int, previous: _Frame, current: _Frame, pyramid: Pyramid, camera_motion: str) -> FrameMotion:
    flows = level_flows(previous.expansions, current.expansions)
    if camera_motion == "none":
        return FrameMotion(number, previous.levels, current.levels, flows, flows, np.eye(3))
    matrix = _homography(previous, current, flows)
    warped = without_camera_motion(previous.grey, current.grey, matrix)
    compensated = level_flows(previous.expansions, expand(warped, pyramid))
    return FrameMotion(number, previous.levels, current.levels, flows, compensated, matrix)


def _homography(previous: _Frame, current: _Frame, flows: Levels) -> NDArray[np.float64]:
    """Return the camera's motion between two frames, from their keypoints, if they have any, and from the flow at corners."""
    pairs = [match_corners(previous.grey, flows[0], previous.mask)]
    if previous.keypoints is not None and current.keypoints is not None:
        pairs.append(match_keypoints(previous.keypoints, current.keypoints))
    return homography(*(np.concatenate(points) for points in zip(*pairs, strict=True)))
