"""What the processes (ranks) of one run exchange; a single process exchanges nothing.

Several processes must have initialised `torch.distributed`. Every function raises `RankError` when another process has ended.
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
    """Add up the ranks' gradients in one message. They are parts of a sum over the whole batch, so nothing is divided."""
    if world == 1:
        return
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    _exchange(gradients, 1.0)


def average_moments(network: nn.Module, world: int) -> None:
    """Average the ranks' running moments in one message."""
    if world > 1:
        _exchange([buffer for buffer in network.buffers() if buffer.is_floating_point()], 1 / world)


def summed(values: Tensor, world: int) -> Tensor:
    """Return the sum over ranks."""
    if world > 1:
        with _others_needed():
            distributed.all_reduce(values)
    return values


def any_rank(flag: bool, device: torch.device, world: int) -> bool:
    """Return whether the flag is set in at least one rank."""
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
    """Return when all ranks have called this."""
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
    """Turn the errors of gloo and NCCL (closed connections, timeouts) into what they mean."""
    try:
        yield
    except RuntimeError as cause:
        reason = str(cause).strip().splitlines()[-1] if str(cause).strip() else repr(cause)
        raise RankError(
            f"another process of this run has ended, and its own message says why ({reason}). Start the processes again to continue "
            "from the last checkpoint"
        ) from cause
