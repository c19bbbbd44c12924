"""The network within a state dict: under which prefix its tensors stand, and what else the state holds, such as a head."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from flowkit.errors import CheckpointError
from flowkit.video.ids import first_few

_UNIT = re.compile(r"layer([1-4])\.(\d+)\.")
NAMES_SHOWN = 3


@dataclass(frozen=True)
class Naming:
    """How torchvision names the tensors of a kind of network.

    Parameters
    ----------
    kind : str
        The kind, in words.
    anchor : str
        A tensor that every such network has.
    body : re.Pattern
        What the names of its tensors begin with, the classifier's apart.
    first : str
        The filters of the first convolution, which see the channels of the input.
    classifier : tuple of str
        Weight and bias of the last layer, which depend on the number of classes.
    """

    kind: str
    anchor: str
    body: re.Pattern[str]
    first: str
    classifier: tuple[str, str]


RESNET = Naming("ResNet", "layer1.0.conv1.weight", re.compile(r"(conv1|bn1|layer[1-4])\."), "conv1.weight", ("fc.weight", "fc.bias"))
VGG = Naming(
    *("VGG network", "features.0.weight", re.compile(r"features\.|classifier\.[03]\."), "features.0.weight"),
    ("classifier.6.weight", "classifier.6.bias"),
)
C3D = Naming("C3D", "conv1a.weight", re.compile(r"conv[1-5][ab]\.|fc[67]\."), "conv1a.weight", ("fc8.weight", "fc8.bias"))
NAMINGS = (RESNET, VGG, C3D)


@dataclass(frozen=True)
class Backbone:
    """A network that was found in a state dict.

    Parameters
    ----------
    state : dict of str to Tensor
        Its tensors under torchvision's names, and the classifier if there is one.
    prefix : str
        What stood before these names, such as ``module.``.
    left_out : tuple of str
        The other names of the state dict: other heads, and other parts of a larger model.
    """

    state: dict[str, Tensor]
    prefix: str
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        notes = [f"the network under {self.prefix!r}"] if self.prefix else []
        notes += [f"not read: {first_few(self.left_out, most=NAMES_SHOWN)}"] if self.left_out else []
        return "; ".join(notes)


def find_backbone(state: Mapping[str, Tensor], source: str, naming: Naming = RESNET) -> Backbone:
    """Return the ResNet, or another kind of network, within a state dict.

    Parameters
    ----------
    state : mapping of str to Tensor
        The tensors of a file.
    source : str
        What the error messages call the file.
    naming : Naming
        The kind of network.

    Raises
    ------
    CheckpointError
        If there is no such network, or more than one, so that it is not clear which one is meant.

    Notes
    -----
    MoCo's files hold two copies of a network; the one that is trained is ``encoder_q``, and ``encoder_k`` is its running average.

    Examples
    --------
    >>> import torch
    >>> from flowkit.model.foreign.backbones import find_backbone
    >>> names = ["module.conv1.weight", "module.layer1.0.conv1.weight", "module.fc.weight", "module.fc_action.weight"]
    >>> backbone = find_backbone({name: torch.zeros(1) for name in names}, "weights.pth")
    >>> list(backbone.state)
    ['conv1.weight', 'layer1.0.conv1.weight', 'fc.weight']
    >>> print(backbone)
    the network under 'module.'; not read: module.fc_action.weight
    """
    anchor = naming.anchor
    prefixes = [name.removesuffix(anchor) for name in state if name == anchor or name.endswith(f".{anchor}")]
    prefixes = [prefix for prefix in prefixes if not (prefix.endswith("encoder_k.") and f"{prefix[:-2]}q." in prefixes)]
    if not prefixes:
        held = f"its names are {first_few(state, most=NAMES_SHOWN)}" if state else "it holds no tensors"
        raise CheckpointError(f"{source} holds no {naming.kind}: {anchor} is missing; {held}")
    if len(prefixes) > 1:
        raise CheckpointError(
            f"{source} holds {len(prefixes)} networks, under {' and '.join(map(repr, sorted(prefixes)))}; give a file that holds one"
        )
    (prefix,) = prefixes
    inner = {name.removeprefix(prefix): name for name in state if name.startswith(prefix)}
    taken = {name: outer for name, outer in inner.items() if naming.body.match(name) or name in naming.classifier}
    left_out = tuple(name for name in state if name not in set(taken.values()))
    return Backbone({name: state[outer] for name, outer in taken.items()}, prefix, left_out)


def units_of(names: Iterable[str]) -> tuple[int, ...]:
    """Return how many units each of a ResNet's four stages has, by the names of its tensors."""
    units = [0, 0, 0, 0]
    for name in names:
        if match := _UNIT.match(name):
            stage = int(match[1]) - 1
            units[stage] = max(units[stage], int(match[2]) + 1)
    return tuple(units)
