"""Small networks with random weights, stored like trained phases."""

from __future__ import annotations

from typing import Any

import torch

from flowkit.model.networks.phase_networks import build_network
from flowkit.model.runs.checkpoint import Checkpoint
from flowkit.model.runs.provenance import Provenance
from flowkit.model.systems.configs import make_configs


def random_checkpoints(
    classes: Any,
    *,
    seed: int = 0,
    quantiser: Any = None,
    split: int = 1,
    protocol: str = "automatic",
    digest: Any = "ab" * 32,
    extraction: Any = None,
    **settings: Any,
) -> Any:
    """Return a checkpoint for each phase, with random running moments too; 35 px is 7/8 of 40, so 40-px frames are tested at their size."""
    settings = {"base_width": 4, "input_size": 35} | settings
    configs = make_configs("small", num_classes=len(classes), num_videos=12, short_side=40, overrides=settings)
    generator = torch.Generator().manual_seed(seed)
    checkpoints = {}
    for phase, config in configs.items():
        network = build_network(config)
        for name, tensor in network.state_dict().items():
            if "running_var" in name:
                tensor.uniform_(0.2, 0.6, generator=generator)
            elif tensor.ndim == 1 and name.endswith("weight"):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.is_floating_point():
                tensor.normal_(0, 1 / max(tensor[0].numel(), 4) ** 0.5, generator=generator)
        recorded = {"extraction": extraction} if extraction is not None else {}
        quantised = quantiser or {"bound": 20.0, "mapping": "symmetric"}
        provenance = Provenance(config, tuple(classes), split, protocol, digest, dict(quantised), **recorded)
        checkpoints[phase] = Checkpoint(provenance, 4, network.state_dict())
    return checkpoints
