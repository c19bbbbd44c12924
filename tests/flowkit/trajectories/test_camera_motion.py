"""The camera's motion: matches, the homography, the warped frame, and what happens where there is too little to see."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from textures import moving_texture

from flowkit.trajectories.camera_motion import (
    Keypoints,
    find_keypoints,
    homography,
    match_corners,
    match_keypoints,
    outside_boxes,
    without_camera_motion,
)


def random_keypoints(num: int, seed: int, *, size: tuple[float, float] = (320, 240)) -> Keypoints:
    rng = np.random.default_rng(seed)
    return Keypoints((rng.random((num, 2)) * size).astype(np.float32), rng.integers(0, 256, (num, 128)).astype(np.float32))


def all_pairs(previous: Keypoints, current: Keypoints) -> tuple[np.ndarray, np.ndarray]:
    """Match by the full matrix of differences."""
    is_near = (np.abs(current.points[:, None] - previous.points) < 25).all(axis=2)
    difference = current.descriptors[:, None].astype(np.float64) - previous.descriptors
    distance = np.where(is_near, (difference**2).sum(axis=2), np.inf)
    matched = is_near.any(axis=1)
    return previous.points[distance.argmin(axis=1)[matched]], current.points[matched]


@pytest.mark.parametrize(("num_previous", "num_current"), [(1, 1), (3, 200), (300, 2), (129, 128), (400, 517)])
def test_keypoints_match_as_in_the_full_matrix(num_previous: int, num_current: int) -> None:
    previous, current = random_keypoints(num_previous, 1), random_keypoints(num_current, 2)
    for found, expected in zip(match_keypoints(previous, current), all_pairs(previous, current), strict=True):
        assert np.array_equal(found, expected)


def test_of_equally_near_descriptors_the_first_is_taken() -> None:
    descriptors = np.ones((3, 128), np.float32)
    previous = Keypoints(np.float32([[30, 10], [12, 10], [11, 10]]), descriptors)
    matched, _ = match_keypoints(previous, Keypoints(np.float32([[10, 10]]), descriptors[:1]))
    assert matched.tolist() == [[30, 10]]


def test_keypoints_farther_than_25_px_do_not_match() -> None:
    point = Keypoints(np.float32([[100, 100]]), np.zeros((1, 128), np.float32))
    for offset, num in (((24.9, -24.9), 1), ((25, 0), 0), ((0, 25.1), 0)):
        moved = Keypoints(point.points + np.float32(offset), point.descriptors)
        assert len(match_keypoints(point, moved)[0]) == num


def test_the_smallest_difference_of_two_distances_decides() -> None:
    far = np.full((1, 128), 255, np.float32)  # the largest distance, 128 * 255**2, is below 2**24
    slightly_nearer = far.copy()
    slightly_nearer[0, 127] = 254
    previous = Keypoints(np.zeros((2, 2), np.float32), np.concatenate([far, slightly_nearer]))
    previous.points[1] = 1
    matched, _ = match_keypoints(previous, Keypoints(np.zeros((1, 2), np.float32), np.zeros((1, 128), np.float32)))
    assert matched.tolist() == [[1, 1]]


def test_a_frame_without_texture_has_no_points() -> None:
    black = np.zeros((60, 80), np.uint8)
    keypoints = find_keypoints(black)
    assert keypoints.points.shape == (0, 2)
    assert keypoints.descriptors.shape == (0, 128)
    for points in (*match_corners(black, np.zeros((60, 80, 2), np.float32)), *match_keypoints(keypoints, keypoints)):
        assert points.shape == (0, 2)
        assert points.dtype == np.float32
    some = find_keypoints(moving_texture(1, 60, 80)[0])
    assert len(some.points)
    assert len(match_keypoints(some, keypoints)[0]) == len(match_keypoints(keypoints, some)[0]) == 0


def test_corners_move_by_the_flow_at_their_nearest_pixel() -> None:
    grey = moving_texture(1, 60, 80)[0]
    flow = np.random.default_rng(5).normal(size=(60, 80, 2)).astype(np.float32)
    corners, moved = match_corners(grey, flow)
    assert len(corners) > 20
    column, row = np.rint(corners).astype(int).T
    assert np.allclose(moved - np.rint(corners), flow[row, column], atol=1e-5)


def test_no_point_lies_in_a_box() -> None:
    grey = moving_texture(1, 120, 160, noise=0)[0]
    mask = outside_boxes(np.array([[-20.0, -5, 79.6, 200], [100, 50, 99, 60]]), 120, 160)
    assert not mask[:, :81].any()
    assert (mask[:, 81:] == 255).all()
    corners, _ = match_corners(grey, np.zeros((120, 160, 2), np.float32), mask)
    for points in (corners, find_keypoints(grey, mask).points):
        assert len(points)
        assert points[:, 0].min() >= 80


def matched_points(num: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return points, where a homography leads them, and it; a fifth of the pairs is wrong."""
    rng = np.random.default_rng(seed)
    matrix = np.array([[1.01, 0.02, 3], [-0.01, 0.99, -2], [1e-5, -2e-5, 1]])
    points = rng.uniform(0, 300, (num, 2))
    moved = cv2.perspectiveTransform(points[:, None], matrix)[:, 0] + rng.normal(scale=0.1, size=(num, 2))
    moved[: num // 5] += rng.uniform(5, 20, (num // 5, 2))
    return points.astype(np.float32), moved.astype(np.float32), matrix


def test_a_homography_is_found_despite_wrong_pairs() -> None:
    previous, current, matrix = matched_points(200, 6)
    corners = np.float32([[[0, 0]], [[300, 0]], [[0, 300]], [[300, 300]]])
    found, expected = (cv2.perspectiveTransform(corners, each) for each in (homography(previous, current), matrix))
    assert np.abs(found - expected).max() < 0.5


def test_the_homography_does_not_depend_on_what_ran_before() -> None:
    previous, current, _ = matched_points(200, 7)
    current = current + np.random.default_rng(8).normal(scale=0.7, size=current.shape).astype(np.float32)  # many draws until it agrees
    found = set()
    for seed in range(4):
        cv2.setRNGSeed(seed)
        cv2.randu(np.empty((7, seed + 1), np.uint8), 0, 255)
        found.add(homography(previous, current).tobytes())
        homography(*matched_points(100, seed)[:2])
    assert len(found) == 1


@pytest.mark.parametrize("num", [0, 1, 3, 50])
def test_few_pairs_give_the_identity(num: int) -> None:
    previous = np.random.default_rng(9).uniform(0, 99, (num, 2)).astype(np.float32)
    assert np.array_equal(homography(previous, previous + 5), np.eye(3))


def test_more_than_25_pairs_must_agree() -> None:
    rng = np.random.default_rng(10)
    previous = rng.uniform(0, 300, (100, 2)).astype(np.float32)
    assert np.array_equal(homography(previous, rng.uniform(0, 300, (100, 2)).astype(np.float32)), np.eye(3))
    current = previous + rng.uniform(20, 90, (100, 2)).astype(np.float32)
    current[:40] = previous[:40] + 4
    assert np.allclose(homography(previous, current) @ [50, 50, 1], [54, 54, 1], atol=0.1)


@pytest.mark.parametrize("kind", ["one point", "a line", "two points", "to one point"])
def test_degenerate_pairs_give_a_finite_matrix_and_frame(kind: str) -> None:
    rng = np.random.default_rng(11)
    previous = rng.uniform(10, 60, (80, 2)).astype(np.float32)
    current = previous + 3
    if kind == "one point":
        previous[:], current[:] = 20, 23
    elif kind == "a line":
        previous[:, 1] = current[:, 1] = previous[:, 0]
    elif kind == "two points":
        previous[::2], previous[1::2] = (5, 9), (40, 30)
        current = previous + 3
    else:
        current[:] = 30
    matrix = homography(previous, current)
    assert np.isfinite(matrix).all()
    frame = moving_texture(1, 60, 80)[0]
    assert without_camera_motion(frame, frame, matrix).shape == frame.shape


@pytest.mark.parametrize(
    "matrix",
    [
        np.zeros((3, 3)),
        np.diag([1.0, 1, 0]),
        np.full((3, 3), 1e300),
        np.diag([1e-300, 1, 1]),
    ],
)
def test_a_singular_matrix_leaves_the_previous_frame_where_it_leads_outside(matrix: np.ndarray) -> None:
    previous, current = moving_texture(2, 60, 80)
    warped = without_camera_motion(previous, current, matrix)
    assert warped.dtype == np.uint8
    assert np.array_equal(warped[:5], previous[:5])


def test_points_at_infinity_are_outside() -> None:
    previous, current = moving_texture(2, 60, 80)
    warped = without_camera_motion(previous, current, np.array([[1.0, 0, 0], [0, 1, 0], [0.1, 0, -1]]))
    assert np.array_equal(warped[:, 10], previous[:, 10])
    assert not np.array_equal(warped[:, 11:13], previous[:, 11:13])


def test_the_warped_frame_is_the_moved_one_inside_and_the_previous_one_at_the_rim() -> None:
    previous, current = moving_texture(2, 60, 80, noise=0)
    matrix = np.array([[1.0, 0, 3], [0, 1, -2], [0, 0, 1]])
    warped = without_camera_motion(previous, current, matrix)
    rows, columns = slice(8, 60 - 4), slice(3, 80 - 9)  # where 5 < y - 2 < 54 and 5 < x + 3 < 74
    assert np.array_equal(warped[rows, columns], current[6 : 60 - 6, 6 : 80 - 6])
    is_rim = np.ones((60, 80), bool)
    is_rim[rows, columns] = False
    assert np.array_equal(warped[is_rim], previous[is_rim])


def warped_by_numpy(previous: np.ndarray, current: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return the warped frame with the previous one's pixels outside, by arrays of coordinates."""
    height, width = current.shape
    warped = cv2.warpPerspective(current, matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        to_x, to_y = ((row[0] * x + row[1] * y + row[2]) / (matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2]) for row in matrix[:2])
    return np.where((to_x > 5) & (to_x < width - 6) & (to_y > 5) & (to_y < height - 6), warped, previous)


@pytest.mark.parametrize("shape", [(60, 80), (13, 12), (12, 40), (1, 1), (97, 33)])
def test_the_warped_frame_is_that_of_numpy(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(12)
    previous, current = rng.integers(0, 256, (2, *shape), np.uint8)
    for _ in range(20):
        matrix = np.eye(3) + rng.normal(scale=[[0.1, 0.1, 3], [0.1, 0.1, 3], [0.003, 0.003, 0.1]])
        assert np.array_equal(without_camera_motion(previous, current, matrix), warped_by_numpy(previous, current, matrix))
