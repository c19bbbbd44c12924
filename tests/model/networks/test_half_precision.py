"""Gradients in half precision on a CPU do not depend on what was in memory before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from flowkit.model.networks.layers.conv3d import Conv3d
from flowkit.model.networks.layers.temporal_conv import TemporalConv


def fill_free_memory() -> None:
    """Leave large numbers in memory that torch is about to use again."""
    counts = [4**power for power in range(3, 11) for _ in range(3)]
    held = [torch.full((count,), 1e30, dtype=kind) for kind in (torch.float32, torch.bfloat16) for count in counts]
    del held


def over_space_and_time(clips: Tensor, layer: nn.Module) -> Tensor:
    out: Tensor = layer(clips)
    return out


def over_time(clips: Tensor, layer: nn.Module) -> Tensor:
    out: Tensor = layer(clips.transpose(1, 2).flatten(0, 1), clips.shape[2])
    return out


@pytest.mark.parametrize("num_frames", [1, 2, 3])
@pytest.mark.parametrize("side", [2, 5])
@pytest.mark.parametrize(
    ("layer", "apply"),
    [
        (Conv3d(16, 16, 3, padding=1), over_space_and_time),
        (TemporalConv(16, 16, "zeros"), over_time),
        (TemporalConv(16, 16, "replicate"), over_time),
    ],
)
def test_the_gradient_of_a_weight_is_near_that_in_float32(
    layer: nn.Module, apply: Callable[[Tensor, nn.Module], Tensor], side: int, num_frames: int
) -> None:
    clips = torch.randn(4, 16, num_frames, side, side, generator=torch.Generator().manual_seed(side))
    found = []
    for half in (False, *[True] * 5):
        layer.zero_grad()
        fill_free_memory()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            out = apply(clips, layer)
        fill_free_memory()
        out.float().sum().backward()
        assert isinstance(layer.weight.grad, Tensor)
        found.append(layer.weight.grad.clone())
    for gradient in found[1:]:
        assert (gradient - found[0]).abs().max() < 0.05 * found[0].abs().max()
