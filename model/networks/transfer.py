"""A trained state as the start of another network: one stream of two without its extent in time, and a classifier for other classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from flowkit.model.foreign.backbones import NAMINGS
from flowkit.model.networks.resnet import CLASSIFIER_STD

CLASSIFIERS = tuple(name for naming in NAMINGS for name in naming.classifier)


def single_stream_state(state: Mapping[str, Tensor], stream: str) -> dict[str, Tensor]:
    """Return the state of a base stream from that of a network of two streams.

    Parameters
    ----------
    state : mapping of str to Tensor
        ``STResNet.state_dict()``, or already that of a `SingleStream`, which is returned as it is.
    stream : {"appearance", "motion"}
        Which of the two streams.

    Returns
    -------
    dict from str to Tensor
        A convolution over time, of weight (C_out, C_in, 3, 1, 1), becomes the sum of its taps, (C_out, C_in, 1, 1): what it computes
        inside a clip whose frames are all equal. This is the inverse of `inflate` (eq. 5 of the paper).

    Examples
    --------
    >>> import torch
    >>> from flowkit.model.networks.transfer import single_stream_state
    >>> state = {"motion.conv1.weight": torch.full((1, 1, 3, 1, 1), 2.0), "appearance.conv1.weight": torch.ones(1, 1, 7, 7)}
    >>> {name: (tuple(weight.shape), float(weight.max())) for name, weight in single_stream_state(state, "motion").items()}
    {'motion.conv1.weight': ((1, 1, 1, 1), 6.0)}
    """
    own = {name: tensor for name, tensor in state.items() if name.startswith(f"{stream}.")}
    return {name: tensor.sum(2) if tensor.ndim == 5 else tensor for name, tensor in own.items()}


def with_classes(
    state: Mapping[str, Tensor],
    before: Sequence[str],
    now: Sequence[str],
    *,
    classifier: Sequence[str] = CLASSIFIERS,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Return a state whose classifiers are for other classes.

    Parameters
    ----------
    state : mapping of str to Tensor
        A network's state, of one stream or two, with names that begin with those of the streams.
    before, now : sequence of str
        The class names by label: those of the state, and those that it is for.
    classifier : sequence of str
        The ends of the names of a classifier's parameters.
    generator : torch.Generator, optional
        The source of random numbers; by default torch's own.

    Returns
    -------
    dict from str to Tensor
        Classifiers keep their weights if the classes are the same; the rows change places if only their order differs. For all
        other classes they are new: weights from N(0, 0.01^2), zero biases.

    Examples
    --------
    >>> import torch
    >>> from flowkit.model.networks.transfer import with_classes
    >>> state = {"motion.fc.weight": torch.eye(2), "motion.fc.bias": torch.tensor([1.0, 2.0])}
    >>> with_classes(state, ["run", "walk"], ["walk", "run"])["motion.fc.bias"]
    tensor([2., 1.])
    >>> with_classes(state, ["run", "walk"], ["run", "sit", "walk"])["motion.fc.weight"].shape
    torch.Size([3, 2])
    """
    made = dict(state)
    if tuple(before) == tuple(now):
        return made
    rows = [before.index(name) for name in now] if sorted(before) == sorted(now) else None
    for name, tensor in state.items():
        if not name.endswith(tuple(f".{part}" for part in classifier)):
            continue
        if rows is not None:
            made[name] = tensor[rows]
        elif tensor.ndim == 2:
            made[name] = torch.empty(len(now), tensor.shape[1], dtype=tensor.dtype).normal_(std=CLASSIFIER_STD, generator=generator)
        else:
            made[name] = torch.zeros(len(now), dtype=tensor.dtype)
    return made
