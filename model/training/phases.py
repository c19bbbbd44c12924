"""What each of the four phases starts from."""

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
    """Set the first weights of a phase's network, which is on the CPU.

    Parameters
    ----------
    network : SingleStream or STResNet
        The network of the phase.
    config : TrainConfig
        The settings of the phase.
    weights : PretrainedWeights, optional
        What a base stream starts from; None draws random weights.
    before : dict from phase to state
        The final weights of the phases named in `BEFORE`.
    """
    if isinstance(network, SingleStream):
        generator = torch.Generator().manual_seed(initial_seed(config.seed, config.phase))
        initialise_single_stream(network, weights, generator=generator)
    elif config.phase == "st-resnet":
        initialise_from_streams(network, before["appearance"], before["motion"])
    else:
        network.load_state_dict(before["st-resnet"])
