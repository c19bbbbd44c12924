"""From frames to quantised flow, by the solver that the settings name, with or without the camera's motion."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.dataset.settings import ExtractSettings
from flowkit.flow import compute_flow, compute_pairs_flow, frames_for, warm_up
from flowkit.flow.cuda.remote import RemoteAddress, RemoteFlowClient
from flowkit.flow.cuda.service import FlowClient, ServiceAddress
from flowkit.warped_flow import NONE, PAIRS_AT_ONCE, pairs_without_camera_motion, warm_up_camera_motion

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
    if not settings.has_flow:
        return
    if settings.method is not None:
        settings.method.prepare()
    elif settings.solver in ("strict", "fast"):
        warm_up(cpu_mode(settings))
    warm_up_camera_motion(settings.camera_motion)


def solver_frames(rgb: NDArray[np.uint8], settings: ExtractSettings) -> NDArray[np.uint8]:
    """Return RGB frames, uint8 (n, H, W, 3), as the solver takes them: grey, (n, H, W), or as they are."""
    return frames_for(settings.method, rgb)


def quantised_flow(
    frames: NDArray[np.uint8],
    settings: ExtractSettings,
    service: ServiceAddress | RemoteAddress | None = None,
    *,
    alive: Callable[[], None] = lambda: None,
) -> NDArray[np.uint8]:
    """Return the quantised flow between consecutive frames; of settings that store frames only, no flow field.

    Parameters
    ----------
    frames : uint8 array, shape (n, H, W) or (n, H, W, 3)
        The frames, as `solver_frames` returns them.
    settings : ExtractSettings
        The solver, its parameters, what becomes of the camera's motion, and the quantiser.
    service : ServiceAddress or RemoteAddress, optional
        The process of a GPU, on this machine or another.
    alive : callable, optional
        Is called after a few flow fields, of large frames after each one.

    Returns
    -------
    uint8 array, shape (n - 1, 2, H, W)
    """
    if len(frames) < 2 or not settings.has_flow:
        return np.empty((0, 2, *frames.shape[1:3]), np.uint8)
    at_once = max(PIXELS_AT_ONCE // math.prod(frames.shape[1:3]), 1)
    q = []
    if settings.camera_motion != NONE:
        for pairs in pairs_without_camera_motion(frames, camera_motion=settings.camera_motion, at_once=min(at_once, PAIRS_AT_ONCE)):
            alive()
            if service is not None:
                q.append(service_client(service).solve(pairs.reshape(-1, *pairs.shape[2:]), are_pairs=True))
            else:
                q.append(settings.quantiser.encode(compute_pairs_flow(pairs, **_how(settings))))
            alive()
        return np.concatenate(q)
    if service is not None:
        return service_client(service).solve(frames)
    for start in range(0, len(frames) - 1, at_once):
        few = frames[start : start + at_once + 1]
        q.append(settings.quantiser.encode(compute_flow(few, **_how(settings))))
        alive()
    return np.concatenate(q)


def _how(settings: ExtractSettings) -> dict[str, Any]:
    """Return what `compute_flow` needs to know of the settings."""
    if settings.method is not None:
        return {"method": settings.method.name, "params": settings.method.params}
    return {"params": settings.tvl1, "device": "cuda" if settings.solver == "cuda" else "cpu", "mode": cpu_mode(settings)}


@cache
def service_client(address: ServiceAddress | RemoteAddress) -> FlowClient | RemoteFlowClient:
    """Return this worker's connection to a GPU's process, which all its videos share."""
    return RemoteFlowClient(address) if isinstance(address, RemoteAddress) else FlowClient(address)
