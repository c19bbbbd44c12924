"""What several processes of one run tell each other; with one process, nothing. They must have initialised `torch.distributed`.

All raise `RankError` when another process has ended, whose own message then says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

from flowkit.errors import RankError

Item = TypeVar("Item")


def sum_gradients(network: nn.Module, world: int) -> None:
    """Add up the ranks' gradients, in one message: they are shares of a sum over the whole batch, so nothing is divided."""
    if world == 1:
        return
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    _exchange(gradients, 1.0)


def average_moments(network: nn.Module, world: int) -> None:
    """Average the ranks' running moments, in one message."""
    if world > 1:
        _exchange([buffer for buffer in network.buffers() if buffer.is_floating_point()], 1 / world)


def summed(values: Tensor, world: int) -> Tensor:
    """Return the sum over ranks."""
    if world > 1:
        with _others_needed():
            distributed.all_reduce(values)
    return values


def any_rank(flag: bool, device: torch.device, world: int) -> bool:
    """Return whether the flag is set in any rank."""
    return bool(summed(torch.tensor(float(flag), device=device), world) > 0) if world > 1 else flag


def gathered(item: Item, world: int) -> list[Item]:
    """Return every rank's item, by rank."""
    if world == 1:
        return [item]
    items: list[Item] = [item] * world
    with _others_needed():
        distributed.all_gather_object(items, item)
    return items


def wait(world: int) -> None:
    """Return when all ranks have come here."""
    if world > 1:
        with _others_needed():
            distributed.barrier()


def _exchange(tensors: Iterable[Tensor], factor: float) -> None:
    """Replace tensors by their sum over ranks times `factor`."""
    tensors = list(tensors)
    joined = torch.cat([tensor.reshape(-1) for tensor in tensors])
    with _others_needed():
        distributed.all_reduce(joined)
    parts = torch.split(joined * factor, [tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view(tensor.shape))


@contextmanager
def _others_needed() -> Iterator[None]:
    """Say what it means when an exchange fails: gloo and NCCL tell of closed connections and timeouts."""
    try:
        yield
    except RuntimeError as cause:
        reason = str(cause).strip().splitlines()[-1] if str(cause).strip() else repr(cause)
        raise RankError(
            f"another process of this run has ended, and its own message says why ({reason}). Started again, all go on from the last "
            "checkpoint"
        ) from cause
