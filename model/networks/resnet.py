"""One residual stream: a bottleneck ResNet over the frames of clips, under torchvision's parameter names.

Frames are passed as (B*T, C, H, W), clip after clip. The stream is divided as ST-ResNet needs it: the first part of a stage is its
unit a, which returns the sum before the ReLU; the second part takes separate inputs for the identity path and the residual branch of
unit b.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from flowkit.model.foreign.backbones import RESNET, Naming
from flowkit.model.networks.layers.dropout import GroupDraws, GroupedDropout
from flowkit.model.networks.layers.temporal_conv import TemporalConv, by_clip, inflate
from flowkit.model.settings.network import BATCH_NORM_EPS, NUM_RGB_CHANNELS, STAGES, STResNetConfig, TemporalPadding
from flowkit.model.settings.network_config import TEMPORAL_POOL_SIZE, pooled_length

EXPANSION = 4  # output channels of a unit per channel of its 3x3 convolution
BATCH_NORM_MOMENTUM = 0.05  # weight of the new moments, as in the official code (MatConvNet, setLrWd.m:29-31)
CLASSIFIER_STD = 0.01


class GroupedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation that in training can treat equal parts of the batch, its groups, one by one.

    Without groups it is torch's. `set_groups` divides the batch: each group then has its own batch statistics, while everything else in
    the network runs once. The running moments stay as they are, and `group_moments`, shape (2, G, C), receives the mean and the unbiased
    variance of each of the G groups, for whoever trains the network to average them over a step. `values_per_group` receives how many
    values of a channel a group has.
    """

    group_moments: Tensor | None
    values_per_group: Tensor | None  # a tensor, because a compiled network cannot set anything else

    def __init__(self, num_channels: int, *, momentum: float = BATCH_NORM_MOMENTUM) -> None:
        super().__init__(num_channels, eps=BATCH_NORM_EPS, momentum=momentum)
        for name in ("group_moments", "values_per_group"):
            self.register_buffer(name, None, persistent=False)

    def divide(self, num_groups: int) -> None:
        """Treat the next batches of training as this many groups."""
        if self.group_moments is None or self.group_moments.shape[1] != num_groups:
            self.group_moments = self.weight.new_zeros((2, num_groups, self.num_features), requires_grad=False)
            self.values_per_group = self.weight.new_zeros((), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W), N a multiple of the number of groups."""
        if self.group_moments is None or self.values_per_group is None or not self.training:
            return super().forward(x)
        num_groups = self.group_moments.shape[1]
        self.values_per_group.fill_(x.numel() // (num_groups * self.num_features))
        # What the groups share is done once: with small groups, a GPU spends most of its time launching kernels.
        weights, biases = (shared.expand(num_groups, -1).unbind() for shared in (self.weight, self.bias))
        means, variances = (moments.unbind() for moments in self.group_moments.unbind())
        parts = [
            # With momentum 1 the "running" moments become those of the group, whatever they were before.
            functional.batch_norm(part, mean, variance, weight, bias, True, 1.0, self.eps)
            for part, mean, variance, weight, bias in zip(x.chunk(num_groups), means, variances, weights, biases, strict=True)
        ]
        return torch.cat(parts) if num_groups > 1 else parts[0]


class Bottleneck(nn.Module):
    """One residual unit, 1x1 - 3x3 - 1x1, returning the sum before its ReLU.

    Parameters
    ----------
    in_channels : int
        Channels of the input.
    width : int
        Channels of the 3x3 convolution; the unit returns four times as many.
    stride : int
        The stride in space.
    stride_in_1x1 : bool
        Put the stride on the first 1x1 convolution instead of the 3x3.
    temporal_padding : {"zeros", "replicate"}, optional
        If given, both 1x1 convolutions extend over three frames.
    """

    def __init__(
        self, in_channels: int, width: int, *, stride: int = 1, stride_in_1x1: bool = False, temporal_padding: TemporalPadding | None = None
    ) -> None:
        super().__init__()
        out_channels = width * EXPANSION
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.is_temporal = temporal_padding is not None
        if temporal_padding is not None:
            assert stride == 1, "a unit with temporal convolutions never changes the size of the maps"
            self.conv1: nn.Module = TemporalConv(in_channels, width, temporal_padding)
            self.conv3: nn.Module = TemporalConv(width, out_channels, temporal_padding)
        else:
            self.conv1 = nn.Conv2d(in_channels, width, 1, stride=stride_1x1, bias=False)
            self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride_3x3, padding=1, bias=False)
        self.bn1 = GroupedBatchNorm(width)
        self.bn2 = GroupedBatchNorm(width)
        self.bn3 = GroupedBatchNorm(out_channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), GroupedBatchNorm(out_channels)
            )

    def forward(self, identity: Tensor, branch: Tensor, num_frames: int) -> Tensor:
        """Return ``identity + F(branch)``, before the ReLU (eq. 2).

        Parameters
        ----------
        identity, branch : Tensor, shape (B*T, C, H, W)
            The inputs of the shortcut and of the residual branch; in a plain ResNet, the same tensor.
        num_frames : int
            T, the frames of a clip.
        """
        time = (num_frames,) if self.is_temporal else ()
        # In place where this overwrites the output of a batch normalisation, whose backward pass reads only its input.
        x = functional.relu(self.bn1(self.conv1(branch, *time)), inplace=True)
        x = functional.relu(self.bn2(self.conv2(x)), inplace=True)
        s: Tensor = self.bn3(self.conv3(x, *time))
        s += identity if self.downsample is None else self.downsample(identity)
        return s


class ResidualStream(nn.Module):
    """A bottleneck ResNet over frames, in the parts that two streams in lock-step need.

    Parameters
    ----------
    config : STResNetConfig
        The architecture.
    in_channels : int
        3 for RGB, 2L for a stack of L flow fields.
    temporal : bool
        Whether the stream has the configuration's temporal convolutions and temporal pooling; a base stream has none.
    dropout : float
        Dropout between pooling and classifier, in [0, 1).
    checkpoint_activations : bool
        Keep only every unit's input for the backward pass and compute the rest again: less memory, about a third more work.

    Notes
    -----
    The first weights are random as in torchvision; see `reset_parameters`.
    """

    naming: Naming = RESNET

    def __init__(
        self, config: STResNetConfig, in_channels: int, *, temporal: bool, dropout: float = 0.0, checkpoint_activations: bool = False
    ) -> None:
        super().__init__()
        self.config = config
        self.temporal = temporal
        self.dropout = dropout
        self.group_seeds: tuple[int, ...] = ()
        self.checkpoint_activations = checkpoint_activations
        self.conv1 = nn.Conv2d(in_channels, config.base_width, 7, stride=2, padding=3, bias=False)
        self.bn1 = GroupedBatchNorm(config.base_width)
        channels = config.base_width
        for stage, num_units in enumerate(config.units):
            width = config.base_width * 2**stage
            units = nn.ModuleList()
            for unit in range(num_units):
                has_time = temporal and config.temporal_convolution and STAGES[stage] in config.temporal_stages and unit == 1  # unit b
                units.append(
                    Bottleneck(
                        channels,
                        width,
                        stride=2 if stage > 0 and unit == 0 else 1,
                        stride_in_1x1=config.stride_in_1x1,
                        temporal_padding=config.temporal_padding if has_time else None,
                    )
                )
                channels = width * EXPANSION
            self.add_module(f"layer{stage + 1}", units)
        self.fc = nn.Linear(channels, config.num_classes)
        self.reset_parameters()

    @property
    def num_stages(self) -> int:
        """Number of stages of residual units: 4."""
        return len(self.config.units)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new weights: as He et al. (normal, fan-out) for convolutions, N(0, 0.01^2) for the classifier, and zero biases."""
        for module in self.modules():
            if isinstance(module, TemporalConv):
                flat = torch.empty_like(module.weight[:, :, 0])
                nn.init.kaiming_normal_(flat, mode="fan_out", nonlinearity="relu", generator=generator)
                with torch.no_grad():
                    module.weight.copy_(inflate(flat, self.config.temporal_init))
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
        self.reset_classifier(generator)

    def reset_classifier(self, generator: torch.Generator | None = None) -> None:
        """Draw a new classifier: weights from N(0, 0.01^2), zero biases."""
        nn.init.normal_(self.fc.weight, std=CLASSIFIER_STD, generator=generator)
        nn.init.zeros_(self.fc.bias)

    def stem(self, frames: Tensor) -> Tensor:
        """Apply everything before the first residual unit: (B*T, C, H, W) to (B*T, width, H/4, W/4)."""
        if self.conv1.in_channels == NUM_RGB_CHANNELS and any(self.config.rgb_offset):
            frames = frames - frames.new_tensor(self.config.rgb_offset)[:, None, None]
        x = functional.relu(self.bn1(self.conv1(frames)), inplace=True)
        if self.config.stem_pool == "ceil":
            return functional.max_pool2d(x, 3, stride=2, ceil_mode=True)
        return functional.max_pool2d(x, 3, stride=2, padding=1)

    def unit_a(self, stage: int, x: Tensor, num_frames: int) -> Tensor:
        """Return the sum before the ReLU of unit a of stage 0 to 3: ``s`` in eq. 2."""
        return self._run(self._units(stage)[0], x, x, num_frames)

    def units_from_b(self, stage: int, identity: Tensor, branch: Tensor, num_frames: int) -> Tensor:
        """Run the units after unit a of stage 0 to 3 and return the stage's output, after the ReLU.

        `identity` and `branch`, of shape (B*T, C, H, W), are the inputs of unit b's shortcut and of its residual branch.
        """
        unit_b, *later = list(self._units(stage))[1:]
        x = functional.relu(self._run(unit_b, identity, branch, num_frames), inplace=True)
        for unit in later:
            x = functional.relu(self._run(unit, x, x, num_frames), inplace=True)
        return x

    def head(self, x: Tensor, num_frames: int) -> Tensor:
        """Pool the last maps (B*T, C, H, W) over windows and possibly time, classify, and average the logits over windows.

        Returns
        -------
        Tensor, shape (B, T', num_classes)
            T' = T, or floor((T - k)/s) + 1 with k = min(5, T) after temporal pooling of stride s.

        Notes
        -----
        The mean over windows is taken before the classifier, which is linear: the logits are the same, for less work. Time is pooled
        before that mean, separately in every window.
        """
        pools_time = self.temporal and self.config.temporal_pool
        if pools_time and self.config.temporal_pool_position == "before_pool5":
            x = temporal_max_pool(x, num_frames, self.config.temporal_pool_stride)
        if self.config.head_pool == "global":
            x = x.mean((2, 3), keepdim=True)
        else:
            window = self.config.head_window
            x = functional.avg_pool2d(x, (min(window, x.shape[2]), min(window, x.shape[3])), stride=1)
        if pools_time and self.config.temporal_pool_position == "after_pool5":
            x = temporal_max_pool(x, num_frames, self.config.temporal_pool_stride)
        x = self._dropped(x)
        return by_clip(self.fc(x.mean((2, 3))), pooled_length(num_frames, self.config.temporal_pool_stride) if pools_time else num_frames)

    def forward(self, frames: Tensor, num_frames: int) -> Tensor:
        """Classify frames (B*T, C, H, W) by this stream only: logits (B, T', num_classes)."""
        x = self.stem(frames)
        for stage in range(self.num_stages):
            x = functional.relu(self.unit_a(stage, x, num_frames))
            x = self.units_from_b(stage, x, x, num_frames)
        return self.head(x, num_frames)

    def _dropped(self, x: Tensor) -> Tensor:
        """Apply dropout; if there are several groups, each is drawn from its own seed."""
        if not (self.training and self.dropout and self.group_seeds):  # in this order, since a compiled network treats seeds as constants
            return functional.dropout(x, self.dropout, self.training)
        parts = []
        for seed, part in zip(self.group_seeds, x.chunk(len(self.group_seeds)), strict=True):
            torch.manual_seed(seed)
            parts.append(functional.dropout(part, self.dropout))
        return torch.cat(parts)

    def _units(self, stage: int) -> nn.ModuleList:
        units = getattr(self, f"layer{stage + 1}")
        assert isinstance(units, nn.ModuleList)
        return units

    def _run(self, unit: nn.Module, identity: Tensor, branch: Tensor, num_frames: int) -> Tensor:
        """Run one unit, and keep its activations or only its input."""
        if self.checkpoint_activations and torch.is_grad_enabled():
            # In eager mode the recomputation must not update the running moments again; the compiler takes care of that itself.
            own: dict[str, Any] = {} if torch.compiler.is_compiling() else {"context_fn": partial(_recomputation_contexts, unit)}
            s: Tensor = checkpoint(unit, identity, branch, num_frames, use_reentrant=False, preserve_rng_state=False, **own)
        else:
            s = unit(identity, branch, num_frames)
        return s


def temporal_max_pool(x: Tensor, num_frames: int, stride: int = 2) -> Tensor:
    """Take the maximum over 5 frames, at every position: (B*T, C, H, W) to (B*T', C, H, W)."""
    clips = by_clip(x, num_frames).transpose(1, 2)  # (B, C, T, H, W)
    pooled = functional.max_pool3d(clips, (min(TEMPORAL_POOL_SIZE, num_frames), 1, 1), stride=(stride, 1, 1))
    return pooled.transpose(1, 2).flatten(0, 1)


def set_groups(network: nn.Module, seeds: Sequence[int]) -> None:
    """Divide the next training batches into equal BN groups, each with its own batch statistics and dropout.

    Parameters
    ----------
    network : Module
        Any network.
    seeds : sequence of int
        The seed of each group's dropout. If there is only one group, the caller seeds torch.

    Notes
    -----
    From then on the caller updates the running moments, from each `GroupedBatchNorm.group_moments`.
    """
    draws = GroupDraws(seeds) if len(seeds) > 1 else None
    for module in network.modules():
        if isinstance(module, GroupedBatchNorm):
            module.divide(len(seeds))
        elif isinstance(module, GroupedDropout):
            module.divide(draws)
        elif isinstance(module, ResidualStream):
            module.group_seeds = tuple(seeds) if len(seeds) > 1 else ()


def _recomputation_contexts(unit: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return contexts for a unit's first pass and for its recomputation, which must not update the running moments again."""
    return nullcontext(), _running_moments_kept(unit)


@contextmanager
def _running_moments_kept(unit: nn.Module) -> Iterator[None]:
    kept = [(module, name, buffer) for module in unit.modules() for name, buffer in module.named_buffers(recurse=False)]
    for module, name, buffer in kept:
        setattr(module, name, buffer.clone())
    try:
        yield
    finally:
        for module, name, buffer in kept:
            setattr(module, name, buffer)
