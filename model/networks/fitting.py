"""Whether a state fits a stream: what is copied, inflated in time, averaged or drawn; and what does not fit, in terms of the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from flowkit.errors import CheckpointError
from flowkit.model.foreign.backbones import NAMES_SHOWN, RESNET, Naming, units_of
from flowkit.model.settings.network import DEPTH_OF_UNITS, NUM_RGB_CHANNELS
from flowkit.video.ids import first_few

# How a tensor of a stream gets its first value.
How = Literal["copied", "inflated", "averaged", "drawn"]


def fit_state(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str, *, pretrained: bool, naming: Naming = RESNET
) -> dict[str, How]:
    """Return how each tensor of a stream gets its first value from a state; only names and shapes are compared.

    Parameters
    ----------
    own : mapping of str to Tensor
        The stream's state; its tensors may be on the meta device.
    state : mapping of str to Tensor
        The state that the stream starts from.
    source : str
        What the error messages call the file.
    pretrained : bool
        Whether the weights are those of a network for other images and classes: another classifier, or none, is then replaced, and
        filters for RGB are averaged for flow. Otherwise only temporal taps may differ.
    naming : Naming
        What the stream's kind of network calls its first filters and its classifier.

    Raises
    ------
    CheckpointError
        If the state does not fit. It says what the file holds, and what this network has.
    """
    optional = {name for name in own if name in naming.classifier} if pretrained else set()
    if not any(map(is_counter, state)):
        # Files older than torch 0.4.1 lack these counters, which a batch normalisation with a fixed momentum never reads.
        optional |= {name for name in own if is_counter(name)}
    missing = [name for name in own if name not in state and name not in optional]
    unexpected = [name for name in state if name not in own]
    if missing or unexpected:
        raise CheckpointError(f"{source} does not hold this network's stream: {_misnamed(own, state, missing, unexpected)}")
    new_classifier = pretrained and any(name not in state or state[name].shape != own[name].shape for name in naming.classifier)
    how: dict[str, How] = {}
    for name, target in own.items():
        tensor = state.get(name)
        if tensor is None or (new_classifier and name in naming.classifier):
            how[name] = "drawn"
        elif tensor.shape == target.shape:
            how[name] = "copied"
        elif target.ndim == 5 and tensor.shape == target.shape[:2] + target.shape[3:]:
            how[name] = "inflated"
        elif pretrained and name == naming.first and tensor.shape == (target.shape[0], NUM_RGB_CHANNELS, *target.shape[2:]):
            how[name] = "averaged"
        else:
            raise CheckpointError(f"{source}: {_misshaped(name, tensor, target)}")
    return how


def fit_exactly(own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> None:
    """Raise `CheckpointError` unless a state has the very names and shapes of a network's."""
    differing = sorted(name for name in {*own, *state} if name not in own or name not in state or own[name].shape != state[name].shape)
    if differing:
        raise CheckpointError(
            f"{source} do not fit this network, in {first_few(differing, most=NAMES_SHOWN)}; both must have the same settings"
        )


def is_counter(name: str) -> bool:
    """Return whether a tensor is a batch normalisation's counter of batches."""
    return name.endswith(".num_batches_tracked")


def _misnamed(own: Mapping[str, Tensor], state: Mapping[str, Tensor], missing: list[str], unexpected: list[str]) -> str:
    """Describe a state that has other names than a stream."""
    its, ours = units_of(state), units_of(own)
    if its[0] and not any(name.endswith(".conv3.weight") for name in state):
        return "it has the basic blocks of ResNet-18 or ResNet-34, and this network has bottlenecks (ResNet-50, 101 or 152)"
    if 0 not in its and its != ours:
        advice = f"; choose --depth {DEPTH_OF_UNITS[its]}" if its in DEPTH_OF_UNITS else ""
        return f"its stages have {_units_text(its)} units, and this network's have {_units_text(ours)}{advice}"
    parts = [
        f"{len(names)} {what} ({first_few(names, most=NAMES_SHOWN)})"
        for what, names in (("missing", missing), ("unexpected", unexpected))
        if names
    ]
    return f"{'; '.join(parts)}; is it another architecture?"


def _misshaped(name: str, tensor: Tensor, target: Tensor) -> str:
    """Describe a tensor of another shape than a stream's."""
    its, ours = tuple(tensor.shape), tuple(target.shape)
    shapes = f"{name} has shape {its}, this network's has {ours}"
    if name == "conv1.weight" and len(its) == len(ours) == 4:
        if its[0] == ours[0] and its[2:] == ours[2:]:
            return f"its conv1 takes {_channels_text(its[1])}, and this stream's takes {_channels_text(ours[1])}"
        if its[0] != ours[0] and its[0] > 0:
            return f"{shapes}: it is {its[0]} channels wide, and this network {ours[0]}; choose --base-width {its[0]}"
    if len(its) == 5 and len(ours) == 4:
        return f"{shapes}: its convolution extends over {its[2]} frames, and a base stream sees one frame at a time"
    return f"{shapes}; the width, the depth and the number of classes must be the same, and so must the kind of ResNet"


def _channels_text(count: int) -> str:
    if count == NUM_RGB_CHANNELS:
        return "3 channels (RGB)"
    return f"{count} channels ({count // 2} flow fields)" if count % 2 == 0 else f"{count} channels"


def _units_text(units: tuple[int, ...]) -> str:
    depth = DEPTH_OF_UNITS.get(units)
    return f"{', '.join(map(str, units))}" + (f" (ResNet-{depth})" if depth else "")
