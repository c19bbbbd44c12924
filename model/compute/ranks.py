"""What the processes (ranks) of one run exchange; a single process exchanges nothing.

Several processes must have initialised `torch.distributed`. Every function raises `RankError` when another process has ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, distributed

from flowkit.errors import RankError

Item = TypeVar("Item")


def sum_in_place(tensors: Sequence[Tensor], world: int) -> None:
    """Replace each tensor by its sum over ranks, in one message."""
    if world == 1:
        return
    joined = torch.cat([tensor.reshape(-1) for tensor in tensors])
    with _others_needed():
        distributed.all_reduce(joined)
    for tensor, part in zip(tensors, torch.split(joined, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view(tensor.shape))


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
