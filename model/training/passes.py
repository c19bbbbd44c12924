"""How many sub-batches go through the network together: as many as keep the device busy and fit into its memory."""

from __future__ import annotations

import torch

from flowkit.model.compute.execution import Execution
from flowkit.model.networks.family import PhaseNetwork
from flowkit.model.settings.training import TrainConfig

FRAME_BYTES = 0.094 * 2**30  # measured: activations in float32 of a 224-px frame in one ResNet-50
FULL_FRAMES = 160  # frames per stream that keep a large GPU busy
MEMORY_SHARE = 0.6  # share of the free memory that these activations may fill


def groups_per_pass(config: TrainConfig, network: PhaseNetwork, execution: Execution, device: torch.device) -> int:
    """Return how many sub-batches go through the network together.

    Notes
    -----
    Each sub-batch keeps its own batch statistics and dropout, so this changes only speed, memory and the last digits. The memory of a
    frame was measured at full width: 0.094 GiB in float32, half of that in half precision.
    """
    if execution.compile and config.network.has_dropout(config.phase):
        return 1  # a compiled network cannot set the seed of each group's dropout
    if execution.videos_per_pass is not None:
        return max(1, execution.videos_per_pass // config.bn_group)
    if device.type != "cuda":
        return 1
    num_streams = len(config.streams)
    frame_bytes = FRAME_BYTES * config.network.frame_cost
    frame_bytes *= (0.5 if execution.amp in ("bf16", "fp16") else 1) * (0.4 if execution.checkpoint_activations else 1)
    gradients_and_momentum = 16 * sum(parameter.numel() for parameter in network.parameters())
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # free as well, left from an earlier phase
    room = MEMORY_SHARE * (torch.cuda.mem_get_info(device)[0] + cached - gradients_and_momentum)
    frames_per_group = config.bn_group * config.num_samples * num_streams
    most = int(max(1, min(num_streams * FULL_FRAMES, room / frame_bytes) // frames_per_group))
    num_groups = config.num_sub_batches // execution.world
    return next(
        size for size in range(most, 0, -1) if num_groups % size == 0
    )  # passes of one size, since a network is compiled for one size
