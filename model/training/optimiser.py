"""The rules of an update, as in the official code (cnn_train_dag.m:526-539): loss, parameter groups, learning rate, sums of gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowkit.model.settings.training import TrainConfig

_BatchNorm = nn.modules.batchnorm._BatchNorm


def class_weights(labels: Sequence[int], num_classes: int) -> Tensor:
    """Return the inverse frequency of each class, with mean 1 over the videos: float32 (num_classes,), 0 for a class without video.

    Examples
    --------
    >>> from flowkit.model.training.optimiser import class_weights
    >>> class_weights([0, 0, 0, 2], num_classes=3)
    tensor([0.6667, 0.0000, 2.0000])
    """
    counts = torch.bincount(torch.tensor(labels), minlength=num_classes).double()
    return torch.where(counts > 0, len(labels) / (counts > 0).sum() / counts, 0.0).float()


def stream_losses(
    logits: Mapping[str, Tensor], labels: Tensor, *, num_videos: int, weights: Tensor | None = None, steps: Tensor | None = None
) -> dict[str, Tensor]:
    """Return each stream's part of the loss; training minimises the sum of the two streams.

    Parameters
    ----------
    logits : dict from stream to float tensor, shape (b, T', num_classes)
        The logits of the b videos of a sub-batch.
    labels : int64 tensor, shape (b,)
        Their classes.
    num_videos : int
        The number of videos in the batch.
    weights : float tensor, shape (num_classes,), optional
        What the cross entropy of each video of a class is multiplied by; see `class_weights`.
    steps : float tensor, shape (T',), optional
        What the cross entropy of each time step is multiplied by. Default: 1.

    Returns
    -------
    dict from stream to scalar tensor
        The cross entropy, summed over videos and time steps and divided only by `num_videos`.
    """
    losses = {}
    for stream, values in logits.items():
        repeated = labels[:, None].expand(values.shape[:2]).reshape(-1)
        each = functional.cross_entropy(
            values.flatten(0, 1).float(), repeated, weight=weights, reduction="sum" if steps is None else "none"
        )
        losses[stream] = (each if steps is None else (each.view(values.shape[:2]) * steps).sum()) / num_videos
    return losses


def parameter_groups(network: nn.Module, config: TrainConfig) -> list[dict[str, object]]:
    """Sort the parameters by the multiples of learning rate and decay that the official code gives them (MatConvNet, setLrWd.m:16-42).

    Returns
    -------
    list of dict
        Groups for `torch.optim.SGD`, each with an ``lr_multiplier``. Weights of convolutions and classifiers have the learning rate
        times 1, with decay; their biases times 2, and batch normalisation's gammas times 2 and betas times 1, without decay.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            norm = isinstance(module, _BatchNorm)
            # An LSTM has several of each, such as weight_ih_l0.
            decayed = name.startswith("weight") and not norm
            doubled = name.startswith("weight" if norm else "bias")
            key = (2.0 if doubled else 1.0, config.weight_decay if decayed else 0.0)
            groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "lr": 0.0, "lr_multiplier": multiplier, "weight_decay": decay}
        for (multiplier, decay), parameters in groups.items()
    ]


def make_optimiser(network: nn.Module, config: TrainConfig, *, scaled_loss: bool = False) -> torch.optim.SGD:
    """Return SGD with momentum over `parameter_groups`.

    Notes
    -----
    PyTorch's fused SGD does not suit fp16's scaled loss: if the scaler skips the first step, the momentum starts from uninitialised
    memory.
    """
    return torch.optim.SGD(parameter_groups(network, config), lr=0.0, momentum=config.momentum, fused=not scaled_loss)


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of each parameter group to its multiple of `rate`."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["lr_multiplier"]


class GradientSums:
    """The gradients of a step, added up pass by pass.

    Attributes
    ----------
    sums : list of tensor
        The sums so far. Several ranks add up theirs before `write`.

    Notes
    -----
    The sums are in float64, so that their order hardly changes them. In float32 the rounding would differ between numbers of ranks,
    and batch normalisation over a few small maps magnifies that within some steps to visible differences.
    """

    def __init__(self, network: nn.Module) -> None:
        self._parameters = list(network.parameters())
        self.sums: list[Tensor] = []

    def add(self) -> None:
        """Add the gradients of the last pass, and delete them."""
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        if self.sums:
            torch._foreach_add_(self.sums, gradients)
        else:
            self.sums = [gradient.double() for gradient in gradients]
            self._summed = [parameter for parameter in self._parameters if parameter.grad is not None]
        for parameter in self._summed:
            parameter.grad = None

    def write(self) -> None:
        """Give the sums to the optimiser as gradients, and begin the next step."""
        for parameter, total in zip(self._summed, self.sums, strict=True):
            parameter.grad = torch.empty_like(parameter).copy_(total)
        self.sums = []
