"""From grey frames to quantised flow, by the solver that the settings name."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from flowkit.dataset.settings import ExtractSettings
from flowkit.flow import compute_flow
from flowkit.flow.cuda.service import FlowClient, ServiceAddress


def cpu_mode(settings: ExtractSettings) -> str:
    """Return the mode in which `compute_flow` solves on the CPU with these settings."""
    return "fast" if settings.solver == "fast" else "strict"


def quantised_flow(grey: NDArray[np.uint8], settings: ExtractSettings, service: ServiceAddress | None = None) -> NDArray[np.uint8]:
    """Return the quantised flow between consecutive grey frames (n, H, W): uint8 (n - 1, 2, H, W); `service` is a GPU's process."""
    if len(grey) < 2:
        return np.empty((0, 2, *grey.shape[1:]), np.uint8)
    if service is not None:
        return service_client(service).solve(grey)
    device = "cuda" if settings.solver == "cuda" else "cpu"
    return settings.quantiser.encode(compute_flow(grey, params=settings.tvl1, device=device, mode=cpu_mode(settings)))


@cache
def service_client(address: ServiceAddress) -> FlowClient:
    """Return this worker's connection to a GPU's process, which all its videos share."""
    return FlowClient(address)
