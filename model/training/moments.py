"""The running moments of batch normalisation: once a step, from the mean over all of its groups, as in the official code.

That is MatConvNet's BatchNorm.m:42-51 and cnn_train_dag.m:526-530.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowkit.model.networks.resnet import GroupedBatchNorm
from flowkit.model.settings.network import BATCH_NORM_EPS
from flowkit.model.settings.training import BnMoments, TrainConfig


def share_of_step(config: TrainConfig, step: int) -> float:
    """Return the weight of a step's moments in the running moments."""
    return max(config.bn_momentum, 1 / (step + 1)) if config.bn_average_first else config.bn_momentum


class RunningMoments:
    """The running moments of all batch normalisations of a network, and what a step has added so far.

    Parameters
    ----------
    network : Module
        A network whose batches `set_groups` divides; it may have no batch normalisation. Those that do not learn keep their moments.
    kind : {"std", "variance"}
        What is averaged besides the means, within a step and from step to step.

    Attributes
    ----------
    sums : tensor, shape (2, C)
        Sums over the groups since the last update, of the channels of all layers: means, and standard deviations or variances. Several
        ranks add up theirs before the update.

    Notes
    -----
    A group's standard deviation is ``sqrt(variance + eps)`` with the biased variance, as in MatConvNet. The running variance is stored
    so that evaluation divides by exactly the mean standard deviation. Variances are unbiased, as in PyTorch.
    """

    def __init__(self, network: nn.Module, *, kind: BnMoments) -> None:
        self._kind = kind
        self._norms = [module for module in network.modules() if isinstance(module, GroupedBatchNorm) and module.weight.requires_grad]
        self._sizes = [norm.num_features for norm in self._norms]
        self._means = [_buffer(norm.running_mean) for norm in self._norms]
        self._variances = [_buffer(norm.running_var) for norm in self._norms]
        self._counts = [_buffer(norm.num_batches_tracked) for norm in self._norms]
        layers = [layer for layer, size in enumerate(self._sizes) for _ in range(size)]
        if not self._norms:
            self.sums = torch.zeros((2, 0), dtype=torch.float64)
            return
        self._layer_of_channel = torch.tensor(layers, device=self._means[0].device)
        self.sums = torch.zeros_like(torch.cat(self._means), dtype=torch.float64).repeat(2, 1)

    def add_pass(self) -> None:
        """Add the moments of the groups of the last pass through the network."""
        if not self._norms:
            return
        # All layers at once, because a GPU would spend more time on launching small kernels than on running them.
        means, spreads = torch.cat([_buffer(norm.group_moments) for norm in self._norms], 2).unbind()
        if self._kind == "std":
            biased = 1 - 1 / torch.stack([_buffer(norm.values_per_group) for norm in self._norms])
            spreads = (spreads * biased[self._layer_of_channel] + BATCH_NORM_EPS).sqrt()
        self.sums += torch.stack([means, spreads]).sum(1, dtype=torch.float64)

    def update(self, *, num_groups: int, share: float) -> None:
        """Give the mean over a step's groups, of all ranks, this weight in the running moments, and begin the next step."""
        if not self._norms:
            return
        mean, spread = (self.sums / num_groups).to(self._means[0].dtype)
        _replace(self._means, torch.cat(self._means).lerp_(mean, share), self._sizes)
        old = torch.cat(self._variances)
        if self._kind == "std":
            new = (old + BATCH_NORM_EPS).sqrt_().lerp_(spread, share).square_().sub_(BATCH_NORM_EPS).clamp_(min=0)
        else:
            new = old.lerp_(spread, share)
        _replace(self._variances, new, self._sizes)
        torch._foreach_add_(self._counts, num_groups)
        self.sums.zero_()


def _buffer(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor


def _replace(tensors: list[Tensor], joined: Tensor, sizes: list[int]) -> None:
    torch._foreach_copy_(tensors, list(torch.split(joined, sizes)))
