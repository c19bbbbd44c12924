"""Histograms around points: by hand on simple pictures, under shifts and mirror images; the compiled ones against the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from flowkit.trajectories.histograms import add_patch_histograms
from flowkit.trajectories.histograms_reference import (
    CELL_CONSTANT,
    PATCH_PX,
    SIZES,
    TOTAL_SIZE,
    direction_votes,
    gradient,
    motion_votes,
    patch_corners,
    patch_histograms,
)

if TYPE_CHECKING:
    from collections.abc import Callable

HOG, HOF, MBH_X, MBH_Y = (slice(end - size, end) for size, end in zip(SIZES, np.cumsum(SIZES), strict=True))
ODD_SIZES = [(32, 32), (33, 47), (75, 61), (40, 131)]


def compiled(grey: np.ndarray, flow: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return what the reference does, by the compiled kernels."""
    found = np.zeros((len(positions), TOTAL_SIZE), np.float32)
    add_patch_histograms(grey, flow, positions, found, np.arange(len(positions)))
    return found


@pytest.fixture(params=[patch_histograms, compiled], ids=["reference", "compiled"])
def histograms(request: pytest.FixtureRequest) -> Callable[..., np.ndarray]:
    return request.param


def random_level(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a grey level and flow, with places without any motion and without any gradient."""
    rng = np.random.default_rng(seed)
    grey = rng.integers(0, 256, (height, width), dtype=np.uint8)
    flow = rng.normal(scale=2, size=(height, width, 2)).astype(np.float32)
    grey[: height // 3, : width // 2] = 77
    flow[height // 2 :, width // 2 :] = 0
    return grey, flow


def random_positions(height: int, width: int, num: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, (width, height), (num, 2))


def test_a_gradient_to_the_right_votes_for_the_first_bin_and_down_for_the_third(histograms: Callable[..., np.ndarray]) -> None:
    ramp = np.arange(40, dtype=np.uint8) * 3
    right = np.broadcast_to(ramp, (40, 40))
    for picture, bin_number in ((right, 0), (right.T, 2), (right[:, ::-1], 4), (right.T[::-1], 6)):
        hog = histograms(np.ascontiguousarray(picture), np.zeros((40, 40, 2), np.float32), np.array([[20, 20]]))[0, HOG]
        votes = 6.0 * 16 * 16  # of one cell
        expected = np.zeros(8)
        expected[bin_number] = votes
        values = np.tile(expected, 4) + CELL_CONSTANT
        np.testing.assert_allclose(hog, np.sqrt(values / values.sum()), rtol=1e-5)


def test_a_direction_between_two_bins_is_shared_by_its_distance_from_them() -> None:
    angle = np.deg2rad(45 * np.array([[3.25, 7.5]]))
    votes = direction_votes((4 * np.cos(angle)).astype(np.float32), (4 * np.sin(angle)).astype(np.float32))[0]
    np.testing.assert_allclose(votes[0], [0, 0, 0, 3, 1, 0, 0, 0], atol=2e-3)
    np.testing.assert_allclose(votes[1], [2, 0, 0, 0, 0, 0, 0, 2], atol=2e-3)


def test_flow_of_at_most_two_fifths_of_a_pixel_counts_as_no_motion() -> None:
    u = np.array([[0, 0.4, -0.39, 0.41]], np.float32)
    votes = motion_votes(u, np.zeros_like(u))[0]
    assert votes[:3, 8].tolist() == [1, 1, 1]
    assert not votes[:3, :8].any()
    np.testing.assert_allclose(votes[3], [0.41, 0, 0, 0, 0, 0, 0, 0, 0], atol=1e-6)


def test_derivatives_at_the_border_are_zero() -> None:
    grey, _ = random_level(33, 35)
    dx, dy = gradient(grey)
    assert not dx[:, [0, -1]].any()
    assert not dy[[0, -1]].any()
    np.testing.assert_array_equal(dx[:, 1:-1], grey[:, 2:].astype(float) - grey[:, :-2])


@pytest.mark.parametrize(("height", "width"), ODD_SIZES)
def test_each_vector_has_sum_of_squares_one(histograms: Callable[..., np.ndarray], height: int, width: int) -> None:
    found = histograms(*random_level(height, width), random_positions(height, width, 50))
    assert found.shape == (50, 132)
    assert (found > 0).all()
    for part in (HOG, HOF, MBH_X, MBH_Y):
        np.testing.assert_allclose((found[:, part] ** 2).sum(axis=1), 1, rtol=1e-5)


def test_a_patch_is_pushed_inside_its_level() -> None:
    corners = patch_corners(np.array([[0, 0], [59, 39], [30, 20], [16, 100]]), 40, 60)
    assert corners.tolist() == [[0, 0], [28, 8], [14, 4], [0, 8]]


def test_moving_everything_by_whole_pixels_changes_nothing(histograms: Callable[..., np.ndarray]) -> None:
    grey, flow = random_level(80, 90)
    positions = random_positions(80 - 34, 90 - 34 - 9, 30) + 17
    moved = histograms(np.ascontiguousarray(grey[:, 9:]), flow[:, 9:], positions)
    np.testing.assert_allclose(moved, histograms(grey, flow, positions + np.array([9, 0])), rtol=1e-5)


def mirrored(vectors: np.ndarray, *, num_bins: int, opposite: bool = False) -> np.ndarray:
    """Permute the cells and bins of vectors (n, 4 x bins) as a mirror image does.

    Left and right cells change places, and the direction d becomes 4 - d; where the mirror image changes the sign of the values
    themselves, it becomes 4 - d + 4.
    """
    cells = vectors.reshape(-1, 2, 2, num_bins)[:, ::-1]
    directions = (4 - np.arange(8) + 4 * opposite) % 8
    return cells[..., [*directions, *range(8, num_bins)]].reshape(len(vectors), -1)


@pytest.mark.parametrize(("height", "width"), ODD_SIZES)
def test_a_mirror_image_permutes_cells_and_bins(histograms: Callable[..., np.ndarray], height: int, width: int) -> None:
    grey, flow = random_level(height, width)
    x, y = random_positions(height, width, 30).T
    x = np.clip(x, PATCH_PX // 2, width - PATCH_PX // 2)
    image = histograms(grey, flow, np.stack([x, y], axis=1))
    in_mirror = histograms(
        np.ascontiguousarray(grey[:, ::-1]), np.ascontiguousarray(flow[:, ::-1] * np.float32([-1, 1])), np.stack([width - x, y], axis=1)
    )
    np.testing.assert_allclose(in_mirror[:, HOG], mirrored(image[:, HOG], num_bins=8), atol=1e-4)
    np.testing.assert_allclose(in_mirror[:, HOF], mirrored(image[:, HOF], num_bins=9), atol=1e-4)
    np.testing.assert_allclose(in_mirror[:, MBH_X], mirrored(image[:, MBH_X], num_bins=8, opposite=True), atol=1e-4)
    np.testing.assert_allclose(in_mirror[:, MBH_Y], mirrored(image[:, MBH_Y], num_bins=8), atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [*ODD_SIZES, (240, 320)])
@pytest.mark.parametrize("num", [0, 1, 7, 400])
def test_the_compiled_histograms_are_those_of_the_reference(height: int, width: int, num: int) -> None:
    grey, flow = random_level(height, width, seed=num)
    positions = random_positions(height, width, num, seed=num)
    np.testing.assert_allclose(compiled(grey, flow, positions), patch_histograms(grey, flow, positions), atol=1e-6)


def test_strong_votes_leave_no_trace_in_weak_cells_beside_them() -> None:
    grey, flow = random_level(100, 120)
    flow[:50] *= 1e4
    flow[50:] *= 0
    positions = random_positions(100, 120, 300)
    np.testing.assert_allclose(compiled(grey, flow, positions), patch_histograms(grey, flow, positions), atol=1e-6)


def test_descriptors_are_added_to_the_rows_that_are_named() -> None:
    grey, flow = random_level(50, 60)
    positions = random_positions(50, 60, 20)
    sums = np.ones((70, TOTAL_SIZE), np.float32)
    rows = np.random.default_rng(0).permutation(70)[:20]
    add_patch_histograms(grey, flow, positions, sums, rows)
    np.testing.assert_allclose(sums[rows], 1 + patch_histograms(grey, flow, positions), atol=1e-6)
    assert (np.delete(sums, rows, axis=0) == 1).all()
