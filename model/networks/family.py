"""What every kind of network offers: one protocol for training, testing, features and first weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from flowkit.errors import CheckpointError, ParameterError
from flowkit.model.foreign.backbones import RESNET
from flowkit.model.foreign.state_dicts import PretrainedWeights
from flowkit.model.networks.fitting import fit_exactly
from flowkit.model.settings.network_config import StreamName
from flowkit.model.settings.training import TrainConfig

State = Mapping[str, Tensor]


class PhaseNetwork(nn.Module):
    """The base of the networks that a phase can train.

    The names of its parameters begin with those of its streams, such as ``motion.conv1.weight``.
    """

    def stream_logits(self, rgb: Tensor | None, flow: Tensor | None) -> dict[str, Tensor]:
        """Return the logits (B, T', num_classes) of each stream.

        Parameters
        ----------
        rgb, flow : float tensor, shape (B, T, 3, H, W) and (B, T, 20, H, W), normalised, or None
            The inputs of the appearance and of the motion stream, for the streams that the network has.
        """
        raise NotImplementedError

    def logits_of_features(self, features: Tensor) -> dict[str, Tensor]:
        """Return the logits (B, T', num_classes) of each stream of a network whose settings say that it learns from features (B, T, D)."""
        raise NotImplementedError

    def step_weights(self, num_steps: int) -> Tensor | None:
        """Return how much each of the T' time steps counts in the loss: float (T',); None if they count alike."""
        return None

    def first_hidden(self, rgb: Tensor | None, flow: Tensor | None) -> dict[str, Tensor]:
        """Return the first fully connected layer (B, T', D) of each stream, averaged over the positions of the head.

        Raises
        ------
        ParameterError
            If the network has no hidden layers.
        """
        raise ParameterError(f"{type(self).__name__} has no layer fc6")

    @property
    def hidden_sizes(self) -> dict[str, int]:
        """D of the first fully connected layer of each stream; empty if the network has no hidden layers."""
        return {}

    @property
    def classifiers(self) -> dict[StreamName, nn.Linear]:
        """The last layer of each stream, whose inputs are the features."""
        raise NotImplementedError


class NetworkFamily(ABC):
    """One kind of network: how it is built, and where its first weights come from.

    The methods that check raise `CheckpointError` if what they are named after would fail; their network may be on the meta device.

    Attributes
    ----------
    classifier : tuple of str
        The ends of the names of the parameters of a classifier, which are new where the classes are others.
    """

    classifier: tuple[str, ...] = RESNET.classifier

    @abstractmethod
    def build(self, config: TrainConfig, *, checkpoint_activations: bool = False) -> PhaseNetwork:
        """Return the network of a phase, on the CPU."""

    @abstractmethod
    def initialise(self, network: PhaseNetwork, weights: PretrainedWeights | None, *, generator: torch.Generator) -> None:
        """Set the first weights of a network that starts from no other phase: pretrained ones, or random ones for None."""

    def check_pretrained(self, network: PhaseNetwork, state: State, source: str) -> None:
        """Check whether a network can start from pretrained weights."""
        raise CheckpointError(f"{source} cannot be the first weights of this kind of network; use --weights none")

    def pretrained(self, source: Path | Literal["imagenet"], overrides: Mapping[str, Any]) -> PretrainedWeights:
        """Read pretrained weights from a file, or fetch those that ``imagenet`` means; `overrides` are the user's values of the recipe."""
        raise CheckpointError(f"this kind of network cannot start from {source}; use --weights none")

    def imagenet_shapes(self, overrides: Mapping[str, Any]) -> State:
        """Return the state of the weights that ``imagenet`` means, on the meta device and without a download."""
        raise CheckpointError("flowkit has no weights trained on ImageNet for this kind of network; use --weights none")

    def settings_of(self, weights: PretrainedWeights) -> dict[str, Any]:
        """Return the settings that a network must have for pretrained weights of a file."""
        return dict(weights.network)

    def imagenet_settings(self) -> dict[str, Any]:
        """Return the settings that a network must have for the weights that ``imagenet`` means."""
        return {}

    def describe(self, weights: PretrainedWeights, source: str) -> str:
        """Return in words what of a file is used; empty if there is nothing to say."""
        return ""

    def start(self, network: PhaseNetwork, states: Mapping[str, State], *, generator: torch.Generator) -> None:
        """Set the first weights of a network from the final weights of earlier phases, by their names; here, of one like itself.

        What is new in the network is drawn by the generator.
        """
        self.check_start(network, states)
        (state,) = states.values()
        network.load_state_dict(dict(state))

    def check_start(self, network: PhaseNetwork, states: Mapping[str, State]) -> None:
        """Check whether a network can start from the weights of earlier phases, of which some may still be missing."""
        for name, state in states.items():
            fit_exactly(network.state_dict(), state, f"the weights of {name}")

    def stream_state(self, state: State, stream: str) -> State:
        """Return the weights of one stream out of those of a network of several, for a network of that stream alone."""
        return {name: tensor for name, tensor in state.items() if name.startswith(f"{stream}.")}
