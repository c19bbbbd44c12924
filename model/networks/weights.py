"""The first weights of networks: from a pretrained ResNet or VGG network, from trained base streams, or random.

Names and shapes must match. Between a pretrained state and a stream's, only this may differ: a prefix, temporal taps (`inflate`,
eq. 5), a motion stream's first convolution, and another classifier, or none. Each is recorded in an `Initialisation` and logged.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from flowkit.errors import CheckpointError, ParameterError
from flowkit.model.foreign.backbones import Naming, find_backbone
from flowkit.model.foreign.state_dicts import PretrainedWeights
from flowkit.model.networks.fitting import fit_state, is_counter
from flowkit.model.networks.layers.temporal_conv import inflate
from flowkit.model.networks.resnet import ResidualStream
from flowkit.model.settings.network_config import StreamName

logger = logging.getLogger(__name__)


class Stream(Protocol):
    """What the first weights of a stream need of its network."""

    naming: Naming

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors by their names."""

    def load_state_dict(self, state: Mapping[str, Tensor], /) -> Any:
        """Copy the tensors of a state."""

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights."""

    def reset_classifier(self, generator: torch.Generator | None = None) -> None:
        """Draw those of the classifier."""


class BaseNetwork(Protocol):
    """A network of one stream, such as `SingleStream`."""

    stream_name: StreamName

    @property
    def stream(self) -> Stream:
        """The stream's network."""


class JoinedNetwork(Protocol):
    """A network that starts from two trained streams, such as `STResNet`."""

    appearance: Any
    motion: Any


@dataclass(frozen=True)
class Initialisation:
    """Where one stream's weights came from, and everything that was not a plain copy.

    Parameters
    ----------
    source : str
        The weights' origin, in words.
    num_copied : int
        The number of tensors that were copied unchanged.
    inflated : tuple of str
        The 1x1 convolutions that received temporal taps.
    cross_modality : bool
        Whether the RGB filters of the first convolution were averaged for flow channels.
    new_classifier : bool
        Whether the weights of the classifier are random, for another number of classes.
    """

    source: str
    num_copied: int = 0
    inflated: tuple[str, ...] = ()
    cross_modality: bool = False
    new_classifier: bool = False

    def __str__(self) -> str:
        changes = [f"{len(self.inflated)} layers inflated in time"] if self.inflated else []
        changes += ["conv1 averaged over RGB for flow channels"] if self.cross_modality else []
        changes += ["new classifier"] if self.new_classifier else []
        return "; ".join([f"{self.source}: {self.num_copied} tensors copied", *changes])


def initialise_single_stream(
    model: BaseNetwork, weights: PretrainedWeights | None, *, generator: torch.Generator | None = None
) -> Initialisation:
    """Start a base stream from pretrained weights, or from random ones.

    Parameters
    ----------
    model : SingleStream, VggSingleStream, DynamicImageNetwork or C3DNetwork
        The base stream.
    weights : PretrainedWeights or None
        The weights of a network of the stream's kind, which may stand within a larger model's; see `find_backbone`. None draws random
        ones as He et al. do.
    generator : torch.Generator, optional
        The source of random numbers, on the model's device; by default torch's own.

    Raises
    ------
    CheckpointError
        If a name is missing or unexpected, or a shape differs, unless it is the classifier's.
    ParameterError
        If the network's `stride_in_1x1` is not that of the weights.

    Notes
    -----
    A motion stream's conv1 becomes the mean of the RGB filters for every flow channel, without rescaling.
    """
    if weights is None:
        model.stream.reset_parameters(generator)
        return _reported(model.stream_name, Initialisation("random weights"))
    if isinstance(model.stream, ResidualStream) and weights.stride_in_1x1 != model.stream.config.stride_in_1x1:
        raise ParameterError(
            f"{weights.source} was trained with stride_in_1x1={weights.stride_in_1x1}, the network has "
            f"stride_in_1x1={model.stream.config.stride_in_1x1}; use the weights' own"
        )
    naming = model.stream.naming
    state = find_backbone(weights.state, weights.source, naming).state
    if weights.conv1_for_flow is not None and model.stream_name == "motion":
        state[naming.first] = weights.conv1_for_flow
    return _reported(model.stream_name, _load(model.stream, state, weights.source, pretrained=True, generator=generator))


def check_pretrained(model: BaseNetwork, state: Mapping[str, Tensor], source: str) -> None:
    """Raise `CheckpointError` if `initialise_single_stream` would, or if the weights are not finite numbers.

    The model and the state may be on the meta device.
    """
    naming = model.stream.naming
    own, state = model.stream.state_dict(), find_backbone(state, source, naming).state
    fit_state(own, state, source, pretrained=True, naming=naming)
    for name, tensor in state.items():
        if is_counter(name) or tensor.is_meta:
            continue
        if not tensor.is_floating_point():
            raise CheckpointError(
                f"{source}: {name} holds whole numbers ({str(tensor.dtype).removeprefix('torch.')}), which are no weights"
            )
        if not tensor.isfinite().all():
            raise CheckpointError(f"{source}: {name} holds NaN or infinity, so its training failed; use an earlier file")
        if name.endswith("running_var") and (tensor < 0).any():
            raise CheckpointError(f"{source}: {name} holds negative variances, so the file is damaged; copy it again")


def check_streams(
    model: JoinedNetwork, *, appearance_state: Mapping[str, Tensor] | None = None, motion_state: Mapping[str, Tensor] | None = None
) -> None:
    """Raise `CheckpointError` if `initialise_from_streams` would, for those states that are given; the model may be on the meta device."""
    for stream, name, state in ((model.appearance, "appearance", appearance_state), (model.motion, "motion", motion_state)):
        if state is not None:
            fit_state(stream.state_dict(), _without_prefix(state, name), f"the {name} stream", pretrained=False)


def initialise_from_streams(
    model: JoinedNetwork, appearance_state: Mapping[str, Tensor], motion_state: Mapping[str, Tensor]
) -> tuple[Initialisation, Initialisation]:
    """Start a network of two streams from both, trained, classifiers included.

    Parameters
    ----------
    model : STResNet or FusionNetwork
        The two-stream network.
    appearance_state, motion_state : mapping of str to Tensor
        The states of the streams' own networks.

    Raises
    ------
    CheckpointError
        If a name is missing or unexpected, or a shape differs by more than the temporal taps of eq. 5.
    """
    appearance = _load(model.appearance, _without_prefix(appearance_state, "appearance"), "the appearance stream")
    motion = _load(model.motion, _without_prefix(motion_state, "motion"), "the motion stream")
    return _reported("appearance", appearance), _reported("motion", motion)


def _load(
    stream: Stream,
    state: Mapping[str, Tensor],
    source: str,
    *,
    pretrained: bool = False,
    generator: torch.Generator | None = None,
) -> Initialisation:
    """Copy a state into a stream, or raise an error and leave it unchanged; `pretrained` weights may have other filters or classes."""
    own, naming = stream.state_dict(), stream.naming
    how = fit_state(own, state, source, pretrained=pretrained, naming=naming)
    fitted: dict[str, Tensor] = {}
    for name, target in own.items():
        if how[name] == "drawn":
            fitted[name] = torch.zeros_like(target)
        elif how[name] == "inflated":
            assert isinstance(stream, ResidualStream)
            fitted[name] = inflate(state[name].to(target.dtype), stream.config.temporal_init)
        elif how[name] == "averaged":
            fitted[name] = state[name].to(target.dtype).mean(1, keepdim=True).expand_as(target)
        else:
            fitted[name] = state[name].to(target.dtype)
    stream.load_state_dict(fitted)
    new_classifier = how[naming.classifier[0]] == "drawn"
    if new_classifier:
        stream.reset_classifier(generator)
    return Initialisation(
        source,
        num_copied=sum(value == "copied" or is_counter(name) for name, value in how.items()),
        inflated=tuple(name for name, value in how.items() if value == "inflated"),
        cross_modality=how[naming.first] == "averaged",
        new_classifier=new_classifier,
    )


def _reported(stream: str, done: Initialisation) -> Initialisation:
    logger.info("%s stream from %s", stream, done)
    return done


def _without_prefix(state: Mapping[str, Tensor], stream: str) -> dict[str, Tensor]:
    """Remove the stream's prefix if every name has it."""
    prefix = stream + "."
    if all(name.startswith(prefix) for name in state):
        return {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return dict(state)
