"""Two-stream fusion by a 3D convolution: numbers of parameters, the initial kernel, what each head depends on, an oracle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from flowkit.errors import CheckpointError, ParameterError
from flowkit.model.networks.fusion3d import FusionNetwork, initial_kernel
from flowkit.model.networks.vgg import VggSingleStream
from flowkit.model.networks.weights import check_streams, initialise_from_streams
from flowkit.model.settings.fusion3d import FusionConfig

NARROW = FusionConfig(num_classes=5, width=1 / 16, input_size=64)
MIDDLE = 1 / (1 + 2 * np.exp(-0.5))  # the share of the middle tap of a Gaussian of sigma 1 with three taps

pytestmark = pytest.mark.usefixtures("seeded")


def narrow(**settings: Any) -> FusionNetwork:
    network = FusionNetwork(replace(NARROW, **settings)).double().eval()
    for stream in (network.appearance, network.motion):
        nn.init.normal_(stream.fc.weight)
    return network


def clips(num_clips: int = 2, num_frames: int = 5, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    rgb, flow = (torch.randn(num_clips, num_frames, channels, size, size, dtype=torch.float64) for channels in (3, 20))
    return rgb, flow


def difference(x: torch.Tensor, y: torch.Tensor) -> float:
    assert x.shape == y.shape
    return float(((x - y).norm() / y.norm()).detach())


def test_the_numbers_of_parameters_are_the_published_ones() -> None:
    with torch.device("meta"):
        network = FusionNetwork(FusionConfig(num_classes=101, kind="vgg-16-fusion"))
    counts = {name: sum(p.numel() for p in module.parameters()) for name, module in [("all", network), ("fusion", network.fusion)]}
    assert counts == {"all": 283_514_762, "fusion": 14_156_288}
    assert counts["all"] - sum(p.numel() for p in network.motion.classifier.parameters()) == 163_555_109


def test_the_initial_kernel_mixes_maps_that_are_constant_in_time_and_space() -> None:
    network, channels = narrow(), NARROW.channels
    appearance, motion = (torch.rand(channels, 1, 1, dtype=torch.float64) for _ in range(2))
    with torch.no_grad():
        for num_frames, share in ((5, 1.0), (1, MIDDLE)):
            maps = [value.expand(2 * num_frames, -1, 6, 7) for value in (appearance, motion)]
            fused = network.fuse(*maps, num_frames).view(2, num_frames, channels, 6, 7)
            times = slice(1, -1) if num_frames > 1 else slice(None)
            inner = fused[:, times, :, 1:-1, 1:-1]
            assert difference(inner, (share * (0.25 * appearance + 0.75 * motion)).expand_as(inner)) < 1e-6
    assert pytest.approx(0.452, abs=5e-4) == MIDDLE


def test_the_initial_kernel_is_a_gaussian_on_the_diagonals() -> None:
    kernel = initial_kernel(3, (0.25, 0.75)).double()
    expected = np.zeros((3, 6, 3, 3, 3))
    total = sum(np.exp(-(t * t + y * y + x * x) / 2) for t in (-1, 0, 1) for y in (-1, 0, 1) for x in (-1, 0, 1))
    for channel in range(3):
        for t in range(3):
            for y in range(3):
                for x in range(3):
                    value = np.exp(-((t - 1) ** 2 + (y - 1) ** 2 + (x - 1) ** 2) / 2) / total
                    expected[channel, channel, t, y, x], expected[channel, 3 + channel, t, y, x] = 0.25 * value, 0.75 * value
    assert difference(kernel, torch.from_numpy(expected)) < 1e-6
    assert float(FusionNetwork(NARROW).state_dict()["fusion.bias"].abs().max()) == 0


def test_motion_logits_do_not_depend_on_rgb_and_appearance_logits_depend_on_flow() -> None:
    network = narrow()
    (rgb, flow), (other_rgb, other_flow) = clips(), clips()
    with torch.no_grad():
        first, second, third = network(rgb, flow), network(other_rgb, flow), network(rgb, other_flow)
    assert torch.equal(first.motion, second.motion)
    assert difference(first.appearance, second.appearance) > 1e-3
    assert difference(first.appearance, third.appearance) > 1e-3


@pytest.mark.parametrize("kind", ["vgg-m-fusion", "vgg-16-fusion"])
def test_one_frame_is_fusion_by_the_middle_slice(kind: Any) -> None:
    network = narrow(kind=kind)
    nn.init.normal_(network.fusion.weight, std=0.05)
    nn.init.normal_(network.fusion.bias, std=0.1)  # type: ignore[arg-type]
    rgb, flow = clips(3, 1, 70)
    with torch.no_grad():
        maps = torch.cat([network.appearance.maps(rgb[:, 0]), network.motion.maps(flow[:, 0])], 1)
        fused = F.conv2d(maps, network.fusion.weight[:, :, 1], network.fusion.bias, padding=1).relu()
        expected = network.appearance.fc(network.appearance.hidden(network.appearance.pool(fused)))
        assert difference(network(rgb, flow).appearance[:, 0], expected) < 1e-12
        assert difference(network(rgb, flow).motion[:, 0], network.motion(flow[:, 0])) < 1e-12


@pytest.mark.parametrize("num_frames", [1, 3, 5, 8, 11])
def test_equals_a_loop_over_times_and_taps(num_frames: int) -> None:
    network = narrow()
    nn.init.normal_(network.fusion.weight, std=0.05)
    rgb, flow = clips(1, num_frames)
    with torch.no_grad():
        a, m = network.appearance.maps(rgb[0]), network.motion.maps(flow[0])
        maps = torch.cat([a, m], 1)
        fused = []
        for t in range(num_frames):
            total = network.fusion.bias[:, None, None].expand(-1, *maps.shape[2:]).clone()  # type: ignore[index]
            for tap in range(3):
                if 0 <= t + tap - 1 < num_frames:
                    total += F.conv2d(maps[t + tap - 1][None], network.fusion.weight[:, :, tap], padding=1)[0]
            fused.append(total.relu())
        length = min(5, num_frames)
        starts = range(0, num_frames - length + 1, 2)
        logits = network(rgb, flow)
        assert logits.appearance.shape == logits.motion.shape == (1, len(starts), 5)
        for place, start in enumerate(starts):
            for stream, own in ((network.appearance, torch.stack(fused)), (network.motion, m)):
                box = stream.pool(own[start : start + length].amax(0, keepdim=True))
                expected = stream.fc(stream.hidden(box))[0]
                ours = (logits.appearance if stream is network.appearance else logits.motion)[0, place]
                assert difference(ours, expected) < 1e-12


def test_the_convolution_and_its_adjoint_agree() -> None:
    network = narrow()
    nn.init.normal_(network.fusion.weight)
    x = torch.randn(1, 2 * NARROW.channels, 5, 4, 6, dtype=torch.float64, requires_grad=True)
    y = torch.randn(1, NARROW.channels, 5, 4, 6, dtype=torch.float64)
    out = F.conv3d(x, network.fusion.weight, padding=1)
    (back,) = torch.autograd.grad(out, x, y)
    assert float((out * y).sum().detach()) == pytest.approx(float((x * back).sum().detach()), rel=1e-10)


def test_only_the_fusion_and_the_heads_learn_unless_the_trunks_do() -> None:
    rgb, flow = clips(1, 2)
    for train_trunks in (False, True):
        network = narrow(train_trunks=train_trunks)
        logits = network(rgb, flow)
        (logits.appearance.square().sum() + logits.motion.square().sum()).backward()
        learn = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
        trunks = {name for name, _ in network.named_parameters() if ".features." in name}
        everything = {name for name, _ in network.named_parameters()}
        assert learn == (everything if train_trunks else everything - trunks)
        assert learn == {name for name, parameter in network.named_parameters() if parameter.requires_grad}


def test_clips_of_a_batch_do_not_meet() -> None:
    network = narrow()
    rgb, flow = clips(3, 6)
    with torch.no_grad():
        together, alone = network(rgb, flow), network(rgb[1:2], flow[1:2])
    assert difference(together.appearance[1:2], alone.appearance) < 1e-12
    assert difference(together.motion[1:2], alone.motion) < 1e-12


def test_it_starts_from_two_trained_streams_and_the_initial_kernel() -> None:
    network = FusionNetwork(NARROW)
    states = [VggSingleStream(NARROW, stream).state_dict() for stream in ("appearance", "motion")]  # type: ignore[arg-type]
    kernel = network.fusion.weight.clone()
    initialise_from_streams(network, *states)
    own = network.state_dict()
    assert all(torch.equal(own[name], value) for state in states for name, value in state.items())
    assert torch.equal(network.fusion.weight, kernel)
    assert set(own) == {"fusion.weight", "fusion.bias", *states[0], *states[1]}
    other = VggSingleStream(replace(NARROW, num_classes=4), "motion").state_dict()
    with pytest.raises(CheckpointError, match="motion stream"):
        check_streams(network, motion_state=other)
    check_streams(network, appearance_state=states[0])


def test_wrong_shapes_and_settings_are_refused() -> None:
    network = FusionNetwork(NARROW)
    rgb, flow = (clip.float() for clip in clips())
    for bad in ((flow, rgb), (rgb[:, :3], flow), (rgb[:1], flow), (rgb[..., :50], flow)):
        with pytest.raises(ParameterError):
            network(*bad)
    for settings in ({"shares": (1,)}, {"shares": (-1, 1)}, {"shares": None}, {"train_trunks": 1}, {"kind": "vgg-16"}):
        with pytest.raises(ParameterError, match=f"^{next(iter(settings))} must be"):
            replace(NARROW, **settings)  # type: ignore[arg-type]
    assert FusionConfig.from_dict(NARROW.to_dict()) == NARROW
