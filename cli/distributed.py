"""One of several processes that torchrun started, or the only one."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def ranks_from_environment(device: str) -> Iterator[tuple[int, int, str]]:
    """Yield this process's rank, how many there are, and its device; join the others where torchrun started several.

    Notes
    -----
    ``torchrun --nproc-per-node N -m flowkit.cli train ...``. On CUDA each local process takes the GPU of its local rank.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 or "RANK" not in os.environ:
        yield 0, 1, device
        return
    import torch
    from torch import distributed

    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if cuda:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield distributed.get_rank(), distributed.get_world_size(), device
    finally:
        distributed.destroy_process_group()
