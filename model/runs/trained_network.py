"""From a checkpoint to the network it holds."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import torch

from flowkit.errors import CheckpointError
from flowkit.model.networks.family import PhaseNetwork
from flowkit.model.networks.phase_networks import build_network
from flowkit.model.runs.checkpoint import Checkpoint, load_checkpoint


def trained_network(checkpoint: Checkpoint, source: str) -> PhaseNetwork:
    """Return a checkpoint's network with its weights, in eval mode, on the CPU.

    If the weights do not fit the network, a `CheckpointError` names `source`.
    """
    config, given = checkpoint.provenance.config, {name: tensor.shape for name, tensor in checkpoint.network.items()}
    differing = ["its size"]
    if config.network.least_tensors <= len(given):  # build only a network of the size that the weights have
        with suppress(RuntimeError), torch.device("meta"):  # sizes beyond 2^63
            wanted = {name: tensor.shape for name, tensor in build_network(config).state_dict().items()}
            differing = sorted(name for name in {*wanted, *given} if wanted.get(name) != given.get(name))
    if differing:
        more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
        raise CheckpointError(f"{source}: the weights do not fit the network they name, in {differing[0]}{more}")
    network = build_network(config)
    network.load_state_dict(checkpoint.network)
    return network.eval()


def load_network(path: str | Path) -> PhaseNetwork:
    """Read a trained network, ready to classify: in eval mode, on the CPU.

    Parameters
    ----------
    path : path
        A phase's folder, weights or checkpoint, or a file written by ``flowkit convert``.

    Returns
    -------
    PhaseNetwork
        The network of the phase, such as a `SingleStream` or an `STResNet`.

    Raises
    ------
    CheckpointError
        If it is damaged or foreign.

    Examples
    --------
    >>> import torch
    >>> from flowkit.dataset.example import example_root
    >>> from flowkit.model import load_network, train
    >>> root = example_root()  # 12 training videos of 6 classes
    >>> report = train(root, phases=["motion"], overrides={"base_width": 4, "input_size": 32, "batch": 4, "steps": 2})
    >>> network = load_network(root / "runs/default/split1/motion")
    >>> network(torch.zeros(1, 2, 20, 32, 32)).shape  # a clip of two flow stacks, each of 10 fields
    torch.Size([1, 2, 6])
    """
    return trained_network(load_checkpoint(path), str(path))
