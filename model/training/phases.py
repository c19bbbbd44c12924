"""The four phases: which network each trains, what it starts from, and how a batch goes through it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from flowkit.model.data.sampling import initial_seed
from flowkit.model.foreign.state_dicts import PretrainedWeights
from flowkit.model.networks.stresnet import SingleStream, STResNet
from flowkit.model.networks.weights import initialise_from_streams, initialise_single_stream
from flowkit.model.settings.training import Phase, TrainConfig

BEFORE: dict[Phase, tuple[Phase, ...]] = {
    "appearance": (),
    "motion": (),
    "st-resnet": ("appearance", "motion"),
    "st-resnet-star": ("st-resnet",),
}


def start_network(
    network: SingleStream | STResNet, config: TrainConfig, weights: PretrainedWeights | None, before: Mapping[Phase, dict[str, Tensor]]
) -> None:
    """Give a phase's network the weights it starts from.

    Parameters
    ----------
    network : SingleStream or STResNet
        On the CPU.
    config : TrainConfig
    weights : PretrainedWeights, optional
        For the base streams; None draws random ones.
    before : dict from phase to state
        Final weights of the phases named in `BEFORE`.

    Raises
    ------
    CheckpointError
        If they do not fit.
    """
    if isinstance(network, SingleStream):
        generator = torch.Generator().manual_seed(initial_seed(config.seed, config.phase))
        initialise_single_stream(network, weights, generator=generator)
    elif config.phase == "st-resnet":
        initialise_from_streams(network, before["appearance"], before["motion"])
    else:
        network.load_state_dict(before["st-resnet"])
