"""Trajectory-pooled descriptors: dense maps, their normalisation, pooling along trajectories against a loop."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from flowkit.dataset.settings import ExtractSettings
from flowkit.errors import ParameterError
from flowkit.model.data.transforms import normalise_flow, normalise_rgb, resized_flow, resized_rgb
from flowkit.model.encoding.descriptors.source import VideoFrames
from flowkit.model.encoding.fitting import fit_projection
from flowkit.model.encoding.tdd import video_maps
from flowkit.model.encoding.tdd.descriptors import PooledDescriptors
from flowkit.model.encoding.tdd.maps import MAP_STRIDE, channel_normalised, dense_maps, scaled_size, spatiotemporal_normalised
from flowkit.model.encoding.tdd.pooling import cells_of, frames_of, pool_along
from flowkit.model.encoding.tdd.video_maps import MapNetwork
from flowkit.model.encoding.trajectory_videos import TrajectoryVideo
from flowkit.model.networks.vgg import VggSingleStream, VggStream, vgg_stream
from flowkit.model.scoring.feature_journal import VideoToDo
from flowkit.model.settings.vgg import VggConfig
from flowkit.shards.reader import ShardReader
from flowkit.shards.schema import ClipAttributes
from flowkit.shards.writer import ClipWriter
from flowkit.trajectories.improved import improved_trajectories
from flowkit.trajectories.trajectories import Trajectories

INPUT_SIZES = ((480, 640), (340, 454), (240, 320), (170, 227), (120, 160))  # of the authors' code
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


# -- whole videos ------------------------------------------------------------------------------------------------------------------


class Watched:
    """Progress of a task that is never to stop; it counts the signs of life."""

    stopping = False

    def __init__(self) -> None:
        self.signs = 0

    def note(self, done: int, expected: int = 0) -> None:
        self.signs += 1

    def alive(self) -> None:
        self.signs += 1


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> TrajectoryVideo:
    """A stored clip of 27 frames of 48 x 64 px, in which a texture moves, with random flow."""
    draw = np.random.default_rng(0)
    texture = draw.integers(0, 256, (12, 32, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    frames = np.stack([texture[:, 60 - 2 * t : 124 - 2 * t] for t in range(27)])
    flow = draw.integers(0, 256, (26, 2, 48, 64), dtype=np.uint8)
    path = tmp_path_factory.mktemp("tdd") / "clip.h5"
    settings = ExtractSettings(short_side=48)
    with ClipWriter(path, height=48, width=64) as writer:
        writer.append_frames(frames)
        writer.append_flow(flow)
        writer.finish(
            ClipAttributes(
                video_id="a/b",
                class_name="a",
                source_name="",
                source_sha256="",
                frame_rate="25/1",
                num_frames=27,
                header_frames=27,
                decode_errors=0,
                codec=settings.codec,
                quantiser=settings.quantiser.to_dict(),
                tvl1=settings.stored_tvl1(),
                solver=settings.solver,
            )
        )
    with ShardReader(path) as reader:
        return TrajectoryVideo(VideoToDo.of(reader.clip("a/b")), path, None)


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> PooledDescriptors:
    """Descriptors of two scales by two narrow networks with random weights."""
    streams = {name: VggSingleStream(NARROW, name).eval() for name in ("appearance", "motion")}
    layers = {"appearance": ("conv4", "conv5"), "motion": ("conv3", "conv4")}
    networks = tuple(MapNetwork(name, name, Path(), "", layers[name], (32, 32), 64) for name in streams)
    monkeypatch.setattr("flowkit.model.encoding.tdd.video_maps._loaded", lambda network, _: streams[network.stream])
    return PooledDescriptors(networks, (1.0, 0.75), "none", "cpu")


def test_descriptors_of_a_video_are_its_maps_pooled_along_its_trajectories(video: TrajectoryVideo, source: PooledDescriptors) -> None:
    progress = Watched()
    blocks = list(source.blocks(video, VideoFrames(video, progress)))
    assert progress.signs > 27
    with ShardReader(video.stored) as reader:
        clip = reader.clip("a/b")
        frames, flow = clip.frames(slice(None)), clip.flow(0, 26)
    found = improved_trajectories(frames, camera_motion="none")
    found = _at_scale_1(found)
    assert len(found) > 20
    stacks = np.minimum(np.arange(27)[:, None] + np.arange(10), 25)
    for number, scale in enumerate(source.scales):
        size = scaled_size(48, 64, input_size=64, scale=scale)
        inputs = {
            "appearance": normalise_rgb(torch.from_numpy(resized_rgb(frames, size))),
            "motion": normalise_flow(torch.from_numpy(resized_flow(flow, size)))[torch.from_numpy(stacks)].flatten(1, 2),
        }
        for network in source.networks:
            with torch.no_grad():
                maps = dense_maps(video_maps._loaded(network, "cpu").stream, inputs[network.stream], network.layers)
            for layer in network.layers:
                for norm, normalised in (("spatiotemporal", spatiotemporal_normalised), ("channel", channel_normalised)):
                    whole = normalised(maps[layer]).numpy()
                    expected = pool_along(whole, found, frame_size=(48, 64), input_size=size)
                    pooled = np.concatenate([block[f"{network.stream}_{layer}_{norm}"] for block in blocks[number::2]])
                    np.testing.assert_allclose(pooled, expected, rtol=1e-3, atol=1e-4)


def _at_scale_1(found: Trajectories) -> Trajectories:
    return Trajectories(**{item.name: getattr(found, item.name)[found.scale == 1] for item in fields(found)})


def test_maps_that_are_computed_twice_give_the_same_descriptors(
    video: TrajectoryVideo, source: PooledDescriptors, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = list(source.blocks(video, VideoFrames(video, Watched())))
    monkeypatch.setattr(video_maps, "MOST_KEPT_BYTES", 1)
    again = list(source.blocks(video, VideoFrames(video, Watched())))
    assert len(kept) == len(again) > 0
    for one, other in zip(kept, again, strict=True):
        assert one.keys() == other.keys() == source.sizes.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_video_that_is_too_short_or_has_no_stored_flow(video: TrajectoryVideo, source: PooledDescriptors) -> None:
    short = replace(video, about=replace(video.about, num_frames=15))
    assert not list(source.blocks(short, VideoFrames(short, Watched())))
    with pytest.raises(ParameterError, match="extract the video into a data root"):
        list(source.blocks(replace(video, stored=None), VideoFrames(video, Watched())))


def test_whitened_components_have_the_variance_one_and_noise_is_not_magnified() -> None:
    draw = np.random.default_rng(0)
    sample = draw.normal(size=(4000, 6)) * [5, 3, 1, 0.5, 0, 0]
    white = fit_projection(sample, 6, whiten=True).apply(sample)
    np.testing.assert_allclose(white.std(0)[:4], 1, rtol=1e-3)
    assert np.abs(white[:, 4:]).max() < 1e-3
    assert PooledDescriptors((), (1.0,), "none", "cpu").num_outputs(512) == 64
    assert PooledDescriptors((), (1.0,), "none", "cpu").num_outputs(32) == 16
