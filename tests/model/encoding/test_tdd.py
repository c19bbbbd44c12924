"""Trajectory-pooled descriptors: dense maps, their normalisation, pooling along trajectories against a loop."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from flowkit.errors import ParameterError
from flowkit.model.encoding.tdd.maps import INPUT_SIZES, MAP_STRIDE, channel_normalised, dense_maps, spatiotemporal_normalised
from flowkit.model.encoding.tdd.pooling import cells_of, frames_of, pool_along
from flowkit.model.networks.vgg import VggStream, vgg_stream
from flowkit.model.settings.vgg import VggConfig
from flowkit.trajectories.trajectories import Trajectories

NARROW = VggConfig(num_classes=2, width=1 / 16, input_size=64)
SIZES: dict[str, Any] = {"frame_size": (240, 320), "input_size": (240, 320), "stride": MAP_STRIDE}

pytestmark = pytest.mark.usefixtures("seeded")


def trajectories(count: int = 30, *, num_frames: int = 40, seed: int = 0, points: Any = None) -> Trajectories:
    """Return trajectories at random places of a video of 240 x 320 px; only their points and times mean anything."""
    draw = np.random.default_rng(seed)
    if points is None:
        points = draw.uniform((0, 0), (320, 240), (count, 16, 2))
    wide = {"hog": 96, "hof": 108, "mbh_x": 96, "mbh_y": 96, "shape": 30, "position": 3, "mean_xy": 2, "std_xy": 2}
    fields = {name: np.zeros((count, size), np.float32) for name, size in wide.items()}
    return Trajectories(
        end_frame=draw.integers(15, num_frames, count),
        points=np.asarray(points, np.float32),
        length=np.zeros(count, np.float32),
        scale=np.ones(count, np.float32),
        **fields,
    )


def naive(maps: Any, tracks: Trajectories, frame_size: Any, input_size: Any, stride: int) -> Any:
    """Follow one trajectory after the other, point after point."""
    pooled = np.zeros((len(tracks), maps.shape[1]))
    for number in range(len(tracks)):
        for point in range(1, 16):
            x, y = (float(value) for value in tracks.points[number, point])
            column = int(np.floor(x * input_size[1] / frame_size[1] / stride + 0.5))
            row = int(np.floor(y * input_size[0] / frame_size[0] / stride + 0.5))
            frame = min(int(tracks.end_frame[number]) - 15 + point, len(maps) - 1)
            pooled[number] += maps[frame, :, min(max(row, 0), maps.shape[2] - 1), min(max(column, 0), maps.shape[3] - 1)]
    return pooled


# -- pooling -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("input_size", INPUT_SIZES)
@pytest.mark.parametrize("frame_size", [(240, 320), (120, 160), (257, 341)])
def test_pooling_equals_a_loop_over_points(input_size: Any, frame_size: Any) -> None:
    height, width = (-(-side // MAP_STRIDE) for side in input_size)
    maps = np.random.default_rng(1).random((33, 7, height, width), np.float32)  # fewer maps than frames: the last one is repeated
    tracks = trajectories()
    pooled = pool_along(maps, tracks, frame_size=frame_size, input_size=input_size)
    np.testing.assert_allclose(pooled, naive(maps, tracks, frame_size, input_size, MAP_STRIDE), rtol=1e-5)


def test_a_descriptor_of_positive_constant_maps_is_15() -> None:
    channels = torch.tensor([0.2, 1.0, 3.0, 0.5])
    maps = channels[:, None, None].expand(40, -1, 15, 20)
    tracks = trajectories()
    pooled = pool_along(spatiotemporal_normalised(maps).numpy(), tracks, **SIZES)
    assert np.array_equal(pooled, np.full((30, 4), 15.0))
    pooled = pool_along(channel_normalised(maps).numpy(), tracks, **SIZES)
    np.testing.assert_allclose(pooled, np.tile(15 * channels.numpy() / 3, (30, 1)), rtol=1e-5)


def test_moving_points_within_half_a_cell_changes_nothing() -> None:
    draw, maps = np.random.default_rng(3), np.random.default_rng(4).random((40, 5, 15, 20), np.float32)
    cells = draw.integers((1, 1), (19, 14), (30, 16, 2)) * MAP_STRIDE
    here = trajectories(points=cells)
    moved = trajectories(points=cells + draw.uniform(-7.9, 7.9, cells.shape))
    beyond = trajectories(points=cells + 8.1)
    assert np.array_equal(pool_along(maps, here, **SIZES), pool_along(maps, moved, **SIZES))
    assert not np.array_equal(pool_along(maps, here, **SIZES), pool_along(maps, beyond, **SIZES))


def test_the_first_point_and_the_frames_outside_do_not_count() -> None:
    tracks = trajectories()
    assert frames_of(tracks)[:, -1].tolist() == tracks.end_frame.tolist()
    assert (frames_of(tracks)[:, 0] == tracks.end_frame - 14).all()
    maps = np.random.default_rng(1).random((40, 3, 15, 20), np.float32)
    points = tracks.points.copy()
    points[:, 0] += 100
    assert np.array_equal(pool_along(maps, tracks, **SIZES), pool_along(maps, replace(tracks, points=points), **SIZES))
    with pytest.raises(ParameterError, match="begins before the first frame"):
        pool_along(maps, replace(tracks, end_frame=np.full(30, 5)), **SIZES)


def test_points_beyond_the_frame_belong_to_the_last_cell() -> None:
    points = np.broadcast_to([[[-50.0, 500.0]]], (1, 16, 2))
    rows, columns = cells_of(trajectories(1, points=points), (15, 20), **SIZES)
    assert (rows == 14).all()
    assert (columns == 0).all()


# -- maps --------------------------------------------------------------------------------------------------------------------------


def test_normalised_maps_have_the_maximum_one_and_zeros_stay_zero() -> None:
    maps = torch.rand(6, 8, 5, 7) * torch.linspace(0, 9, 8)[:, None, None]  # the first channel is 0 everywhere
    maps[2, :, 3, 3] = 0
    for_video, for_position = spatiotemporal_normalised(maps), channel_normalised(maps)
    assert torch.equal(for_video.amax((0, 2, 3)), torch.tensor([0.0] + [1.0] * 7))
    expected = torch.ones(6, 5, 7)
    expected[2, 3, 3] = 0
    assert torch.equal(for_position.amax(1), expected)
    assert torch.allclose(spatiotemporal_normalised(3 * maps), for_video, rtol=1e-6, atol=0)
    assert torch.allclose(channel_normalised(3 * maps), for_position, rtol=1e-6, atol=0)


def cells(side: int) -> int:
    """Return how many cells cover a side: both convolutions and both pools halve it, and all but the first pool round up."""
    for _ in range(2):
        side = (side - 1) // 2 + 1
        side = -(-(side - 3) // 2) + 1
    return side


@pytest.mark.parametrize("stream", ["appearance", "motion"])
@pytest.mark.parametrize("size", [(64, 64), (75, 113), (240, 320)])
def test_a_dense_map_covers_the_frame(stream: Any, size: Any) -> None:
    network = vgg_stream(NARROW, stream).eval()
    maps = dense_maps(network, torch.randn(2, 3 if stream == "appearance" else 20, *size), ("conv3", "conv4", "conv5"))
    for name in ("conv3", "conv4", "conv5"):
        assert maps[name].shape == (2, 32, *map(cells, size))
        assert float(maps[name].detach().min()) >= 0
    assert [cells(side) for side in (480, 640, 240, 320, 120, 160)] == [30, 40, 15, 20, 7, 10]  # a cell for 16 px


def test_a_dense_map_moves_with_the_picture() -> None:
    network = vgg_stream(NARROW, "appearance").double().eval()
    picture = torch.zeros(1, 3, 320, 320, dtype=torch.float64)
    picture[:, :, 96:224, 96:224] = torch.randn(1, 3, 128, 128, dtype=torch.float64)
    with torch.no_grad():
        here = dense_maps(network, picture, ("conv5",))["conv5"]
        there = dense_maps(network, picture.roll((32, 16), (2, 3)), ("conv5",))["conv5"]
    moved = here.roll((2, 1), (2, 3))
    assert torch.allclose(there[..., 8:-6, 8:-6], moved[..., 8:-6, 8:-6], rtol=0, atol=1e-10)
    assert not torch.allclose(here[..., 8:-6, 8:-6], moved[..., 8:-6, 8:-6], rtol=0, atol=1e-3)


def test_dense_maps_are_the_layers_with_other_padding() -> None:
    network = vgg_stream(NARROW, "appearance").double().eval()
    x = torch.randn(1, 3, 80, 96, dtype=torch.float64)
    expected = x
    for number, layer in enumerate(network.features):
        if isinstance(layer, nn.Conv2d):
            layer.padding = (layer.kernel_size[0] // 2,) * 2
        elif isinstance(layer, nn.MaxPool2d):
            assert layer.ceil_mode
            assert layer.padding == 0
        if number < len(network.features) - 1:
            expected = layer(expected)
    plain = VggStream(NARROW, 3).double().eval()
    plain.load_state_dict(network.state_dict())
    assert torch.allclose(dense_maps(plain, x, ("conv5",))["conv5"], expected, rtol=0, atol=1e-12)


def test_other_networks_and_layers_are_refused() -> None:
    with pytest.raises(ParameterError, match="got conv6"):
        dense_maps(vgg_stream(NARROW, "appearance"), torch.zeros(1, 3, 64, 64), ("conv4", "conv6"))
    with pytest.raises(ParameterError, match="got vgg-16"):
        dense_maps(vgg_stream(replace(NARROW, kind="vgg-16"), "appearance"), torch.zeros(1, 3, 64, 64), ("conv4",))
