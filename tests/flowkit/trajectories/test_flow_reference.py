"""Farneback's flow, step by step: polynomials are recovered, equations are solved, motions are found."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from textures import moving_texture

from flowkit.trajectories import flow_reference as reference
from flowkit.trajectories.pyramid import Pyramid


def flows_of(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, ...]:
    pyramid = Pyramid(*first.shape)
    return reference.level_flows(reference.expand(first, pyramid), reference.expand(second, pyramid))


def test_the_expansion_of_a_polynomial_is_the_polynomial() -> None:
    y, x = np.mgrid[-20:21, -20:21].astype(np.float32)
    image = 100 + 3 * x - 2 * y + 0.5 * x * x - 0.25 * y * y + 0.125 * x * y
    assert np.allclose(reference.expand_level(image)[20, 20], [3, -2, 0.5, -0.25, 0.125], atol=2e-4)
    at = reference.expand_level(image)[22, 17]  # around x = -3, y = 2
    assert np.allclose(at, [3 - 3 + 0.25, -2 - 1 - 0.375, 0.5, -0.25, 0.125], atol=2e-4)


def test_a_moved_polynomial_gives_equations_that_its_motion_satisfies() -> None:
    y, x = np.mgrid[-30:31, -30:31].astype(np.float32)
    motion = np.array([1.5, -0.75], np.float32)
    pictures = [5 * u * u + 3 * v * v + 2 * u * v + 40 * u for u, v in ((x, y), (x - motion[0], y - motion[1]))]
    first, second = map(reference.expand_level, pictures)
    for start in (np.zeros(2), motion, np.array([3, 2])):
        flow = np.broadcast_to(start.astype(np.float32), (*x.shape, 2))
        solved = reference.solve(reference.matrices(first, second, flow))
        assert np.allclose(solved[15:-15, 15:-15], motion, atol=5e-3)


def test_samples_are_bilinear_and_outside_where_a_neighbour_is_missing() -> None:
    image = np.arange(12, dtype=np.float32).reshape(3, 4, 1)
    flow = np.full((3, 4, 2), 0.5, np.float32)
    sampled, is_inside = reference.sample(image, flow)
    assert np.allclose(sampled[:2, :3, 0], image[:2, :3, 0] + 0.5 + 2)
    assert is_inside.tolist() == [[True] * 3 + [False]] * 2 + [[False] * 4]
    assert not reference.sample(image, np.full((3, 4, 2), 1e30, np.float32))[1].any()


@pytest.mark.parametrize("shape", [(12, 20), (11, 5), (5, 10), (1, 1)])
def test_equations_weigh_less_on_the_rim(shape: tuple[int, int]) -> None:
    weights = reference.rim((*shape, 2))
    assert weights.shape == shape
    assert np.array_equal(weights, weights[::-1, ::-1])
    assert weights[0, 0] > 0
    if min(shape) > 10:
        assert weights[5:-5, 5:-5].min() == 1
        assert np.allclose(weights[:6, 6], [0.14, 0.14, 0.4472, 0.4472, 0.4472, 1])


def test_equal_frames_have_no_flow_at_any_level_but_for_what_the_right_and_lower_rim_contribute() -> None:
    frame = np.random.default_rng(2).integers(0, 256, (160, 200), np.uint8)
    pyramid = Pyramid(*frame.shape)
    for flow in flows_of(frame, frame)[-1:]:  # finer levels start from this one
        assert not flow[:-16, :-16].any()
        assert np.abs(flow).max() < 1.5  # the last column has no neighbour, so it counts as outside of the second frame
    inner = np.zeros_like(frame)
    margin = int(24 * pyramid.scales[-1])
    inner[:-margin, :-margin] = frame[:-margin, :-margin]
    assert all(not flow.any() for flow in flows_of(inner, inner))


@pytest.mark.parametrize("step", [(0.3, 0.2), (2.0, -1.0), (6.0, 4.0)])
def test_the_motion_of_a_texture_is_found_at_every_level(step: tuple[float, float]) -> None:
    frames = moving_texture(2, 120, 160, step=step, noise=0)
    for scale, flow in zip(Pyramid(120, 160).scales, flows_of(*frames), strict=True):
        inner = flow[12:-12, 12:-12] * scale
        assert np.abs(inner - step).mean() < 0.05 * np.hypot(*step) + 0.1


def test_one_level_without_median_is_opencvs_flow() -> None:
    first, second = moving_texture(2, 40, 44, step=(0.8, -0.5), noise=0)
    pyramid = Pyramid(31, 44)  # one level
    first, second = first[:31], second[:31]
    blurred = [np.ascontiguousarray(pyramid.smooth_levels(frame)[0]) for frame in (first, second)]
    expansions = [reference.expand_level(image) for image in blurred]
    flow = np.zeros((31, 44, 2), np.float32)
    for _ in range(2):
        flow = reference.solve(reference.blur(reference.matrices(*expansions, flow)))
    opencv = cv2.calcOpticalFlowFarneback(
        first,
        second,
        None,
        pyr_scale=0.5,
        levels=1,
        winsize=10,
        iterations=2,
        poly_n=7,
        poly_sigma=1.5,
        flags=cv2.OPTFLOW_FARNEBACK_GAUSSIAN,
    )
    assert np.abs(flow - opencv).max() < 1e-3


def test_the_median_removes_a_single_wrong_vector() -> None:
    flow = np.ones((9, 9, 2), np.float32)
    flow[4, 4] = 50
    assert (reference.median(flow) == 1).all()
