"""The compiled flow is that of the reference, for frames of any size and any content."""

from __future__ import annotations

import numpy as np
import pytest
from textures import moving_texture

from flowkit.trajectories import flow_kernels, flow_reference, level_flow
from flowkit.trajectories.pyramid import Pyramid

SHAPES = [(1, 1), (1, 40), (40, 1), (2, 3), (5, 5), (15, 16), (16, 15), (31, 17), (33, 200), (48, 64), (97, 131)]


def random_pair(shape: tuple[int, int], kind: str) -> np.ndarray:
    """Return two frames (2, H, W): a moving texture; noise; or black and white blocks, along whose edges the motion is ambiguous."""
    rng = np.random.default_rng(shape[0] * 1000 + shape[1])
    if kind == "texture":
        return moving_texture(2, *shape, step=(2.3, -1.1), seed=shape[0])
    if kind == "noise":
        return rng.integers(0, 256, (2, *shape), np.uint8)
    blocks = rng.integers(0, 2, (2, *(-(-side // 8) for side in shape)), np.uint8) * np.uint8(255)
    return blocks.repeat(8, axis=1).repeat(8, axis=2)[:, : shape[0], : shape[1]]


def planes_of(expansion: level_flow.Expansion) -> np.ndarray:
    """Return an expansion as (h, w, 5)."""
    height, width = expansion.height, expansion.width
    shape = height + 1, flow_kernels.row_length(width)
    split = 4 * shape[0] * shape[1]
    quads, singles = expansion.values[:split].reshape(*shape, 4), expansion.values[split:].reshape(*shape, 1)
    return np.dstack([quads, singles])[:height, :width]


@pytest.mark.parametrize("kind", ["texture", "noise", "blocks"])
@pytest.mark.parametrize("shape", SHAPES)
def test_expansion_and_flow_are_those_of_the_reference(shape: tuple[int, int], kind: str) -> None:
    frames, pyramid = random_pair(shape, kind), Pyramid(*shape)
    compiled, expected = ([module.expand(frame, pyramid) for frame in frames] for module in (level_flow, flow_reference))
    for levels, expected_levels in zip(compiled, expected, strict=True):
        for level, expected_level in zip(levels, expected_levels, strict=True):
            assert np.abs(planes_of(level) - expected_level).max() < 1e-4
    flows, expected_flows = level_flow.level_flows(*compiled), flow_reference.level_flows(*expected)
    for flow, expected_flow in zip(flows, expected_flows, strict=True):
        assert flow.shape == expected_flow.shape
        assert flow.dtype == np.float32
        assert flow.flags.c_contiguous
        difference = np.abs(flow - expected_flow)
        assert difference.mean() < (0.05 if kind == "blocks" else 1e-4)  # one that is ambiguous may turn by the last bit
        assert np.median(difference) < 1e-4
        if kind != "blocks":
            assert difference.max() < 5e-3


@pytest.mark.parametrize("magnitude", [0, 1, 10, 1000, 1e9])
def test_an_iteration_from_any_flow_is_that_of_the_reference(magnitude: float) -> None:
    height, width, factor = 31, 50, np.float32(1.25)  # one level
    frames, pyramid = moving_texture(2, height, width), Pyramid(height, width)
    first, second = (level_flow.expand(frame, pyramid)[0] for frame in frames)
    start = (np.random.default_rng(0).normal(size=(height, width, 2)) * magnitude).astype(np.float32)
    flow = np.zeros(2 * flow_kernels.plane_length(height, width), np.float32)
    planes = flow.reshape(2, height + 1, flow_kernels.row_length(width))[:, :height, :width]
    planes[:] = np.moveaxis(start, 2, 0)
    scratch = np.zeros(flow_kernels.ITERATION_SCRATCH_ROWS * flow_kernels.scratch_length(width), np.float32)
    weights, ramp, blur = level_flow._tables(height, width)
    flow_kernels.iterate(first.values, second.values, flow, factor, scratch, blur, weights, ramp, height, width)
    equations = flow_reference.matrices(*map(planes_of, (first, second)), start * factor)
    expected = flow_reference.solve(flow_reference.blur(equations))
    assert np.allclose(np.moveaxis(planes, 0, 2), expected, rtol=1e-3, atol=1e-3 * max(magnitude, 1))


def test_equal_frames_give_equal_results_whatever_ran_before() -> None:
    frames, pyramid = random_pair((50, 70), "noise"), Pyramid(50, 70)
    first, second = (level_flow.expand(frame, pyramid) for frame in frames)
    flows = level_flow.level_flows(first, second)
    level_flow.level_flows(second, first)
    again = level_flow.level_flows(*(level_flow.expand(frame.copy(), pyramid) for frame in frames))
    assert all(np.array_equal(flow, other) for flow, other in zip(flows, again, strict=True))
