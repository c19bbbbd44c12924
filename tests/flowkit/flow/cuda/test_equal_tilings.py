"""With the same number of iterations per launch, all tiles and patches give the same bits, on frames that no tile fits.

The arithmetic of a pixel does not depend on the tile in which it lies, and every product that `iterate` adds to something is an
explicit fmaf, so that no compiler rounds it differently in another variant. What is known of one tiling, such as its distance from the
strict solver on real videos, therefore holds for all others of the same depth and precision.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import textures

from flowkit.flow.cuda.solver import CudaSolver
from flowkit.flow.cuda.tiles import HALF_VARIANTS, MAX_FUSED_ITERATIONS, NUM_FUSED_ITERATIONS, VARIANTS, TileShape, Tiling
from flowkit.flow.params import TVL1Params

sys.path.append(str(Path(__file__).parents[3] / "support" / "emulation"))
from emulated_device import EmulatedDevice, has_compiler
from kernel_launches import (
    DUAL_IS_ZERO,
    HALVES,
    OF_ONE_ROW,
    OF_TWO_ROWS,
    SHARED,
    SMALL_TILE,
    aligned,
    iterate,
    iterate_inputs,
    padded,
)

pytestmark = pytest.mark.skipif(not has_compiler(), reason="needs g++ to build the kernels for the CPU")

PRECISIONS = {"float32": (*VARIANTS, SMALL_TILE, OF_TWO_ROWS, OF_ONE_ROW, SHARED), "half": tuple(HALVES)}
ONE_PIXEL_MORE = {(tile.height + 1, tile.width + 1) for tile in (*VARIANTS, *HALF_VARIANTS)}  # than a tile: height, width
SIZES = sorted({(33, 47), (64, 65), (17, 19), (61, 83)} | ONE_PIXEL_MORE)
DEPTHS = range(1, MAX_FUSED_ITERATIONS + 1)


def bits_after_a_launch(tile: TileShape, depth: int, height: int, width: int) -> tuple[bytes, bytes, Any, float]:
    """Return the bits of the flow and of the dual variables of two pairs after a launch, which pairs go on, and the sum of errors."""
    data, u, p = iterate_inputs(np.random.default_rng(5), height, width, 2)
    device, pitch = EmulatedDevice(), (width + 3) & ~3
    flow, dual = aligned((2, 2, 2, height, pitch)), aligned((2, 2, 4, height, pitch))
    flow[0], dual[0] = padded(u), padded(np.float32(0.3) * p)
    errors = np.full((2, np.prod(Tiling(tile, depth).grid(pitch, height))), np.nan, np.float32)
    state = [0, DUAL_IS_ZERO]
    _, goes_on, _ = iterate(
        device,
        width,
        tile,
        padded(data),
        flow,
        dual,
        num_iterations=depth,
        threshold=1e-3,
        listed=[1, 0],
        state=state,
        partial_errors=errors,
    )
    return flow.tobytes(), dual.tobytes(), goes_on, float(errors.sum(dtype=np.float64))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_all_tiles_and_patches_give_the_same_bits_after_a_launch(height: int, width: int, precision: str) -> None:
    seen = set()
    for depth in DEPTHS:
        tiles = [tile for tile in PRECISIONS[precision] if Tiling(tile, depth).is_possible]
        results = {tile: bits_after_a_launch(tile, depth, height, width) for tile in tiles}
        flow, dual, goes_on, error = results[tiles[0]]
        for tile, (*bits, others_error) in results.items():
            assert bits == [flow, dual, goes_on], (depth, str(tile))
            assert others_error == pytest.approx(error, rel=1e-5), (depth, str(tile))  # a sum in another order
        seen.add(flow)
    assert len(tiles) >= 2
    assert len(seen) == len(DEPTHS)  # the depth does matter


def test_the_precisions_do_differ() -> None:
    assert bits_after_a_launch(SMALL_TILE, 3, 33, 47)[0] != bits_after_a_launch(HALVES[0], 3, 33, 47)[0]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("height", "width"), [(33, 47), (65, 65)])
def test_all_tiles_and_patches_give_the_same_flow_in_equally_many_launches(height: int, width: int, precision: str) -> None:
    frames = textures.moving_texture(2, height, width, step=(0.9, -0.6), noise=0)
    params = TVL1Params(num_scales=2, num_warps=2, inner_iterations=10, outer_iterations=1)
    for depth in range(1, NUM_FUSED_ITERATIONS + 1):
        results = []
        for tile in PRECISIONS[precision]:
            devices: list[EmulatedDevice] = []

            def emulated(devices: list[EmulatedDevice] = devices) -> EmulatedDevice:
                devices.append(EmulatedDevice())
                return devices[0]

            one = {"max_pairs": 1, "num_lanes": 1}
            with CudaSolver(height, width, params, device=emulated, tile=tile, num_fused_iterations=depth, **one) as solver:
                flow = solver.solve(frames)
            launches = [arguments["num_iterations"] for kernel, _, arguments in devices[0].launches if kernel == "iterate"]
            results.append((flow.tobytes(), launches))
        assert [result == results[0] for result in results] == [True] * len(PRECISIONS[precision]), depth
