"""Which network a phase trains, and how a batch passes through it."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from flowkit.model.networks.stresnet import SingleStream, STResNet
from flowkit.model.settings.network import StreamName
from flowkit.model.settings.training import BASE_PHASES, TrainConfig


def build_network(config: TrainConfig, *, checkpoint_activations: bool = False) -> SingleStream | STResNet:
    """Return a phase's network, on the CPU and not yet with its first weights. Torch's random numbers are not changed."""
    with torch.random.fork_rng(devices=[]):
        if config.phase in BASE_PHASES:
            return SingleStream(config.network, cast("StreamName", config.phase), checkpoint_activations=checkpoint_activations)
        return STResNet(config.network, checkpoint_activations=checkpoint_activations)


def stream_logits(network: SingleStream | STResNet, rgb: Tensor | None, flow: Tensor | None) -> dict[str, Tensor]:
    """Return the logits of each stream of a network.

    Parameters
    ----------
    network : SingleStream or STResNet
        The network of a phase.
    rgb, flow : float tensor, shape (B, T, 3, H, W) and (B, T, 20, H, W), normalised, or None
        The inputs of the appearance and of the motion stream, for the streams that the network has.

    Returns
    -------
    dict from stream to float tensor, shape (B, T', num_classes)
    """
    if isinstance(network, SingleStream):
        return {network.stream_name: network(rgb if network.stream_name == "appearance" else flow)}
    return network(rgb, flow)._asdict()  # type: ignore[no-any-return]
