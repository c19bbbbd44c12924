"""The rules of an update, as the official code has them: loss, parameter groups, learning rate, running moments."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowkit.model.settings.training import TrainConfig

_BatchNorm = nn.modules.batchnorm._BatchNorm


def stream_losses(logits: Mapping[str, Tensor], labels: Tensor, *, num_videos: int) -> dict[str, Tensor]:
    """Return each stream's share of the loss; their sum is what is minimised (specs 2.3).

    Parameters
    ----------
    logits : dict from stream to float tensor, shape (b, T', num_classes)
        Of the b videos of a sub-batch.
    labels : int64 tensor, shape (b,)
    num_videos : int
        Videos of the whole batch.

    Returns
    -------
    dict from stream to scalar tensor
        Cross entropy summed over videos and time steps, divided by `num_videos` alone.
    """
    losses = {}
    for stream, values in logits.items():
        repeated = labels[:, None].expand(values.shape[:2]).reshape(-1)
        losses[stream] = functional.cross_entropy(values.flatten(0, 1).float(), repeated, reduction="sum") / num_videos
    return losses


def parameter_groups(network: nn.Module, config: TrainConfig) -> list[dict[str, object]]:
    """Sort the parameters by what their update is multiplied with (specs 1.5).

    Returns
    -------
    list of dict
        For `torch.optim.SGD`, with ``lr_multiplier`` besides: weights of convolutions and classifiers x1 and decayed; their biases
        x2, batch norm's gammas x2 and betas x1, none of them decayed.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            norm = isinstance(module, _BatchNorm)
            decayed = name == "weight" and not norm
            doubled = name == ("weight" if norm else "bias")
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
    torch's fused SGD is not for fp16's scaled loss: when the first step is one that the scaler leaves out, its momentum starts from
    memory that nothing was written to.
    """
    return torch.optim.SGD(parameter_groups(network, config), lr=0.0, momentum=config.momentum, fused=not scaled_loss)


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give each group its multiple of the step's learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["lr_multiplier"]


def running_moment_share(config: TrainConfig, step: int, num_forwards: int) -> float:
    """Return batch norm's momentum for each of the forwards of one step.

    Notes
    -----
    The official code updates the running moments once a step; here each of the step's `num_forwards` sub-batches does, with the
    share that lets the old moments fade as fast (specs 1.1).
    """
    share = config.bn_momentum if running_moment_share_settled(config, step) else 1 / (step + 1)
    kept: float = (1 - share) ** (1 / num_forwards)
    return 1 - kept


def running_moment_share_settled(config: TrainConfig, step: int) -> bool:
    """Return whether the running moments have the share that they keep; before, they are a plain average of all steps."""
    return not config.bn_average_first or 1 / (step + 1) <= config.bn_momentum


def set_running_moment_share(network: nn.Module, share: float) -> None:
    """Set the momentum of every batch norm layer."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = share
