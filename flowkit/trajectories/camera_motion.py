"""The motion of the camera between two frames: matched points, a homography through them, and the second frame without that motion.

Points are matched in two ways, and all pairs count alike: keypoints of SIFT by their descriptors, and corners of the first frame by
the flow at them [1]_. The authors used SURF, which is patented and in no OpenCV package. People move on their own, so boxes around
them can be left out.

References
----------
.. [1] Wang, Schmid, "Action recognition with improved trajectories", ICCV 2013, section 3, and the authors' program of October 2013.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from flowkit.trajectories.camera_kernels import find_nearest, keep_previous_outside
from flowkit.trajectories.pyramid import Grey

Points = NDArray[np.float32]  # (n, 2): x, y in px

SEARCH_PX = 25  # keypoints match within this distance along x and along y
MAX_CORNERS = 1000
CORNER_QUALITY = 0.001
CORNER_DISTANCE_PX = 3
INLIER_PX = 1.0
MORE_PAIRS_THAN = 50
MORE_INLIERS_THAN = 25
RIM_PX = 5
_FREED_BYTES = 31 << 20


@dataclass(frozen=True)
class Keypoints:
    """SIFT keypoints of a frame.

    Parameters
    ----------
    points : float32 array, shape (n, 2), px
        Their x and y.
    descriptors : float32 array, shape (n, 128)
        Whole numbers from 0 to 255.
    """

    points: Points
    descriptors: NDArray[np.float32]


def outside_boxes(boxes: NDArray[np.floating], height: int, width: int) -> NDArray[np.uint8]:
    """Return a mask, uint8 (H, W), that is 0 inside boxes (n, 4) of x1, y1, x2, y2 in px, edges included, and 255 elsewhere."""
    mask = np.full((height, width), 255, np.uint8)
    for x1, y1, x2, y2 in np.clip(np.rint(boxes), -1, max(height, width)).astype(int):
        mask[max(y1, 0) : y2 + 1, max(x1, 0) : x2 + 1] = 0
    return mask


def find_keypoints(grey: Grey, mask: NDArray[np.uint8] | None = None) -> Keypoints:
    """Return the SIFT keypoints of a grey frame, uint8 (H, W), where the mask, if given, is not 0."""
    # SIFT takes and frees some 20 MB per frame of 320x240. glibc returns what is freed to the system at once, and a third of SIFT's time
    # goes into fetching it again, unless a larger block was freed before: then it keeps up to twice that block's size (32 MB at most).
    np.empty(_FREED_BYTES, np.uint8)
    found, descriptors = cv2.SIFT_create().detectAndCompute(grey, mask)  # type: ignore[attr-defined]
    if descriptors is None:
        return Keypoints(np.empty((0, 2), np.float32), np.empty((0, 128), np.float32))
    return Keypoints(np.array([keypoint.pt for keypoint in found], np.float32), descriptors)


def match_keypoints(previous: Keypoints, current: Keypoints) -> tuple[Points, Points]:
    """Return, for each current keypoint, the previous one near it whose descriptor is nearest (L2), and the current one.

    A current keypoint with no previous one nearer than `SEARCH_PX` along x and y has no match. Of equally near descriptors the
    first is taken. Memory grows with the number of keypoints, not with its square.

    Returns
    -------
    previous_points, current_points : float32 arrays, shape (n, 2), px
    """
    nearest = np.empty(len(current.points), np.int64)
    descriptors = previous.descriptors.reshape(-1), current.descriptors.reshape(-1)
    find_nearest(previous.points, descriptors[0], current.points, descriptors[1], np.float32(SEARCH_PX), nearest)
    is_matched = nearest >= 0
    return previous.points[nearest[is_matched]], current.points[is_matched]


def match_corners(grey: Grey, flow: NDArray[np.float32], mask: NDArray[np.uint8] | None = None) -> tuple[Points, Points]:
    """Return corners of the first grey frame, uint8 (H, W), and where its flow, float32 (H, W, 2), leads from their nearest pixel."""
    found = cv2.goodFeaturesToTrack(grey, MAX_CORNERS, CORNER_QUALITY, CORNER_DISTANCE_PX, mask=mask)
    corners = np.empty((0, 2), np.float32) if found is None else found.reshape(-1, 2).astype(np.float32)
    height, width = grey.shape
    nearest = np.rint(corners).astype(np.intp).clip(0, (width - 1, height - 1))
    column, row = nearest.T
    return corners, nearest.astype(np.float32) + flow[row, column]


def homography(previous: Points, current: Points) -> NDArray[np.float64]:
    """Return the homography, float64 (3, 3), that leads most of the previous points to the current ones.

    It is the identity if there are at most 50 pairs or at most 25 of them agree within 1 px, or if no finite one is found. RANSAC
    draws from a generator of its own, whose seed OpenCV fixes: equal points give an equal result.
    """
    if len(previous) > MORE_PAIRS_THAN:
        found, is_inlier = cv2.findHomography(previous, current, cv2.RANSAC, INLIER_PX)
        if found is not None and np.isfinite(found).all() and np.count_nonzero(is_inlier) > MORE_INLIERS_THAN:
            return found.astype(np.float64)
    return np.eye(3)


def without_camera_motion(previous: Grey, current: Grey, matrix: NDArray[np.float64]) -> Grey:
    """Return the current frame as the camera of the previous one would have seen it: ``current(Hx)``, bilinear.

    Where Hx is not more than 5 px inside the frame, the pixel is that of the previous frame. All frames are uint8 (H, W).
    """
    height, width = current.shape
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = np.asarray(cv2.warpPerspective(current, matrix, (width, height), flags=flags), np.uint8)
    keep_previous_outside(previous, warped, matrix, RIM_PX)
    return warped
