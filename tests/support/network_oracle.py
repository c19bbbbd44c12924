"""The network written out from the paper's equations, one clip at a time and without flowkit's modules; and small networks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from flowkit.model.networks.stresnet import STResNet
from flowkit.model.settings.network import STResNetConfig

STREAMS = ("appearance", "motion")
SMALL = STResNetConfig(num_classes=5, stage_units=(2, 3, 2, 3), base_width=4, input_size=64)


def randomise_batch_norm(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)


def network(config: STResNetConfig = SMALL, **settings: Any) -> STResNet:
    model = STResNet(replace(config, **settings)).eval()
    randomise_batch_norm(model)
    for stream in STREAMS:
        nn.init.normal_(getattr(model, stream).fc.weight, 0, 0.1)
    return model


def clips(num_clips: int = 2, num_frames: int = 5, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(num_clips, num_frames, 3, size, size), torch.randn(num_clips, num_frames, 20, size, size)


def difference(x: torch.Tensor, y: torch.Tensor) -> float:
    return float(((x - y).norm() / y.norm()).item())


def oracle_bn(state: Any, name: str, x: Any) -> Any:
    weight, bias, mean, var = (state[f"{name}.{key}"].view(-1, 1, 1) for key in ("weight", "bias", "running_mean", "running_var"))
    return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias


def oracle_conv(state: Any, name: str, x: Any, padding: Any, stride: int = 1) -> Any:
    weight = state[f"{name}.weight"]
    if weight.ndim == 4:
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
    frames = []
    for t in range(len(x)):
        total = torch.zeros(())
        for tap, source in enumerate((t - 1, t, t + 1)):
            if padding == "replicate":
                source = min(max(source, 0), len(x) - 1)
            if 0 <= source < len(x):
                total = total + torch.einsum("oc,chw->ohw", weight[:, :, tap, 0, 0], x[source])
        frames.append(total)
    return torch.stack(frames)


def oracle_unit(state: Any, name: str, identity: Any, branch: Any, config: Any, stride: Any) -> Any:
    first, second = (stride, 1) if config.stride_in_1x1 else (1, stride)
    x = F.relu(oracle_bn(state, f"{name}.bn1", oracle_conv(state, f"{name}.conv1", branch, config.temporal_padding, first)))
    x = F.relu(oracle_bn(state, f"{name}.bn2", oracle_conv(state, f"{name}.conv2", x, None, second)))
    x = oracle_bn(state, f"{name}.bn3", oracle_conv(state, f"{name}.conv3", x, config.temporal_padding))
    if f"{name}.downsample.0.weight" in state:
        identity = oracle_bn(state, f"{name}.downsample.1", oracle_conv(state, f"{name}.downsample.0", identity, None, stride))
    return identity + x


def oracle_head(state: Any, stream: str, x: Any, config: Any) -> Any:
    def pool_time(maps: Any) -> Any:
        size = min(5, len(maps))
        return torch.stack([maps[t : t + size].amax(0) for t in range(0, len(maps) - size + 1, 2)])

    if config.temporal_pool and config.temporal_pool_position == "before_pool5":
        x = pool_time(x)
    window_h, window_w = x.shape[2:] if config.head_pool == "global" else (min(-(-config.input_size // 32), side) for side in x.shape[2:])
    rows, columns = range(x.shape[2] - window_h + 1), range(x.shape[3] - window_w + 1)
    windows = [x[:, :, i : i + window_h, j : j + window_w].mean((2, 3)) for i in rows for j in columns]
    if config.temporal_pool and config.temporal_pool_position == "after_pool5":
        windows = [pool_time(window) for window in windows]
    return torch.stack([window @ state[f"{stream}.fc.weight"].T + state[f"{stream}.fc.bias"] for window in windows]).mean(0)


def oracle(model: STResNet, rgb: torch.Tensor, flow: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits of one clip from the paper's equations; both inputs are (T, C, H, W)."""
    state, config = model.state_dict(), model.config
    x = {}
    for stream, frames in zip(STREAMS, (rgb, flow), strict=True):
        stem = F.conv2d(frames, state[f"{stream}.conv1.weight"], stride=2, padding=3)
        x[stream] = F.max_pool2d(F.relu(oracle_bn(state, f"{stream}.bn1", stem)), 3, 2, 1)
    receives = {
        "appearance": config.injection != "none" and config.injection_direction != "appearance_to_motion",
        "motion": config.injection != "none" and config.injection_direction != "motion_to_appearance",
    }
    for stage in range(4):
        s = {
            stream: oracle_unit(state, f"{stream}.layer{stage + 1}.0", x[stream], x[stream], config, 2 if stage else 1)
            for stream in STREAMS
        }
        for stream, other in zip(STREAMS, STREAMS[::-1], strict=True):
            identity = branch = F.relu(s[stream])
            if receives[stream] and stage + 2 in config.injection_stages:
                branch = s[stream] + F.relu(s[other]) if config.injection_kind == "additive" else s[stream] * F.relu(s[other])
                identity = branch if config.injection == "direct" else identity
            for unit in range(1, config.units[stage]):
                identity = branch = F.relu(oracle_unit(state, f"{stream}.layer{stage + 1}.{unit}", identity, branch, config, 1))
            x[stream] = branch
    return tuple(oracle_head(state, stream, x[stream], config) for stream in STREAMS)
