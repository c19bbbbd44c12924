"""The first weights of networks: from a pretrained ResNet, from trained base streams, or random.

Names and shapes must match. Between a ResNet's state and a stream's, only this may differ: the stream's prefix, temporal taps
(`inflate`, eq. 5), a motion stream's first convolution, and a classifier for another number of classes. Each is recorded in an
`Initialisation` and logged.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from flowkit.errors import CheckpointError, ParameterError
from flowkit.model.foreign.state_dicts import PretrainedWeights
from flowkit.model.networks.resnet import ResidualStream
from flowkit.model.networks.stresnet import SingleStream, STResNet
from flowkit.model.networks.temporal_conv import inflate

logger = logging.getLogger(__name__)

NUM_RGB_CHANNELS = 3
CLASSIFIER = ("fc.weight", "fc.bias")
NUM_NAMES_SHOWN = 3


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
        Whether the RGB filters of conv1 were averaged for flow channels.
    new_classifier : bool
        Whether the weights of `fc` are random, for another number of classes.
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
    model: SingleStream, weights: PretrainedWeights | None, *, generator: torch.Generator | None = None
) -> Initialisation:
    """Start a base stream from pretrained weights, or from random ones.

    Parameters
    ----------
    model : SingleStream
        The base stream.
    weights : PretrainedWeights or None
        A ResNet's weights, or those of a `SingleStream` of the same stream. None draws random ones as He et al. do.
    generator : torch.Generator, optional
        The source of random numbers, on the model's device; by default torch's own.

    Raises
    ------
    CheckpointError
        If a name is missing or unexpected, or a shape differs by more than the classifier's number of classes.
    ParameterError
        If the network's `stride_in_1x1` is not that of the weights.

    Notes
    -----
    A motion stream's conv1 becomes the mean of the RGB filters for every flow channel, without rescaling.
    """
    if weights is None:
        model.stream.reset_parameters(generator)
        return _reported(model.stream_name, Initialisation("random weights"))
    if weights.stride_in_1x1 != model.config.stride_in_1x1:
        raise ParameterError(
            f"{weights.source} was trained with stride_in_1x1={weights.stride_in_1x1}, the network has "
            f"stride_in_1x1={model.config.stride_in_1x1}; use the weights' own"
        )
    state = _without_prefix(weights.state, model.stream_name)
    return _reported(model.stream_name, _load(model.stream, state, weights.source, pretrained=True, generator=generator))


def initialise_from_streams(
    model: STResNet, appearance_state: Mapping[str, Tensor], motion_state: Mapping[str, Tensor]
) -> tuple[Initialisation, Initialisation]:
    """Start an ST-ResNet from its two trained base streams, classifiers included.

    Parameters
    ----------
    model : STResNet
        The two-stream network.
    appearance_state, motion_state : mapping of str to Tensor
        ``SingleStream.state_dict()`` of the streams.

    Raises
    ------
    CheckpointError
        If a name is missing or unexpected, or a shape differs by more than the temporal taps of eq. 5.
    """
    appearance = _load(model.appearance, _without_prefix(appearance_state, "appearance"), "the appearance stream")
    motion = _load(model.motion, _without_prefix(motion_state, "motion"), "the motion stream")
    return _reported("appearance", appearance), _reported("motion", motion)


def _load(
    stream: ResidualStream, state: Mapping[str, Tensor], source: str, *, pretrained: bool = False, generator: torch.Generator | None = None
) -> Initialisation:
    """Copy a state into a stream, or raise an error and leave it unchanged; only `pretrained` weights may have another conv1 or fc."""
    own = stream.state_dict()
    missing = [name for name in own if name not in state]
    if missing and all(map(_is_counter, missing)) and not any(map(_is_counter, state)):
        # Files older than torch 0.4.1 lack these counters, which a batch normalisation with a fixed momentum never reads.
        state = {**state, **{name: torch.zeros_like(own[name]) for name in missing}}
        missing = []
    unexpected = [name for name in state if name not in own]
    if missing or unexpected:
        raise CheckpointError(
            f"{source} does not hold this network's stream: {_names('missing', missing)}{_names('unexpected', unexpected)}"
            "is it another architecture or depth?"
        )
    fitted: dict[str, Tensor] = {}
    inflated = []
    cross_modality = new_classifier = False
    for name, target in own.items():
        tensor = state[name].to(target.dtype)
        if tensor.shape == target.shape:
            fitted[name] = tensor
        elif target.ndim == 5 and tensor.shape == target.shape[:2] + target.shape[3:]:
            fitted[name] = inflate(tensor, stream.config.temporal_init)
            inflated.append(name)
        elif pretrained and name == "conv1.weight" and tensor.shape == (target.shape[0], NUM_RGB_CHANNELS, *target.shape[2:]):
            fitted[name] = tensor.mean(1, keepdim=True).expand_as(target)
            cross_modality = True
        elif pretrained and name in CLASSIFIER and tensor.shape[1:] == target.shape[1:]:
            fitted[name] = target
            new_classifier = True
        else:
            raise CheckpointError(
                f"{source}: {name} has shape {tuple(tensor.shape)}, this network's has {tuple(target.shape)}; "
                "base_width, depth and number of classes must be those of the weights"
            )
    stream.load_state_dict(fitted)
    if new_classifier:
        stream.reset_classifier(generator)
    num_copied = len(own) - len(inflated) - cross_modality - len(CLASSIFIER) * new_classifier
    return Initialisation(source, num_copied, tuple(inflated), cross_modality, new_classifier)


def _reported(stream: str, done: Initialisation) -> Initialisation:
    logger.info("%s stream from %s", stream, done)
    return done


def _is_counter(name: str) -> bool:
    return name.endswith(".num_batches_tracked")


def _names(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = ", ..." if len(names) > NUM_NAMES_SHOWN else ""
    return f"{len(names)} {what} ({', '.join(names[:NUM_NAMES_SHOWN])}{more}); "


def _without_prefix(state: Mapping[str, Tensor], stream: str) -> dict[str, Tensor]:
    """Remove the stream's prefix if every name has it."""
    prefix = stream + "."
    if all(name.startswith(prefix) for name in state):
        return {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return dict(state)
