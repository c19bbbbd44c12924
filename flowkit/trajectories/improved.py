"""Improved dense trajectories of a video: all at once, or frame by frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ParameterError
from flowkit.flow import to_grey
from flowkit.trajectories.frame_motion import FrameMotion, frame_motions
from flowkit.trajectories.histograms import add_patch_histograms
from flowkit.trajectories.histograms_reference import PATCH_PX
from flowkit.trajectories.pyramid import Grey, Pyramid
from flowkit.trajectories.sampling import new_points
from flowkit.trajectories.tracks import FinishedTracks, LiveTracks
from flowkit.trajectories.trajectories import Trajectories, kept, relative_frames

Frames = NDArray[np.uint8] | Iterable[NDArray[np.uint8]]
Boxes = Mapping[int, NDArray[np.floating[Any]]]


def improved_trajectories(frames: Frames, *, camera_motion: str = "sift", boxes: Boxes | None = None) -> Trajectories:
    """Return the improved dense trajectories [1]_ of a video.

    Points on a dense grid at several scales are followed over 15 frames by optical flow. The camera's motion is estimated from
    matches between neighbouring frames and removed from the flow, and with it go trajectories that only the camera causes. Around
    each trajectory, histograms of gradients (HOG), flow (HOF) and the gradients of flow (MBH) describe appearance and motion.

    Parameters
    ----------
    frames : uint8 array, shape (T, H, W) grey or (T, H, W, 3) RGB, or iterable of frames of one size
        A video at its own size, as the authors use it. Videos of fewer than 16 frames, and frames with a side below 32 px, have no
        trajectories. Frames of an iterable are taken one by one, and only two of them are kept.
    camera_motion : {"sift", "flow", "none"}
        How the camera's motion is found: from SIFT keypoints and from corners that follow the flow, from these corners alone, which
        is faster, or not at all. The authors used SURF in the place of SIFT.
    boxes : mapping of int to float array, shape (n, 4), optional
        Boxes around people (x1, y1, x2, y2 in px) by the frame's number from 0; no points in them are matched.

    Returns
    -------
    Trajectories

    Raises
    ------
    ParameterError
        If the shape or type of the frames or `camera_motion` is not as above, or the frames differ in size.

    Notes
    -----
    The method is that of the authors' program of October 2013, except for SIFT; on their own video it finds 1,994 of their 2,001
    trajectories and 3 others. One core is used, but OpenCV starts threads unless ``cv2.setNumThreads(1)`` is set.

    References
    ----------
    .. [1] Wang, Schmid, "Action recognition with improved trajectories", ICCV 2013.

    Examples
    --------
    A texture that moves to the right by 2 px per frame, as if by the camera:

    >>> import numpy as np
    >>> from flowkit import improved_trajectories
    >>> texture = np.random.default_rng(0).integers(0, 256, (12, 24), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    >>> frames = np.stack([texture[:, 40 - 2 * t : 88 - 2 * t] for t in range(18)])
    >>> found = improved_trajectories(frames, camera_motion="none")
    >>> len(found) > 20, np.median(found.length).round()
    (True, np.float32(30.0))
    >>> len(improved_trajectories(frames, camera_motion="flow"))
    0
    """
    blocks = list(iterate_trajectories(frames, None, camera_motion=camera_motion, boxes=boxes))  # one for every frame but the first
    found = Trajectories.concatenate(blocks)
    position = found.position.copy()
    position[:, 2] = relative_frames(found.end_frame, len(blocks) + 1)
    return replace(found, position=position)


def iterate_trajectories(
    frames: Frames,
    num_frames: int | None,
    *,
    camera_motion: str = "sift",
    boxes: Boxes | None = None,
    num_scales: int | None = None,
) -> Iterator[Trajectories]:
    """Yield the trajectories of `improved_trajectories` frame by frame, so that memory does not grow with the length of the video.

    Parameters
    ----------
    frames, camera_motion, boxes
        As for `improved_trajectories`.
    num_frames : int or None, >= 1
        The number of frames, to which the third number of `Trajectories.position` is relative. If it is not known before the end
        of the video, None makes that number NaN.
    num_scales : int, optional
        Follow points at the first so many scales only, of which 1 is that of the full-size frame. Default: all.

    Yields
    ------
    Trajectories
        For every frame but the first, those that end there; there may be none.

    Raises
    ------
    ParameterError
        As for `improved_trajectories`, or if `num_frames` is less than 1; on the first iteration, or at the frame in question.
    """
    if num_frames is not None and num_frames < 1:
        raise ParameterError(f"num_frames must be at least 1, got {num_frames}")
    if isinstance(frames, np.ndarray):
        _check_array(frames)
    greys = map(_grey, frames)
    first = next(greys, None)
    if first is None:
        return
    height, width = first.shape
    if min(height, width) < PATCH_PX:
        yield from (Trajectories.concatenate([]) for _ in greys)
        return
    scales = Pyramid(height, width).scales[:num_scales]
    levels = [LiveTracks(add_patch_histograms) for _ in scales]
    for motion in frame_motions(chain([first], greys), camera_motion=camera_motion, boxes=boxes):
        ended = [
            kept(tracks, scale=float(scale), end_frame=motion.number, width=width, height=height, num_frames=num_frames)
            for tracks, scale in zip(_advanced(levels, motion), scales, strict=True)
        ]
        yield Trajectories.concatenate(ended)


def _advanced(levels: list[LiveTracks], motion: FrameMotion) -> Iterator[FinishedTracks]:
    """Take the tracks of every level one frame further, yield those that end, and start new ones."""
    for tracks, previous, current, flow, compensated in zip(
        levels,
        motion.previous,
        motion.current,
        motion.flows,
        motion.compensated,
        strict=False,  # there may be levels without points
    ):
        if motion.number == 1:
            tracks.start(new_points(previous, tracks.positions()))
        yield tracks.advance(previous, flow, compensated)
        tracks.start(new_points(current, tracks.positions()))


def _check_array(frames: NDArray[Any]) -> None:
    if frames.ndim == 3 and frames.shape[2] == 3 and frames.shape[0] >= PATCH_PX:
        raise ParameterError(f"frames {frames.shape} look like one colour frame; a video has the shape (T, H, W) or (T, H, W, 3)")
    if frames.dtype != np.uint8 or not (frames.ndim == 3 or (frames.ndim == 4 and frames.shape[3] == 3)):
        raise ParameterError(f"frames must be uint8 (T, H, W) or (T, H, W, 3), got {frames.dtype} {frames.shape}")


def _grey(frame: NDArray[np.uint8]) -> Grey:
    frame = np.asarray(frame)
    if frame.dtype != np.uint8 or not (frame.ndim == 2 or (frame.ndim == 3 and frame.shape[2] == 3)):
        raise ParameterError(f"a frame must be uint8 (H, W) or (H, W, 3), got {frame.dtype} {frame.shape}")
    return frame if frame.ndim == 2 else to_grey(frame[None])[0]
