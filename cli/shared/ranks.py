"""The ranks of a run that torchrun started in several processes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import click

from flowkit.errors import RankError

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

_PATIENCE_SECONDS = 300.0  # until all processes have started
_CPU_PATIENCE = timedelta(hours=6)  # on CPUs an evaluation takes hours, and ranks may differ by more than the half hour that gloo waits


@contextmanager
def ranks_from_environment(device: str) -> Iterator[tuple[int, int, str]]:
    """Yield this process's rank, the number of ranks and its device, after joining the other processes that torchrun started.

    Raises
    ------
    RankError
        If the processes do not find each other.
    DeviceError, ParameterError
        If there is no such device.

    Notes
    -----
    The command is ``torchrun --nproc-per-node N -m -- flowkit.cli train ...``; without the two dashes, torchrun treats ``--run`` as one
    of its own options. On CUDA each local process uses the GPU of its local rank.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 or "RANK" not in os.environ:
        yield 0, 1, device
        return
    import torch
    from torch import distributed

    from flowkit.model.compute.execution import Execution

    rank = int(os.environ["RANK"])
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if cuda:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    Execution(device=device).torch_device()  # a device that does not exist is refused before waiting for the others
    if cuda:
        torch.cuda.set_device(device)
    try:
        store, _, _ = next(distributed.rendezvous("env://", rank, world))  # type: ignore[attr-defined]
        meeting = distributed.PrefixStore(meet(store, rank, world), store)  # type: ignore[attr-defined]
        distributed.init_process_group(
            "nccl" if cuda else "gloo",
            timeout=None if cuda else _CPU_PATIENCE,
            store=meeting,
            rank=rank,
            world_size=world,
            device_id=torch.device(device) if cuda else None,
        )
    except (RuntimeError, ValueError) as cause:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise RankError(f"process {rank} of {world} could not join the others at {where}: {str(cause).splitlines()[0]}") from cause
    yield rank, world, device
    # Not after an error: destroying the group waits for the other processes, which wait for this one until it ends.
    distributed.destroy_process_group()


def refuse_ranks(reason: str) -> None:
    """Raise a usage error if torchrun started several processes; the `reason` is what has no use for them, as the start of a sentence."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        raise click.UsageError(f"{reason}, so there is nothing that {world} processes could share; start it without torchrun")


def meet(store: Store, rank: int, world: int) -> str:
    """Return a name that all processes of this start share, and no process of an earlier start.

    Notes
    -----
    When torchrun restarts all processes, its store still holds what the earlier ones wrote, and a process that reads an old address
    cannot connect (pytorch/pytorch#167288). So rank 0 chooses a name, and answers with it each process's question, which has an id of
    its own. Questions of earlier processes get answers that nobody reads.
    """
    if rank:
        question = uuid4().hex
        store.set(f"flowkit/question/{rank}", question)
        name: str = store.get(f"flowkit/answer/{question}").decode()  # waits for it
        store.set(f"{name}/here/{rank}", "")
        return name
    name, missing, end = f"flowkit/{uuid4().hex}", set(range(1, world)), time.monotonic() + _PATIENCE_SECONDS
    while missing:
        for other in missing:
            if store.check([f"flowkit/question/{other}"]):
                store.set(f"flowkit/answer/{store.get(f'flowkit/question/{other}').decode()}", name)
        missing = {other for other in missing if not store.check([f"{name}/here/{other}"])}
        if time.monotonic() > end:
            raise RankError(f"{len(missing)} of {world} processes have not started in {_PATIENCE_SECONDS:.0f} s: {sorted(missing)}")
        time.sleep(0.02 if missing else 0)
    return name


def is_elastic_restart() -> bool:
    """Return whether torchrun restarted this process after a failure; then the run resumes, even with ``--restart``."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
