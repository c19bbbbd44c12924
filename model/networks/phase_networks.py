"""Which network a phase trains, and how a batch goes through it."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from flowkit.model.networks.stresnet import SingleStream, StreamName, STResNet
from flowkit.model.settings.training import BASE_PHASES, TrainConfig


def build_network(config: TrainConfig, *, checkpoint_activations: bool = False) -> SingleStream | STResNet:
    """Return a phase's network, on the CPU and without the weights it is to have; torch's random numbers are left alone."""
    with torch.random.fork_rng(devices=[]):
        if config.phase in BASE_PHASES:
            return SingleStream(config.network, cast("StreamName", config.phase), checkpoint_activations=checkpoint_activations)
        return STResNet(config.network, checkpoint_activations=checkpoint_activations)


def stream_logits(network: SingleStream | STResNet, rgb: Tensor | None, flow: Tensor | None) -> dict[str, Tensor]:
    """Return the logits of each stream that a network has.

    Parameters
    ----------
    network : SingleStream or STResNet
    rgb : float tensor, shape (B, T, 3, H, W), normalised, where there is an appearance stream
    flow : float tensor, shape (B, T, 20, H, W), normalised, where there is a motion stream

    Returns
    -------
    dict from stream to float tensor, shape (B, T', num_classes)
    """
    if isinstance(network, SingleStream):
        return {network.stream_name: network(rgb if network.stream_name == "appearance" else flow)}
    return network(rgb, flow)._asdict()  # type: ignore[no-any-return]
