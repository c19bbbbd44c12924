"""From grey frames to quantised flow, by the solver that the settings name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from flowkit.dataset.settings import ExtractSettings
from flowkit.flow import compute_flow, warm_up
from flowkit.flow.cuda.service import FlowClient, ServiceAddress

PIXELS_AT_ONCE = 1 << 22  # of frames whose flow is solved between two signs of life


def cpu_mode(settings: ExtractSettings) -> str:
    """Return the mode in which `compute_flow` solves on the CPU with these settings."""
    return "fast" if settings.solver == "fast" else "strict"


def prepare_process(settings: ExtractSettings) -> None:
    """Load what a worker process needs, before its first video: no time limit includes the compilation of kernels."""
    import av  # noqa: F401 - loaded here rather than with the first video
    import cv2

    import flowkit.shards.writer  # noqa: F401

    cv2.setNumThreads(1)
    prepare_solver(settings)


def prepare_solver(settings: ExtractSettings) -> None:
    """Load the flow method of the settings, and compile what it needs."""
    if settings.method is not None:
        settings.method.solver()
    elif settings.solver in ("strict", "fast"):
        warm_up(cpu_mode(settings))


def quantised_flow(
    grey: NDArray[np.uint8],
    settings: ExtractSettings,
    service: ServiceAddress | None = None,
    *,
    alive: Callable[[], None] = lambda: None,
) -> NDArray[np.uint8]:
    """Return the quantised flow between consecutive grey frames.

    Parameters
    ----------
    grey : uint8 array, shape (n, H, W)
        The frames.
    settings : ExtractSettings
        The solver, its parameters and the quantiser.
    service : ServiceAddress, optional
        The process of a GPU.
    alive : callable, optional
        Is called after a few flow fields, of large frames after each one.

    Returns
    -------
    uint8 array, shape (n - 1, 2, H, W)
    """
    if len(grey) < 2:
        return np.empty((0, 2, *grey.shape[1:]), np.uint8)
    if service is not None:
        return service_client(service).solve(grey)
    at_once = max(PIXELS_AT_ONCE // grey[0].size, 1)
    q = []
    for start in range(0, len(grey) - 1, at_once):
        few = grey[start : start + at_once + 1]
        q.append(settings.quantiser.encode(_flow(few, settings)))
        alive()
    return np.concatenate(q)


def _flow(grey: NDArray[np.uint8], settings: ExtractSettings) -> NDArray[np.float32]:
    if settings.method is not None:
        return settings.method.flows(grey)
    return compute_flow(grey, params=settings.tvl1, device="cuda" if settings.solver == "cuda" else "cpu", mode=cpu_mode(settings))


@cache
def service_client(address: ServiceAddress) -> FlowClient:
    """Return this worker's connection to a GPU's process, which all its videos share."""
    return FlowClient(address)
