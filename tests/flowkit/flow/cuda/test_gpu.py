"""The GPU solver on a real GPU; benchmarks/gpu_suite.py measures and gates far more."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from flowkit.flow import compute_flow
from flowkit.flow.cuda.solver import CudaSolver
from flowkit.flow.params import TVL1Params
from flowkit.quantise import Quantiser

sys.path.append(str(Path(__file__).parents[4] / "benchmarks"))
from flow_gates import GPU_GATES, FlowDistance

pytestmark = pytest.mark.needs_cuda


@pytest.fixture(scope="module")
def frames() -> Any:
    noise = np.random.default_rng(0).uniform(0, 1, (296, 380)).astype(np.float32)
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2.5), None, 0, 255, cv2.NORM_MINMAX)
    shifts = [np.array([[1, 0, 0.9 * k - 20], [0, 1, -0.6 * k - 20]], np.float32) for k in range(8)]
    return np.stack([cv2.warpAffine(texture, shift, (340, 256)) for shift in shifts]).round().astype(np.uint8)


@pytest.mark.parametrize("size", [(256, 340), (131, 203), (31, 45)])
def test_flow_is_within_the_gates_of_the_strict_solver(frames: Any, size: tuple[Any, ...]) -> None:
    cut = np.ascontiguousarray(frames[:, : size[0], : size[1]])
    distance = FlowDistance.between(compute_flow(cut, device="cuda"), compute_flow(cut))
    room = 1 if min(size) > 100 else 3  # a small frame is mostly border
    assert distance.within(FlowDistance(*(room * gate for gate in vars(GPU_GATES).values()))), str(distance)


def test_bytes_are_the_same_every_time_in_any_batch_and_those_of_the_quantiser(frames: Any) -> None:
    flow = compute_flow(frames, device="cuda")
    for max_pairs in (128, 3, 1):
        with CudaSolver(256, 340, TVL1Params(), bound=20.0, max_pairs=max_pairs) as solver:
            for _ in range(3):
                assert np.array_equal(solver.solve(frames), Quantiser(20.0).encode(flow))


def test_equal_frames_give_exactly_zero(frames: Any) -> None:
    assert not compute_flow(np.repeat(frames[:1], 4, axis=0), device="cuda").any()
