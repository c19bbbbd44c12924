"""Residual networks as a kind of network: base streams, ST-ResNet and ST-ResNet*."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from flowkit.model.foreign.backbones import find_backbone
from flowkit.model.foreign.state_dicts import PretrainedWeights, imagenet_shapes, pretrained_state
from flowkit.model.networks.family import NetworkFamily, PhaseNetwork, State
from flowkit.model.networks.stresnet import SingleStream, STResNet
from flowkit.model.networks.transfer import single_stream_state
from flowkit.model.networks.weights import check_pretrained, check_streams, initialise_from_streams, initialise_single_stream
from flowkit.model.settings.network import STResNetConfig
from flowkit.model.settings.network_config import STREAMS
from flowkit.model.settings.training import TrainConfig


class ResidualFamily(NetworkFamily):
    """`SingleStream` for a phase of one stream, and `STResNet` for a phase of two."""

    def build(self, config: TrainConfig, *, checkpoint_activations: bool = False) -> SingleStream | STResNet:
        """Return the network of a phase, on the CPU."""
        assert isinstance(config.network, STResNetConfig)
        if len(config.streams) == 1:
            return SingleStream(config.network, config.streams[0], checkpoint_activations=checkpoint_activations)
        return STResNet(config.network, checkpoint_activations=checkpoint_activations)

    def initialise(self, network: PhaseNetwork, weights: PretrainedWeights | None, *, generator: torch.Generator) -> None:
        """Start a base stream from a ResNet, or from random weights."""
        assert isinstance(network, SingleStream)
        initialise_single_stream(network, weights, generator=generator)

    def check_pretrained(self, network: PhaseNetwork, state: State, source: str) -> None:
        """Check whether a base stream can start from a ResNet."""
        assert isinstance(network, SingleStream)
        check_pretrained(network, state, source)

    def pretrained(self, source: Path | Literal["imagenet"], overrides: Mapping[str, Any]) -> PretrainedWeights:
        """Read a ResNet from a file, or fetch torchvision's."""
        return pretrained_state(source, overrides.get("depth", 50), stride_in_1x1=overrides.get("stride_in_1x1"))

    def imagenet_shapes(self, overrides: Mapping[str, Any]) -> State:
        """Return the state of torchvision's ResNet, on the meta device."""
        return imagenet_shapes(overrides.get("depth", 50))

    def settings_of(self, weights: PretrainedWeights) -> dict[str, Any]:
        """Return which convolutions have the stride, as a file says it, and what else it needs."""
        return {"stride_in_1x1": weights.stride_in_1x1, **weights.network}

    def imagenet_settings(self) -> dict[str, Any]:
        """Return that in torchvision's network the 3x3 convolutions have the stride."""
        return {"stride_in_1x1": False}

    def describe(self, weights: PretrainedWeights, source: str) -> str:
        """Return which part of a larger model is used."""
        return str(find_backbone(weights.state, source))

    def start(self, network: PhaseNetwork, states: Mapping[str, State], *, generator: torch.Generator) -> None:
        """Start ST-ResNet from its base streams, and any network from another of the same parameters."""
        if _are_streams(states):
            assert isinstance(network, STResNet)
            initialise_from_streams(network, *(states[stream] for stream in STREAMS))
        else:
            super().start(network, states, generator=generator)

    def check_start(self, network: PhaseNetwork, states: Mapping[str, State]) -> None:
        """Check whether a network can start from earlier phases, of which some may still be missing."""
        if _are_streams(states):
            assert isinstance(network, STResNet)
            check_streams(network, **{f"{name}_state": state for name, state in states.items()})
        else:
            super().check_start(network, states)

    def stream_state(self, state: State, stream: str) -> State:
        """Return the weights of one stream, with the taps of its temporal convolutions summed."""
        return single_stream_state(state, stream)


def _are_streams(states: Mapping[str, State]) -> bool:
    """Return whether these are the weights of base streams, which bear the names of their streams."""
    return bool(states) and set(states) <= set(STREAMS)
