"""Which network a phase trains, and how a batch passes through it: known by the kind of the network's settings."""

from __future__ import annotations

import torch
from torch import Tensor

from flowkit.model.networks.c3d import C3DFamily
from flowkit.model.networks.dynamic_image import DynamicImageFamily
from flowkit.model.networks.family import NetworkFamily, PhaseNetwork
from flowkit.model.networks.fusion3d import FusionFamily
from flowkit.model.networks.residual import ResidualFamily
from flowkit.model.networks.sequence import SequenceFamily
from flowkit.model.networks.vgg_family import VggFamily
from flowkit.model.settings.c3d import C3DConfig
from flowkit.model.settings.dynamic_image import DynamicImageConfig
from flowkit.model.settings.fusion3d import FusionConfig
from flowkit.model.settings.network import STResNetConfig
from flowkit.model.settings.network_config import NetworkConfig
from flowkit.model.settings.sequence import SequenceConfig
from flowkit.model.settings.training import TrainConfig
from flowkit.model.settings.vgg import VggConfig

FAMILIES: dict[type[NetworkConfig], NetworkFamily] = {
    STResNetConfig: ResidualFamily(),
    VggConfig: VggFamily(),
    FusionConfig: FusionFamily(),
    DynamicImageConfig: DynamicImageFamily(),
    C3DConfig: C3DFamily(),
    SequenceConfig: SequenceFamily(),
}


def build_network(config: TrainConfig, *, checkpoint_activations: bool = False) -> PhaseNetwork:
    """Return a phase's network, on the CPU and not yet with its first weights. Torch's random numbers are not changed."""
    with torch.random.fork_rng(devices=[]):
        return FAMILIES[type(config.network)].build(config, checkpoint_activations=checkpoint_activations)


def stream_logits(network: PhaseNetwork, rgb: Tensor | None, flow: Tensor | None) -> dict[str, Tensor]:
    """Return the logits of each stream of a network.

    Parameters
    ----------
    network : PhaseNetwork
        The network of a phase.
    rgb, flow : float tensor, shape (B, T, 3, H, W) and (B, T, 20, H, W), normalised, or None
        The inputs of the appearance and of the motion stream, for the streams that the network has.

    Returns
    -------
    dict from stream to float tensor, shape (B, T', num_classes)
    """
    return network.stream_logits(rgb, flow)
