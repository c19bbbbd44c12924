"""The definition of TV-L1: its operators are adjoint, its primitives agree with OpenCV, and its flow is close to the ground truth."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from flowkit.errors import ParameterError
from flowkit.flow import TVL1Params, reference
from flowkit.flow.cpu.solver import CpuSolver

if TYPE_CHECKING:
    from pathlib import Path

OPENCV = int(cv2.__version__.split(".")[0])


def textured_pair(height: int, width: int, motion: tuple[float, float], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return two grey frames, the second one moved by `motion` (u, v) px."""
    rng = np.random.default_rng(seed)
    texture = cv2.GaussianBlur(rng.random((height + 40, width + 40)).astype(np.float32), (0, 0), 2.0)
    texture = (texture - texture.min()) / np.ptp(texture) * 255
    x, y = np.meshgrid(np.arange(width, dtype=np.float32) + 20, np.arange(height, dtype=np.float32) + 20)
    frames = [cv2.remap(texture, x - k * np.float32(motion[0]), y - k * np.float32(motion[1]), cv2.INTER_CUBIC) for k in (0, 1)]
    return frames[0].clip(0, 255).astype(np.uint8), frames[1].clip(0, 255).astype(np.uint8)


def energy(first: np.ndarray, second: np.ndarray, u: np.ndarray, params: TVL1Params) -> float:
    variation = sum(np.hypot(*reference.gradient(component)).sum() for component in u)
    residual = np.abs(reference.warp(second.astype(np.float64), u) - first)[4:-4, 4:-4].sum()
    return float(variation + params.lambda_ * residual)


@pytest.mark.parametrize("shape", [(7, 5), (1, 9), (16, 17)])
def test_divergence_is_the_negative_adjoint_of_the_gradient(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    u, p = rng.normal(size=shape), rng.normal(size=(2, *shape))
    p[0, :, -1] = 0
    p[1, -1, :] = 0
    assert np.sum(reference.gradient(u) * p) == pytest.approx(-np.sum(u * reference.divergence(p)), rel=1e-12)


def test_the_dual_step_keeps_p_where_the_operators_are_adjoint() -> None:
    p = np.zeros((2, 6, 8))
    for seed in range(3):
        p = reference.dual_step(np.random.default_rng(seed).normal(size=(6, 8)), p, TVL1Params())
    assert np.all(p[0, :, -1] == 0)
    assert np.all(p[1, -1, :] == 0)
    assert np.any(p != 0)


def test_the_dual_field_stays_in_the_unit_ball() -> None:
    p = np.zeros((2, 9, 9))
    u = np.random.default_rng(0).normal(scale=100, size=(9, 9))
    for _ in range(50):
        p = reference.dual_step(u, p, TVL1Params())
    norms = np.hypot(*p)
    assert norms.max() <= 1 + 1e-12
    assert norms.max() > 0.99


def test_the_threshold_brings_rho_to_zero_or_as_near_as_lambda_theta_allows() -> None:
    rng = np.random.default_rng(2)
    at = reference.Linearisation(rng.normal(size=(8, 8)), rng.normal(size=(8, 8)), rng.normal(scale=0.1, size=(8, 8)))
    u = np.zeros((2, 8, 8))
    v = reference.threshold_step(at, u, TVL1Params())
    rho_before, rho_after = at.constant, at.constant + at.ix * v[0] + at.iy * v[1]
    reach = TVL1Params().lambda_ * TVL1Params().theta * at.squared_gradient
    np.testing.assert_allclose(np.abs(rho_after), np.maximum(np.abs(rho_before) - reach, 0), atol=1e-12)
    assert np.any(np.abs(rho_after) < 1e-12)
    assert np.any(np.abs(rho_after) > 1e-3)


def test_rho_at_the_point_of_linearisation_is_the_warped_difference() -> None:
    first, second = (frame.astype(np.float64) for frame in textured_pair(20, 24, (0.7, -0.3)))
    u = np.full((2, 20, 24), 0.4)
    at = reference.linearise(first, second, u)
    np.testing.assert_allclose(at.constant + at.ix * u[0] + at.iy * u[1], reference.warp(second, u) - first, atol=1e-9)


@pytest.mark.parametrize("size", [3, 5])
def test_median_equals_opencv(size: int) -> None:
    image = np.random.default_rng(3).normal(size=(13, 10)).astype(np.float32)
    np.testing.assert_array_equal(reference.median(image, size), cv2.medianBlur(image, size))


@pytest.mark.parametrize("step", [0.8, 0.5, 0.65])
def test_pyramid_equals_opencv_up_to_rounding(step: float) -> None:
    image = np.random.default_rng(4).random((61, 87)).astype(np.float32) * 255
    scales = reference.pyramid(image, TVL1Params(scale_step=step, num_scales=4))
    assert len(scales) > 1
    for finer, coarser in itertools.pairwise(scales):
        expected = cv2.resize(finer, None, fx=step, fy=step, interpolation=cv2.INTER_LINEAR)
        assert coarser.shape == expected.shape
        np.testing.assert_allclose(coarser, expected, atol=1e-3)


def test_pyramid_sizes_at_340x256_are_those_of_opencv() -> None:
    scales = reference.pyramid(np.zeros((256, 340)), TVL1Params())
    assert [scale.shape[::-1] for scale in scales] == [(340, 256), (272, 205), (218, 164), (174, 131), (139, 105)]


def test_enlarged_flow_equals_opencv_up_to_rounding() -> None:
    u = np.random.default_rng(5).normal(size=(2, 17, 23)).astype(np.float32)
    expected = np.stack([cv2.resize(component, (29, 21), interpolation=cv2.INTER_LINEAR) * 1.25 for component in u])
    np.testing.assert_allclose(reference.enlarge(u, (21, 29), 0.8), expected, atol=1e-5)


def test_warp_by_whole_pixels_moves_the_image_and_is_zero_outside() -> None:
    image = np.random.default_rng(6).random((9, 12))
    u = np.zeros((2, 9, 12))
    u[0], u[1] = 3, -2
    warped = reference.warp(image, u)
    np.testing.assert_allclose(warped[2:, :-3], image[:-2, 3:], atol=1e-12)
    assert np.all(warped[:2] == 0)
    assert np.all(warped[:, -3:] == 0)


def test_warp_by_multiples_of_a_32nd_pixel_equals_opencv() -> None:
    rng = np.random.default_rng(7)
    image = rng.random((20, 30)).astype(np.float32) * 255
    u = (rng.integers(-200, 200, size=(2, 20, 30)) / 32).astype(np.float32)
    x, y = np.meshgrid(np.arange(30, dtype=np.float32), np.arange(20, dtype=np.float32))
    expected = cv2.remap(image, x + u[0], y + u[1], cv2.INTER_CUBIC)
    np.testing.assert_allclose(reference.warp(image, u), expected, atol=1e-3)


def test_equal_frames_give_exactly_zero_flow() -> None:
    frame = np.random.default_rng(8).integers(0, 256, size=(24, 31), dtype=np.uint8)
    assert not reference.solve(frame, frame).any()


@pytest.mark.parametrize("motion", [(1.5, -0.75), (-2.0, 1.0)])
def test_a_moved_texture_gives_its_motion(motion: tuple[float, float]) -> None:
    first, second = textured_pair(48, 64, motion)
    u = reference.solve(first, second)[:, 6:-6, 6:-6]
    assert np.hypot(u[0] - motion[0], u[1] - motion[1]).mean() < 0.1


def test_the_solution_lowers_the_energy() -> None:
    first, second = textured_pair(40, 40, (1.2, 0.6))
    params = TVL1Params()
    u = reference.solve(first, second, params)
    assert energy(first, second, u, params) < 0.3 * energy(first, second, np.zeros_like(u), params)


def test_float32_and_float64_agree() -> None:
    first, second = textured_pair(40, 52, (0.8, 0.5))
    single, double = reference.solve(first, second, dtype=np.float32), reference.solve(first, second)
    assert single.dtype == np.float32
    assert double.dtype == np.float64
    assert np.abs(single - double).mean() < 0.01  # a rounding may change the iteration at which a loop stops


@pytest.mark.parametrize("name", ["opencv", "paper", "denseflow"])
def test_reference_and_compiled_solver_agree(name: str) -> None:
    # So small an epsilon never stops a loop: the two then do the same iterations, and differ by rounding only.
    params = replace(TVL1Params.preset(name), epsilon=1e-9, inner_iterations=20)
    first, second = textured_pair(39, 53, (1.3, -0.9))
    compiled = CpuSolver(39, 53, params).solve(first, second)
    bound_px = 2e-3 if OPENCV >= 5 else 0.03  # OpenCV 4 rounds warped coordinates to 1/32 px
    assert np.hypot(*(reference.solve(first, second, params, np.float32) - compiled)).mean() < bound_px


def test_the_stopping_rule_is_that_of_the_compiled_solver() -> None:
    first, second = textured_pair(39, 53, (1.3, -0.9))
    compiled = CpuSolver(39, 53).solve(first, second)
    assert np.hypot(*(reference.solve(first, second, dtype=np.float32) - compiled)).mean() < 0.03


def test_on_a_crop_of_middlebury_the_reference_is_as_near_the_truth_as_the_compiled_solver(shared_data: Path) -> None:
    folder = shared_data / "flow_gt" / "middlebury" / "RubberWhale"
    first, second = (cv2.imread(str(folder / name), cv2.IMREAD_GRAYSCALE) for name in ("frame10.png", "frame11.png"))
    truth = read_flo(folder / "flow10.flo")
    window = np.s_[200:300, 160:280]
    known = np.abs(truth[window]).max(axis=2) < 1e9
    errors_px = [
        np.hypot(*(u - truth[window].transpose(2, 0, 1)))[known].mean()
        for u in (reference.solve(first[window], second[window]), CpuSolver(100, 120).solve(first[window], second[window]))
    ]
    assert errors_px[0] < 0.35
    assert errors_px[0] == pytest.approx(errors_px[1], rel=0.01 if OPENCV >= 5 else 0.05)


def test_frames_of_two_sizes_or_too_small_are_refused() -> None:
    with pytest.raises(ParameterError, match="one size"):
        reference.solve(np.zeros((20, 20)), np.zeros((20, 21)))
    with pytest.raises(ParameterError, match="16 px"):
        reference.solve(np.zeros((15, 20)), np.zeros((15, 20)))


def read_flo(path: Path) -> np.ndarray:
    """Read Middlebury's flow format: float32 (H, W, 2), where values above 1e9 are unknown."""
    raw = path.read_bytes()
    assert raw[:4] == b"PIEH"
    width, height = np.frombuffer(raw, "<i4", 2, 4)
    return np.frombuffer(raw, "<f4", 2 * width * height, 12).reshape(height, width, 2)
