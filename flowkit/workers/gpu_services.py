"""The processes of GPUs on the workers of a Dask cluster, for decoding processes on all of its machines.

A worker that was started with ``--resources GPU=1`` has a GPU. Such a worker runs the process of its GPU beside its tasks; all workers,
also those without a GPU, decode and encode, and send their frames to one of these processes. If a worker with a GPU dies, its clients
notice, their tasks are handed out again, and the others' GPUs do the work.
"""

from __future__ import annotations

import itertools
import logging
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from flowkit.errors import DeviceError
from flowkit.flow.cuda.remote import Gateway, RemoteAddress
from flowkit.flow.cuda.service import FlowService, MakeSolver
from flowkit.workers.addresses import parse_address

logger = logging.getLogger(__name__)

RESOURCE = "GPU"
NO_GPU = (
    f"no worker of the cluster has a GPU; on each machine that has one, start `dask worker ADDRESS --nthreads 1 --resources {RESOURCE}=1`, "
    "for each GPU one, with CUDA_VISIBLE_DEVICES; or use --device cpu"
)
START_SECONDS = 180.0  # for the first process of a GPU to start
_LOOK_SECONDS = 2.0  # between looks at which workers there are
_IDLE_SECONDS = 300.0  # without any client, after which a process of a GPU ends by itself: its run may have been killed
_FIRST = 1000  # priority: before all decoding


class GpuServices:
    """The processes of the GPUs of a cluster, as a context manager.

    Parameters
    ----------
    client : distributed.Client
        The connection to the cluster.
    make_solver : callable
        Makes the solver for a frame size, in the process of a GPU; importable by name, or a partial of such a function.
    check : callable
        Runs first in each worker with a GPU, and raises an error if the worker must not take part.

    Raises
    ------
    DeviceError
        If no worker has a GPU, or the process of a GPU cannot start.
    """

    def __init__(self, client: Any, make_solver: MakeSolver, check: Callable[[], None]) -> None:
        self._client, self._make_solver, self._check = client, make_solver, check
        self._name = f"flowkit-gpu-{secrets.token_hex(8)}"
        self._futures: dict[str, Any] = {}  # by worker
        self._addresses: dict[str, RemoteAddress] = {}
        self._numbers = itertools.count()
        self._looked_at = -_LOOK_SECONDS

    def __enter__(self) -> GpuServices:
        began = time.monotonic()
        while not self.addresses():
            if not self._futures:
                raise DeviceError(NO_GPU)
            if time.monotonic() - began > START_SECONDS:
                raise DeviceError(f"no process of a GPU has started on the cluster within {START_SECONDS:.0f} s; the workers' logs say why")
            time.sleep(0.1)
        return self

    def __exit__(self, *exception: object) -> None:
        with suppress(Exception):  # the cluster may have gone
            self._client.run(_stop, self._name, workers=[*self._addresses], on_error="ignore")

    def addresses(self) -> list[RemoteAddress]:
        """Return where the processes that have started listen; start those of workers that have joined."""
        if time.monotonic() - self._looked_at >= _LOOK_SECONDS:
            self._looked_at = time.monotonic()
            present = workers_with_gpu(self._client)
            for worker in present:
                if worker not in self._futures:
                    self._futures[worker] = self._start_on(worker)
            for worker in [worker for worker in self._futures if worker not in present]:
                self._futures.pop(worker).cancel()
                self._addresses.pop(worker, None)
        for worker, future in self._futures.items():
            if worker not in self._addresses and future.done() and future.status in ("finished", "error"):
                self._addresses[worker] = future.result()  # raises what has failed there
                logger.info("the GPU of %s works", worker)
        return [*self._addresses.values()]

    def next_address(self) -> RemoteAddress | None:
        """Return the address for the next task, in turn; None while no GPU can be reached."""
        addresses = self.addresses()
        return addresses[next(self._numbers) % len(addresses)] if addresses else None

    def _start_on(self, worker: str) -> Any:
        pinned = {"workers": [worker], "allow_other_workers": False, "resources": {RESOURCE: 1}}
        key = f"{self._name}-{worker}"
        return self._client.submit(_start, self._name, self._make_solver, self._check, key=key, pure=False, priority=_FIRST, **pinned)


def workers_with_gpu(client: Any) -> list[str]:
    """Return the addresses of the workers that have a GPU."""
    try:
        info = client.scheduler_info(n_workers=-1)  # all
    except TypeError:  # an older version of Dask, which always tells all
        info = client.scheduler_info()
    return [address for address, worker in info["workers"].items() if worker.get("resources", {}).get(RESOURCE, 0) >= 1]


def check_for_gpus(address: str) -> None:
    """Raise `DeviceError` if no worker of the cluster whose scheduler has this address has a GPU."""
    from distributed import Client

    with Client(str(parse_address(address)), set_as_default=False) as client:
        if not workers_with_gpu(client):
            raise DeviceError(NO_GPU)


_running: dict[str, tuple[FlowService, Gateway]] = {}  # in a worker: by the name of the run
_lock = threading.Lock()


def _start(name: str, make_solver: MakeSolver, check: Callable[[], None]) -> RemoteAddress:
    """In a worker with a GPU: start the process of its GPU, and return where other machines reach it."""
    from distributed import get_worker

    check()
    host = parse_address(str(get_worker().address)).host
    with _lock:
        if name not in _running:
            service = FlowService([make_solver]).__enter__()
            try:
                gateway = Gateway(service.addresses[0], host, secrets.token_bytes(32))
            except BaseException:
                service.close()
                raise
            _running[name] = service, gateway
            threading.Thread(target=_end_when_idle, args=(name,), daemon=True).start()
        return _running[name][1].address


def _end_when_idle(name: str) -> None:
    """End the process of the GPU when no client has been connected for long."""
    while name in _running:
        time.sleep(1)
        with _lock:
            entry = _running.get(name)
        if entry is not None and entry[1].idle_seconds > _IDLE_SECONDS:
            _stop(name)


def _stop(name: str) -> None:
    """In a worker: end the process of its GPU for a run."""
    with _lock:
        entry = _running.pop(name, None)
    if entry is not None:
        service, gateway = entry
        gateway.close()
        service.close()
