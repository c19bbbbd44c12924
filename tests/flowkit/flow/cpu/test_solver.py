"""The compiled solver: strict has the bits of the installed OpenCV, fast is within its tolerances, and both stream.

To test against another OpenCV than the installed one, give it an environment of its own:

    python -m venv other
    other/bin/pip install numpy numba pytest av opencv-contrib-python-headless==4.14.0.94
    PYTHONPATH=. other/bin/python -m pytest tests/flowkit/flow/cpu tests/flowkit/flow/test_reference.py
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from textures import moving_texture

from flowkit.errors import ParameterError
from flowkit.flow import PRESETS, TVL1Params, compute_flow, to_grey
from flowkit.flow.cpu.solver import CpuSolver

if TYPE_CHECKING:
    from pathlib import Path

needs_opencv_flow = pytest.mark.skipif(not hasattr(cv2, "optflow"), reason="needs OpenCV's contrib module optflow")


def opencv_flow(first: np.ndarray, second: np.ndarray, params: TVL1Params | None = None) -> np.ndarray:
    """Return the flow of OpenCV's DualTVL1, (2, H, W). Each call makes a new object, because calc reduces its number of scales."""
    p = params or TVL1Params()
    solver = cv2.optflow.DualTVL1OpticalFlow_create(
        tau=p.tau,
        lambda_=p.lambda_,
        theta=p.theta,
        nscales=p.num_scales,
        warps=p.num_warps,
        epsilon=p.epsilon,
        innnerIterations=p.inner_iterations,
        outerIterations=p.outer_iterations,
        scaleStep=p.scale_step,
        gamma=0.0,
        medianFiltering=p.median_size,
    )
    return solver.calc(first, second, None).transpose(2, 0, 1)


def real_pairs(shared_data: Path, num_clips: int, frame: int = 20) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return consecutive grey frames of real clips at 340x256."""
    av = pytest.importorskip("av")
    pairs = []
    for path in sorted((shared_data / "videos" / "ucf101").glob("*/*.avi"))[:: 18 // num_clips][:num_clips]:
        grey = []
        with av.open(str(path)) as container:
            for index, image in enumerate(container.decode(video=0)):
                if index >= frame:
                    rgb = cv2.resize(image.to_ndarray(format="rgb24"), (340, 256), interpolation=cv2.INTER_CUBIC)
                    grey.append(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))
                if len(grey) == 2:
                    break
        pairs.append((grey[0], grey[1]))
    return pairs


def levels(flow: np.ndarray) -> np.ndarray:
    """Return flow as bytes with a bound of 20 px."""
    return np.clip(np.rint(flow * 127 / 20), -127, 127)


@needs_opencv_flow
@pytest.mark.parametrize(
    ("height", "width"),
    [(16, 16), (16, 47), (47, 16), (17, 33), (31, 64), (64, 31), (20, 300), (257, 18), (97, 129), (180, 201)],
)
def test_strict_equals_opencv_at_any_size(height: int, width: int) -> None:
    first, second = moving_texture(2, height, width)
    np.testing.assert_array_equal(CpuSolver(height, width).solve(first, second), opencv_flow(first, second))


@needs_opencv_flow
@pytest.mark.parametrize("name", PRESETS)
def test_strict_equals_opencv_with_every_preset(name: str) -> None:
    params = TVL1Params.preset(name)
    first, second = moving_texture(2, 67, 90)
    np.testing.assert_array_equal(CpuSolver(67, 90, params).solve(first, second), opencv_flow(first, second, params))


@needs_opencv_flow
@pytest.mark.parametrize(
    "changed",
    [
        {"tau": 0.1},
        {"lambda_": 0.05},
        {"theta": 0.7},
        {"num_scales": 1},
        {"num_scales": 9},
        {"scale_step": 0.5},
        {"scale_step": 0.65},
        {"scale_step": 0.9, "num_scales": 8},
        {"num_warps": 1},
        {"epsilon": 0.1},
        {"epsilon": 1e-6, "inner_iterations": 10},
        {"inner_iterations": 1},
        {"inner_iterations": 7, "outer_iterations": 3},
        {"outer_iterations": 1},
        {"median_size": 1},
        {"median_size": 3},
        {"tau": 400.0, "num_warps": 2, "outer_iterations": 2},
    ],
    ids=str,
)
def test_strict_equals_opencv_with_every_parameter(changed: dict[str, float]) -> None:
    params = TVL1Params(**changed)
    first, second = moving_texture(2, 60, 75, seed=3)
    np.testing.assert_array_equal(CpuSolver(60, 75, params).solve(first, second), opencv_flow(first, second, params))


@needs_opencv_flow
def test_strict_equals_opencv_on_noise() -> None:
    first, second = np.random.default_rng(0).integers(0, 256, size=(2, 90, 111), dtype=np.uint8)
    np.testing.assert_array_equal(CpuSolver(90, 111).solve(first, second), opencv_flow(first, second))


@needs_opencv_flow
def test_strict_equals_opencv_where_only_a_spot_moves() -> None:
    # Far from the spot u decays through the denormal numbers, where a shortcut that loses bits would show.
    first = np.full((40, 240), 90, np.uint8)
    second = first.copy()
    first[16:22, 50:56] = second[16:22, 53:59] = 200
    params = TVL1Params(num_scales=1, num_warps=2, epsilon=1e-6, inner_iterations=100, outer_iterations=1, median_size=1)
    flow = CpuSolver(40, 240, params).solve(first, second)
    assert np.count_nonzero(np.abs(flow[flow != 0]) < np.finfo(np.float32).tiny) > 100
    np.testing.assert_array_equal(flow, opencv_flow(first, second, params))
    np.testing.assert_array_equal(CpuSolver(40, 240).solve(first, second), opencv_flow(first, second))


@needs_opencv_flow
def test_strict_equals_opencv_on_float_frames() -> None:
    first, second = moving_texture(2, 50, 61)
    first, second = (np.ascontiguousarray(frame / np.float32(255) * np.float32(0.9)) for frame in (first, second))
    assert first.dtype == np.float32
    np.testing.assert_array_equal(CpuSolver(50, 61).solve(first, second), opencv_flow(first, second))


@needs_opencv_flow
def test_strict_equals_opencv_on_real_clips(shared_data: Path) -> None:
    solver = CpuSolver(256, 340)
    for first, second in real_pairs(shared_data, 3):
        np.testing.assert_array_equal(solver.solve(first, second), opencv_flow(first, second))


@needs_opencv_flow
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in ("Venus", "RubberWhale", "Dimetrodon")])
def test_on_middlebury_strict_equals_opencv_and_fast_is_as_near_the_truth(shared_data: Path, name: str) -> None:
    folder = shared_data / "flow_gt" / "middlebury" / name
    first, second = (cv2.imread(str(folder / file), cv2.IMREAD_GRAYSCALE) for file in ("frame10.png", "frame11.png"))
    raw = (folder / "flow10.flo").read_bytes()
    truth = np.frombuffer(raw, "<f4", 2 * first.size, 12).reshape(*first.shape, 2).transpose(2, 0, 1)
    known = np.abs(truth).max(axis=0) < 1e9
    strict, fast = (CpuSolver(*first.shape, mode=mode).solve(first, second) for mode in ("strict", "fast"))
    np.testing.assert_array_equal(strict, opencv_flow(first, second))
    strict_px, fast_px = (np.hypot(*(flow - truth))[known].mean() for flow in (strict, fast))
    assert strict_px == pytest.approx({"RubberWhale": 0.156, "Dimetrodon": 0.179, "Venus": 0.304}[name], rel=0.03)
    assert fast_px <= 1.01 * strict_px


def test_fast_is_within_its_gates_on_real_clips(shared_data: Path) -> None:
    strict, fast = CpuSolver(256, 340), CpuSolver(256, 340, mode="fast")
    mean_px, p99_px, differing = [], [], []
    for first, second in real_pairs(shared_data, 6):
        exact, estimate = strict.solve(first, second), fast.solve(first, second)
        error_px = np.hypot(*(estimate - exact))
        mean_px.append(error_px.mean())
        p99_px.append(np.percentile(error_px, 99))
        differing.append(np.mean(np.abs(levels(estimate) - levels(exact)) > 1))
    assert np.mean(mean_px) <= 0.02
    assert np.mean(p99_px) <= 0.15
    assert np.mean(differing) <= 0.003
    assert np.mean(mean_px) > 0, "fast was not run"


@pytest.mark.parametrize("mode", ["strict", "fast"])
@pytest.mark.parametrize("shape", [(16, 16), (33, 70)])
def test_equal_frames_give_exactly_zero_flow(shape: tuple[int, int], mode: str) -> None:
    frame = np.random.default_rng(1).integers(0, 256, size=shape, dtype=np.uint8)
    assert not CpuSolver(*shape, mode=mode).solve(frame, frame).any()


@pytest.mark.parametrize("mode", ["strict", "fast"])
def test_flow_leads_to_where_the_texture_went(mode: str) -> None:
    flow = compute_flow(moving_texture(3, 70, 90, step=(2.3, -1.1)), mode=mode)[:, :, 8:-8, 8:-8]
    assert flow[:, 0].mean() == pytest.approx(2.3, abs=0.15)
    assert flow[:, 1].mean() == pytest.approx(-1.1, abs=0.15)


@pytest.mark.parametrize("mode", ["strict", "fast"])
def test_a_video_in_parts_gives_the_same_bytes(mode: str) -> None:
    frames = moving_texture(6, 40, 56)
    whole = CpuSolver(40, 56, mode=mode).flows(frames)
    assert whole.shape == (5, 2, 40, 56)
    assert whole.dtype == np.float32

    stream = CpuSolver(40, 56, mode=mode)
    batches = [stream.flows(frames[:1]), stream.flows(frames[1:4]), stream.flows(frames[4:4]), stream.flows(frames[4:])]
    assert [len(batch) for batch in batches] == [0, 3, 0, 2]
    np.testing.assert_array_equal(np.concatenate(batches), whole)

    apart = [CpuSolver(40, 56, mode=mode).flows(frames[a:b]) for a, b in ((0, 3), (2, 5), (4, 6))]
    np.testing.assert_array_equal(np.concatenate(apart), whole)


def test_a_solver_keeps_nothing_of_earlier_pairs() -> None:
    frames = moving_texture(4, 45, 60, seed=5)
    solver = CpuSolver(45, 60)
    once = solver.solve(frames[0], frames[1])
    kept = once.copy()
    solver.solve(frames[3], frames[2])
    np.testing.assert_array_equal(once, kept)
    np.testing.assert_array_equal(solver.solve(frames[0], frames[1]), kept)


def test_frames_are_left_as_they_were() -> None:
    frames = moving_texture(2, 32, 40)
    frames.setflags(write=False)
    assert compute_flow(frames).any()


def test_threads_of_opencv_do_not_change_the_bytes() -> None:
    first, second = moving_texture(2, 120, 150)
    one = CpuSolver(120, 150).solve(first, second)
    cv2.setNumThreads(2)
    two = CpuSolver(120, 150).solve(first, second)
    cv2.setNumThreads(1)
    np.testing.assert_array_equal(two, one)


def test_iterations_are_counted() -> None:
    first, second = moving_texture(2, 40, 56)
    solver = CpuSolver(40, 56, TVL1Params(num_scales=1, num_warps=3, inner_iterations=4, outer_iterations=2, epsilon=1e-9))
    solver.solve(first, second)
    assert solver.iterations == 3 * 2 * 4
    assert solver.pixel_iterations == 3 * 2 * 4 * 40 * 56


def test_colour_frames_are_weighed_as_opencv_does() -> None:
    colour = np.random.default_rng(2).integers(0, 256, size=(3, 20, 24, 3), dtype=np.uint8)
    expected = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in colour])
    np.testing.assert_array_equal(to_grey(colour), expected)
    np.testing.assert_array_equal(compute_flow(colour), compute_flow(expected))


@pytest.mark.parametrize("num_frames", [0, 1])
def test_fewer_than_two_frames_give_no_flow(num_frames: int) -> None:
    flow = compute_flow(np.zeros((num_frames, 20, 30), np.uint8))
    assert flow.shape == (0, 2, 20, 30)
    assert flow.dtype == np.float32


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        (np.zeros((2, 20, 30)), {}, "float64"),
        (np.zeros((20, 30), np.uint8), {}, r"\(20, 30\)"),
        (np.zeros((2, 20, 30, 4), np.uint8), {}, r"\(2, 20, 30, 4\)"),
        (np.zeros((2, 15, 30), np.uint8), {}, "30x15"),
        (np.zeros((2, 20, 30), np.uint8), {"mode": "quick"}, "quick"),
        (np.zeros((2, 20, 30), np.uint8), {"device": "gpu"}, "gpu"),
        (np.zeros((2, 20, 30), np.uint8), {"device": "cuda:x"}, "cuda:x"),
        (np.zeros((2, 20, 30), np.uint8), {"device": None}, "unknown device None"),
        (np.zeros((2, 20, 30), np.uint8), {"device": "cuda", "mode": "quick"}, "quick"),
        (np.zeros((2, 20, 30), np.uint8), {"params": "paper"}, "preset"),
        (np.zeros((2, 20, 30), np.uint8), {"params": {}}, "TVL1Params"),
        (np.zeros((2, 20, 0, 3), np.uint8), {}, "0x20"),
        (np.zeros((2, 16, 32_767), np.uint8), {}, "32767x16.*fast"),
    ],
)
def test_wrong_arguments_are_named(frames: np.ndarray, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        compute_flow(frames, **options)


@pytest.mark.parametrize("values", [{"num_warps": 2**31}, {"tau": 10**400}, {"epsilon": 0}, {"theta": float("nan")}, {"num_scales": 5.0}])
def test_parameters_out_of_range_are_named(values: dict[str, float]) -> None:
    with pytest.raises(ParameterError, match=next(iter(values))):
        TVL1Params(**values)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match=next(iter(values))):
        TVL1Params.from_dict(values)


@pytest.mark.parametrize("values", [None, [], "tau", {1: 2}, {"gamma": 0.1}])
def test_foreign_parameters_are_refused(values: object) -> None:
    with pytest.raises(ParameterError):
        TVL1Params.from_dict(values)


def test_parameters_from_numpy_are_stored_as_built_in_types() -> None:
    params = TVL1Params(tau=np.float32(0.5), num_scales=np.int64(3))  # type: ignore[arg-type]
    assert params == TVL1Params(tau=0.5, num_scales=3)
    assert [type(params.tau), type(params.num_scales)] == [float, int]


def test_frames_that_do_not_fit_a_solver_are_named() -> None:
    solver = CpuSolver(20, 30)
    with pytest.raises(ParameterError, match=r"\(30, 20\)"):
        solver.flows(np.zeros((1, 30, 20), np.uint8))
    with pytest.raises(ParameterError, match="int32"):
        solver.flows(np.zeros((1, 20, 30), np.int32))
    with pytest.raises(ParameterError, match="NaN"):
        solver.flows(np.full((1, 20, 30), np.nan, np.float32))


def test_importing_the_package_loads_no_heavy_library() -> None:
    code = "import sys, flowkit.flow; print([m for m in ('cv2', 'numba', 'numpy', 'cuda') if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_the_pipeline_never_uses_opencvs_own_solver() -> None:
    code = (
        "import cv2, numpy as np\n"
        "if hasattr(cv2, 'optflow'): del cv2.optflow\n"
        "from flowkit.flow import compute_flow\n"
        "print(compute_flow(np.zeros((2, 16, 16), np.uint8)).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(1, 2, 16, 16)"
