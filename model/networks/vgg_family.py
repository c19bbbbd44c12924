"""VGG networks as a kind of network: streams that classify frames, or stacks of flow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from flowkit.errors import CheckpointError
from flowkit.model.foreign.backbones import VGG, find_backbone
from flowkit.model.foreign.state_dicts import PretrainedWeights, imagenet_shapes, pretrained_state
from flowkit.model.networks.family import NetworkFamily, PhaseNetwork, State
from flowkit.model.networks.vgg import VggSingleStream
from flowkit.model.networks.weights import check_pretrained, initialise_single_stream
from flowkit.model.settings.training import TrainConfig
from flowkit.model.settings.vgg import VggConfig


class VggFamily(NetworkFamily):
    """`VggSingleStream` for a phase of one stream."""

    classifier = VGG.classifier

    def build(self, config: TrainConfig, *, checkpoint_activations: bool = False) -> VggSingleStream:
        """Return the network of a phase, on the CPU."""
        assert isinstance(config.network, VggConfig)
        (stream,) = config.streams
        return VggSingleStream(config.network, stream, checkpoint_activations=checkpoint_activations)

    def initialise(self, network: PhaseNetwork, weights: PretrainedWeights | None, *, generator: torch.Generator) -> None:
        """Start from a pretrained VGG network, or from random weights."""
        assert isinstance(network, VggSingleStream)
        initialise_single_stream(network, weights, generator=generator)

    def check_pretrained(self, network: PhaseNetwork, state: State, source: str) -> None:
        """Check whether a stream can start from a pretrained VGG network."""
        assert isinstance(network, VggSingleStream)
        check_pretrained(network, state, source)

    def pretrained(self, source: Path | Literal["imagenet"], overrides: Mapping[str, Any]) -> PretrainedWeights:
        """Read a VGG network from a file, or fetch torchvision's VGG-16."""
        if source == "imagenet":
            self._check_kind(overrides)
        return pretrained_state(source, kind="vgg-16")

    def imagenet_shapes(self, overrides: Mapping[str, Any]) -> State:
        """Return the state of torchvision's VGG-16, on the meta device."""
        self._check_kind(overrides)
        return imagenet_shapes(kind="vgg-16")

    def describe(self, weights: PretrainedWeights, source: str) -> str:
        """Return which part of a larger model is used."""
        return str(find_backbone(weights.state, source, VGG))

    @staticmethod
    def _check_kind(overrides: Mapping[str, Any]) -> None:
        if overrides.get("kind") != "vgg-16":
            raise CheckpointError("torchvision has no VGG-M trained on ImageNet; give a file with --weights FILE, or use --weights none")
