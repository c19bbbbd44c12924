"""Each kernel of tvl1.cu, which the CPU emulates, against the corresponding operation of OpenCV or flowkit."""

from __future__ import annotations

import itertools
import re
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from flowkit.flow.cuda.batch import PIXEL_BLOCK
from flowkit.flow.cuda.plan import Quantisation
from flowkit.flow.cuda.tiles import VARIANTS
from flowkit.quantise import Quantiser

sys.path.append(str(Path(__file__).parents[3] / "support" / "emulation"))
from emulated_device import BACKWARD, FORWARD, EmulatedDevice, has_compiler
from kernel_launches import (
    DUAL_HALF,
    DUAL_IS_ZERO,
    FLOW_HALF,
    HALVES,
    OF_ONE_ROW,
    OF_TWO_ROWS,
    SHARED,
    SMALL_TILE,
    addresses,
    aligned,
    iterate,
    iterate_inputs,
    lists_of,
    padded,
    unpadded,
)

pytestmark = pytest.mark.skipif(not has_compiler(), reason="needs g++ to build the kernels for the CPU")

SIZES = [(16, 16), (17, 19), (33, 50), (61, 83)]  # height, width: square, odd, below and above a tile; all four paddings of a row


def run(device: Any, kernel: Any, rows: int, columns: int, depth: int, **arguments: Any) -> None:
    """Run a kernel with one thread per pixel."""
    grid = (-(-columns // PIXEL_BLOCK[0]), -(-rows // PIXEL_BLOCK[1]), depth)
    device.run(kernel, grid, PIXEL_BLOCK, addresses(arguments))


@pytest.fixture
def device() -> Any:
    return EmulatedDevice()


@pytest.fixture
def random() -> Any:
    return np.random.default_rng(1)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_frames_become_floats(device: Any, random: Any, height: Any, width: Any) -> None:
    frames = random.integers(0, 256, (3, height, width), dtype=np.uint8)
    image = aligned(frames.shape)
    run(device, "load_frames", height, width, 3, width=width, height=height, frames=frames, image=image)
    assert np.array_equal(image, frames)


@pytest.mark.parametrize("scale", [0.8, 0.5])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_shrinking_is_opencv_linear_resize(device: Any, random: Any, height: Any, width: Any, scale: float) -> None:
    images = random.uniform(0, 255, (2, height, width)).astype(np.float32)
    expected = np.stack([cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR) for image in images])
    small = aligned(expected.shape)
    sizes = {"width": small.shape[2], "height": small.shape[1], "source_width": width, "source_height": height}
    run(device, "shrink", *small.shape[1:], 2, **sizes, step=1 / scale, source=images, image=small)
    assert np.abs(small - expected).max() < 1e-4


def gradients_of(device: Any, images: Any) -> Any:
    num_images, height, width = images.shape
    gradients = aligned((*images.shape, 4))
    run(device, "differentiate", height, width, num_images, width=width, height=height, image=images, gradients=gradients)
    return gradients


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_gradient_is_centred_and_halved_at_borders(device: Any, random: Any, height: Any, width: Any) -> None:
    images = random.uniform(0, 255, (2, height, width)).astype(np.float32)
    gradients = gradients_of(device, images)
    around = np.pad(images, ((0, 0), (1, 1), (1, 1)), mode="edge")
    assert np.array_equal(gradients[..., 0], images)
    assert np.array_equal(gradients[..., 1], np.float32(0.5) * (around[:, 1:-1, 2:] - around[:, 1:-1, :-2]))
    assert np.array_equal(gradients[..., 2], np.float32(0.5) * (around[:, 2:, 1:-1] - around[:, :-2, 1:-1]))
    assert not gradients[..., 3].any()


@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize(("size", "coarse_size"), [((33, 50), (26, 40)), ((61, 83), (49, 66)), ((17, 33), (17, 16))])
def test_expanded_flow_is_opencv_linear_resize_times_gain(
    device: Any, random: Any, size: tuple[Any, ...], coarse_size: tuple[Any, ...], half: int
) -> None:
    (height, width), (coarse_height, coarse_width) = size, coarse_size
    capacity, stride = 3, height * ((width + 3) & ~3)
    coarse = random.normal(0, 3, (2, 2, *coarse_size)).astype(np.float32)
    flow = aligned((2, capacity, 2, stride))
    planes = padded(coarse)
    flow[half, :2, :, : planes[0, 0].size] = planes.reshape(2, 2, -1)
    sizes = {"width": width, "height": height, "source_width": coarse_width, "source_height": coarse_height}
    steps = {"step_x": coarse_width / width, "step_y": coarse_height / height, "gain": 1.25}
    state = np.full(capacity, FLOW_HALF if half else 0, np.int32)
    run(device, "expand_flow", height, width, 2, **sizes, **steps, capacity=capacity, stride=stride, flow=flow, state=state)
    got = unpadded(flow[1 - half, :2].reshape(2, 2, height, -1), width)
    expected = [[1.25 * cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in pair] for pair in coarse]
    assert np.abs(got - expected).max() < 1e-4  # a position rounds by 4e-6 px, between values that differ by up to 20


def test_coarsest_level_starts_from_zero_flow(device: Any) -> None:
    flow, state = aligned((2, 1, 2, 16 * 20)), np.zeros(1, np.int32)
    sizes = {"width": 17, "height": 16, "source_width": 0, "source_height": 0, "capacity": 1, "stride": 16 * 20}
    run(device, "expand_flow", 16, 17, 1, **sizes, step_x=0, step_y=0, gain=1.25, flow=flow, state=state)
    assert not unpadded(flow[1, 0].reshape(2, 16, 20), 17).any()


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_warp_is_cubic_remap_with_zeros_outside(device: Any, random: Any, height: Any, width: Any) -> None:
    noise = random.uniform(0, 255, (height, width, 3)).astype(np.float32)
    images = cv2.GaussianBlur(noise, (0, 0), 1.5).transpose(2, 0, 1).copy()
    gradients = gradients_of(device, images)
    displacement = random.normal(0, 4, (2, 2, height, width)).astype(np.float32)
    displacement = np.round(displacement * 32) / 32  # OpenCV 4 rounds the map to 1/32 px, OpenCV 5 does not
    displacement[0, :, 0, 0] = 1e9, -1e9  # far outside, beyond the range of integers
    stride = height * ((width + 3) & ~3)
    flow, data = aligned((2, 2, 2, stride)), aligned((2, 3, stride))
    flow[0] = padded(displacement).reshape(2, 2, stride)
    pairs, state = np.array([[0, 1], [2, 0]], np.int32), np.array([0, DUAL_IS_ZERO], np.int32)
    sizes = {"width": width, "height": height, "capacity": 2, "stride": stride}
    run(device, "warp", height, width, 2, **sizes, image=images, gradients=gradients, pairs=pairs, flow=flow, state=state, data=data)
    got = unpadded(data.reshape(2, 3, height, -1), width)
    for (first, second), (u, v), constants in zip(pairs, displacement, got, strict=True):
        map_x, map_y = np.arange(width, dtype=np.float32) + u, np.arange(height, dtype=np.float32)[:, None] + v
        planes = [np.ascontiguousarray(gradients[second, ..., k]) for k in range(3)]
        image, gx, gy = (cv2.remap(p, map_x, map_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT, borderValue=0) for p in planes)
        assert np.abs(constants[0] - gx).max() < 2e-3
        assert np.abs(constants[1] - gy).max() < 2e-3
        near = np.abs(u) < 1e6
        assert np.abs(constants[2] - (image - gx * u - gy * v - images[first]))[near].max() < 2e-2


def test_sorting_network_sorts_every_input_of_zeros_and_ones() -> None:
    source = (Path(__file__).parents[4] / "flowkit/flow/cuda/tvl1.cu").read_text()
    body = source[source.index("void sort_sixteen") : source.index("#undef SORT")]
    exchanges = [(int(a), int(b)) for a, b in re.findall(r"SORT\((\d+), (\d+)\)", body)]
    assert len(exchanges) == 60
    wires = [(np.arange(1 << 16) >> k & 1).astype(bool) for k in range(16)]
    for a, b in exchanges:
        wires[a], wires[b] = wires[a] & wires[b], wires[a] | wires[b]
    assert all((~low | high).all() for low, high in itertools.pairwise(wires))  # by the zero-one principle: every input


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_median_is_opencv_median_exactly_for_listed_pairs_only(device: Any, random: Any, height: Any, width: Any, size: int) -> None:
    capacity, stride, sequence = 4, height * ((width + 3) & ~3), 7
    planes = random.normal(0, 1, (capacity, 2, height, width)).astype(np.float32)
    planes[1] = random.integers(-2, 3, planes[1].shape)  # many equal values
    halves = [0, 1, 0, 1]
    flow = aligned((2, capacity, 2, stride))
    for pair, half in enumerate(halves):
        flow[half, pair] = padded(planes[pair]).reshape(2, stride)
    before = flow.copy()
    state = np.array([FLOW_HALF if half else DUAL_HALF for half in halves], np.int32)
    lists, counts = lists_of([3, 1, 0], capacity, sequence)
    pixels = 2 if size == 5 else 1  # a side of what a thread makes
    sizes = {"width": width, "height": height, "capacity": capacity, "stride": stride, "sequence": sequence}
    arrays = {"flow": flow, "state": state, "lists": lists, "counts": counts}
    run(device, f"median_{size}", -(-height // pixels), -(-width // pixels), 2 * capacity, **sizes, **arrays)
    for pair in (0, 1, 3):
        got = unpadded(flow[1 - halves[pair], pair].reshape(2, height, -1), width)
        expected = np.stack([cv2.medianBlur(plane, size) for plane in planes[pair]])
        assert np.array_equal(got, expected)
    assert np.array_equal(flow[:, 2], before[:, 2], equal_nan=True)


def iterations_by_numpy(
    data: Any, u: Any, p: Any, count: Any, tau: float = 0.25, theta: float = 0.3, lambda_theta: float = 0.045
) -> tuple[Any, ...]:
    """The iteration of the IPOL article in float64; returns (u, p, squared updates of the last iteration). p is not scaled here."""
    gx, gy, rho_c = data.astype(np.float64)
    u, p = u.astype(np.float64), p.astype(np.float64)
    grad = gx**2 + gy**2
    for _ in range(count):
        rho = rho_c + gx * u[0] + gy * u[1]
        step = np.clip(-rho / np.maximum(grad, 1e-30), -lambda_theta, lambda_theta)
        new = np.empty_like(u)
        for c, g in enumerate((gx, gy)):
            p1, p2 = p[2 * c], p[2 * c + 1]
            new[c] = u[c] + step * g + theta * (np.diff(p1, axis=1, prepend=0) + np.diff(p2, axis=0, prepend=0))
        update = ((new - u) ** 2).sum()
        u = new
        for c in range(2):
            ux, uy = np.diff(u[c], axis=1, append=u[c][:, -1:]), np.diff(u[c], axis=0, append=u[c][-1:])
            norm = 1 + tau / theta * np.hypot(ux, uy)
            p[2 * c], p[2 * c + 1] = (p[2 * c] + tau / theta * ux) / norm, (p[2 * c + 1] + tau / theta * uy) / norm
    return u, p, update


@pytest.mark.parametrize(
    ("tile", "num_iterations"),
    [
        *((tile, 5) for tile in VARIANTS),
        *((SMALL_TILE, depth) for depth in (5, 3, 1)),
        *((OF_TWO_ROWS, depth) for depth in (5, 2)),
        *((OF_ONE_ROW, depth) for depth in (4, 3, 1)),
        *((SHARED, depth) for depth in (5, 2, 1)),
    ],
)
@pytest.mark.parametrize(("height", "width"), [*SIZES, (72, 16), (16, 130)])
def test_iterations_are_those_of_the_article(random: Any, height: int, width: int, tile: Any, num_iterations: int) -> None:
    device = EmulatedDevice()
    data, u, p = iterate_inputs(random, height, width, 3)
    theta = np.float32(0.3)
    pitch = (width + 3) & ~3
    flow, dual = aligned((2, 3, 2, height, pitch)), aligned((2, 3, 4, height, pitch))
    flow[0, 0], flow[1, 1], flow[1, 2] = padded(u[0]), padded(u[1]), padded(u[2])
    dual[1, 0], dual[0, 2] = padded(theta * p[0]), padded(theta * p[2])
    before = flow.copy(), dual.copy()
    state = [DUAL_HALF, FLOW_HALF | DUAL_IS_ZERO, FLOW_HALF]  # pair 1 has dual zero, whatever lies in memory; pair 2 has stopped
    updates = [iterations_by_numpy(data[n], u[n], p[n] * (n != 1), num_iterations)[2] for n in range(2)]
    threshold = float(np.mean(updates))
    settings = {"num_iterations": num_iterations, "threshold": threshold, "listed": [1, 0], "state": state}
    new_state, goes_on, progress = iterate(device, width, tile, padded(data), flow, dual, **settings)
    assert new_state.tolist() == [FLOW_HALF, DUAL_HALF, FLOW_HALF]
    assert goes_on == [n for n in range(2) if updates[n] > threshold]
    assert progress == (4, 2)
    for pair, (flow_half, dual_half) in enumerate([(1, 0), (0, 1)]):
        expected_u, expected_p, _ = iterations_by_numpy(data[pair], u[pair], p[pair] * (pair != 1), num_iterations)
        assert np.abs(unpadded(flow[flow_half, pair], width) - expected_u).max() < 2e-5
        assert np.abs(unpadded(dual[dual_half, pair], width) / theta - expected_p).max() < 2e-5
    assert np.array_equal(flow[:, 2], before[0][:, 2], equal_nan=True)
    assert np.array_equal(dual[:, 2], before[1][:, 2], equal_nan=True)


@pytest.mark.parametrize("tile", HALVES, ids=str)
@pytest.mark.parametrize(("height", "width"), [(17, 19), (61, 83)])
def test_iterations_with_p_in_half_precision_are_those_of_the_article_to_its_rounding(
    random: Any, height: int, width: int, tile: Any
) -> None:
    device = EmulatedDevice()
    data, u, p = iterate_inputs(random, height, width, 1)
    theta, pitch = np.float32(0.3), (width + 3) & ~3
    flow, dual = aligned((2, 1, 2, height, pitch)), aligned((2, 1, 4, height, pitch))
    flow[0, 0], dual[0, 0] = padded(u[0]), padded(theta * p[0])
    iterate(device, width, tile, padded(data), flow, dual, num_iterations=5, threshold=0, listed=[0], state=[0])
    expected_u, expected_p, _ = iterations_by_numpy(data[0], u[0], p[0], 5)
    assert 1e-6 < np.abs(unpadded(flow[1, 0], width) - expected_u).max() < 2e-3
    rounding = np.abs(unpadded(dual[1, 0], width) / theta - expected_p).max()
    assert 1e-5 < rounding < 3e-3  # eleven bits of numbers below 1, five times


def test_iterations_after_a_median_read_what_it_wrote(random: Any) -> None:
    device = EmulatedDevice()
    data, u, p = iterate_inputs(random, 18, 21, 1)
    flow, dual = aligned((2, 1, 2, 18, 24)), aligned((2, 1, 4, 18, 24))
    flow[1, 0], dual[0, 0] = padded(u[0]), padded(np.float32(0.3) * p[0])  # state says half 0; the median wrote half 1
    state, _, _ = iterate(
        device, 21, SMALL_TILE, padded(data), flow, dual, num_iterations=2, threshold=0, listed=[0], state=[0], after_median=True
    )
    assert state.tolist() == [DUAL_HALF]
    assert np.abs(unpadded(flow[0, 0], 21) - iterations_by_numpy(data[0], u[0], p[0], 2)[0]).max() < 2e-5


@pytest.mark.parametrize("tile", [SMALL_TILE, OF_TWO_ROWS, OF_ONE_ROW, SHARED])
@pytest.mark.parametrize(("order", "num_blocks"), [(BACKWARD, 5), (2, 1), (3, 7), (4, 1000)])
def test_result_does_not_depend_on_the_order_of_threads_and_blocks_or_their_number(order: Any, num_blocks: int, tile: Any) -> None:
    results = []
    for turns, blocks in ((FORWARD, 5), (order, num_blocks)):
        device = EmulatedDevice(order=turns)
        data, u, p = iterate_inputs(np.random.default_rng(5), 61, 83, 2)
        flow, dual = aligned((2, 2, 2, 61, 84)), aligned((2, 2, 4, 61, 84))
        flow[0], dual[0] = padded(u), padded(p)
        settings = {"num_iterations": 5, "threshold": 1e-3, "listed": [0, 1], "state": [0, 0], "num_blocks": blocks}
        outcome = iterate(device, 83, tile, padded(data), flow, dual, **settings)
        results.append((flow, dual, *outcome))
    for first, second in zip(*results, strict=True):
        assert np.array_equal(first, second, equal_nan=isinstance(first, np.ndarray) and first.dtype.kind == "f")


@pytest.mark.parametrize("mapping", ["symmetric", "paper"])
@pytest.mark.parametrize("bound", [20.0, 7.3])
def test_quantised_flow_is_that_of_the_quantiser_exactly(device: Any, random: Any, mapping: str, bound: float) -> None:
    quantiser = Quantiser(bound, mapping)
    height, width = 31, 45
    values = random.normal(0, bound, (2, 2, height, width)).astype(np.float32)
    steps = (np.arange(-256, 256) / 2) * (bound / 127 if mapping == "symmetric" else 2 * bound / 255)
    values[0].reshape(-1)[: steps.size] = steps  # halves between two bytes
    values[1, 0, 0, :4] = 0.0, -0.0, bound, -bound
    stride = height * 48
    flow, state = aligned((2, 2, 2, stride)), np.array([FLOW_HALF, FLOW_HALF], np.int32)
    flow[1] = padded(values).reshape(2, 2, stride)
    target, flag = np.zeros((2, 2, height, width), np.uint8), np.zeros(1, np.uint64)
    arguments = {"width": width, "height": height, "capacity": 2, "stride": stride, **vars(Quantisation.of(bound, mapping))}
    arguments |= {"flow": flow, "state": state, "bytes": target, "not_finite": flag}
    run(device, "quantise_flow", height, width, 2, **arguments)
    assert np.array_equal(target, quantiser.encode(values))
    assert flag[0] == 0
    flow[1, 1, 1, -1] = np.inf
    run(device, "quantise_flow", height, width, 2, **arguments)
    assert flag[0] == 1


def test_exported_flow_has_no_padding(device: Any, random: Any) -> None:
    values = random.normal(0, 5, (2, 2, 19, 22)).astype(np.float32)
    flow, state = aligned((2, 2, 2, 19 * 24)), np.zeros(2, np.int32)
    flow[0] = padded(values).reshape(2, 2, -1)
    target, flag = np.zeros_like(values), np.zeros(1, np.uint64)
    sizes = {"width": 22, "height": 19, "capacity": 2, "stride": 19 * 24}
    run(device, "export_flow", 19, 22, 2, **sizes, flow=flow, state=state, planes=target, not_finite=flag)
    assert np.array_equal(target, values)
    assert flag[0] == 0
