"""From a checkpoint to the network it holds."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import torch

from flowkit.errors import CheckpointError
from flowkit.model.networks.phase_networks import build_network
from flowkit.model.networks.stresnet import SingleStream, STResNet
from flowkit.model.runs.checkpoint import Checkpoint, load_checkpoint


def trained_network(checkpoint: Checkpoint, source: str) -> SingleStream | STResNet:
    """Return the network of a checkpoint with its weights, in eval mode, on the CPU.

    Raises
    ------
    CheckpointError
        If the weights do not fit the network; names `source`.
    """
    config, given = checkpoint.provenance.config, {name: tensor.shape for name, tensor in checkpoint.network.items()}
    differing = ["its size"]
    if sum(config.network.units) <= len(given):  # a network is made only of the size that the weights have
        with suppress(RuntimeError), torch.device("meta"):  # sizes beyond 2^63
            wanted = {name: tensor.shape for name, tensor in build_network(config).state_dict().items()}
            differing = sorted(name for name in {*wanted, *given} if wanted.get(name) != given.get(name))
    if differing:
        more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
        raise CheckpointError(f"{source}: the weights do not fit the network they name, in {differing[0]}{more}")
    network = build_network(config)
    network.load_state_dict(checkpoint.network)
    return network.eval()


def load_network(path: Path) -> SingleStream | STResNet:
    """Read a trained network, ready to classify: in eval mode, on the CPU.

    Parameters
    ----------
    path : Path
        A phase's folder, weights or checkpoint, or a file of `export_safetensors`.

    Raises
    ------
    CheckpointError
        If it is damaged or foreign.
    """
    return trained_network(load_checkpoint(path), str(path))
