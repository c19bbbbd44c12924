"""Optical flow. Its entry point is `compute_flow`, which chooses the method by name, and the solver of TV-L1 by device and mode.

`flowkit.compute_flow` can remove the motion of the camera too; see `flowkit.warped_flow`.

Importing this package is cheap: only the solver that is used loads OpenCV and numba, or CUDA.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from flowkit.errors import ParameterError
from flowkit.flow.methods import TVL1, FlowMethod, Value, method_defaults
from flowkit.flow.params import MIN_SIDE_PX, MODES, PRESETS, TVL1Params

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "PRESETS",
    "FlowMethod",
    "TVL1Params",
    "check_frames",
    "compute_flow",
    "compute_pairs_flow",
    "frames_for",
    "gpu_of_device",
    "to_grey",
    "warm_up",
]

_DEFAULTS = TVL1Params()


def compute_flow(
    frames: NDArray[np.uint8],
    *,
    method: str = TVL1,
    params: TVL1Params | Mapping[str, Value] | None = None,
    device: str = "cpu",
    mode: str = "strict",
) -> NDArray[np.float32]:
    """Return the optical flow between consecutive frames, by default that of TV-L1; see `flowkit.warped_flow.compute_flow`.

    Parameters
    ----------
    frames : uint8 array, shape (T, H, W) grey or (T, H, W, 3) RGB
        The frames.
    method, params, device, mode
        As described there.

    Returns
    -------
    flow : float32 array, shape (T - 1, 2, H, W), px/frame
        ``flow[k]`` leads from frame k to frame k + 1. Channel 0 is u (to the right), channel 1 is v (down).

    Raises
    ------
    ParameterError
        If the shape or type of the frames, the method, its parameters, the device or the mode are not as above.
    DeviceError
        If the GPU, its memory or its software is missing.
    """
    frames = check_frames(frames)
    return _flow(frames, None, method=method, params=params, device=device, mode=mode)


def compute_pairs_flow(
    pairs: NDArray[np.uint8],
    *,
    method: str = TVL1,
    params: TVL1Params | Mapping[str, Value] | None = None,
    device: str = "cpu",
    mode: str = "strict",
) -> NDArray[np.float32]:
    """Return the flow of pairs of frames that do not follow one another.

    Parameters
    ----------
    pairs : uint8 array, shape (n, 2, H, W) grey or (n, 2, H, W, 3) RGB
        The two frames of each pair.
    method, params, device, mode
        As for `compute_flow`.

    Returns
    -------
    float32 array, shape (n, 2, H, W), px/frame
        The flow from the first frame of each pair to the second.
    """
    frames = check_frames(pairs.reshape(-1, *pairs.shape[2:]))
    return _flow(frames, 2, method=method, params=params, device=device, mode=mode)


def check_frames(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the frames of a video as an array, uint8 (T, H, W) or (T, H, W, 3); raise `ParameterError` if they are something else."""
    import numpy as np

    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or not (frames.ndim == 3 or (frames.ndim == 4 and frames.shape[3] == 3)):
        raise ParameterError(f"frames must be uint8 (T, H, W) or (T, H, W, 3), got {frames.dtype} {frames.shape}")
    if frames.ndim == 3 and frames.shape[2] == 3 and frames.shape[0] >= MIN_SIDE_PX:
        raise ParameterError(f"frames {frames.shape} look like one colour frame; flow is between frames, so give (T, H, W, 3)")
    return frames


def _flow(
    frames: NDArray[np.uint8],
    step: int | None,
    *,
    method: str,
    params: TVL1Params | Mapping[str, Value] | None,
    device: str,
    mode: str,
) -> NDArray[np.float32]:
    """Return the flow between consecutive frames; if `step` is 2, of frames 0 and 1, 2 and 3, and so on."""
    import numpy as np

    if method != TVL1:
        solver = _other_method(method, params, device, mode)
        frames = frames_for(solver, frames)
        return solver.flows(frames) if step is None else np.concatenate([solver.flows(frames[k : k + 2]) for k in range(0, len(frames), 2)])
    if params is None:
        params = _DEFAULTS
    if not isinstance(params, TVL1Params):
        raise ParameterError(f"params must be TVL1Params, got {params!r}; a preset by its name is TVL1Params.preset(name)")
    if mode not in MODES:
        raise ParameterError(f"unknown TV-L1 mode {mode!r}; choose one of {', '.join(MODES)}")
    gpu = gpu_of_device(device, *frames.shape[1:3])  # before gigabytes become grey
    grey = to_grey(frames) if frames.ndim == 4 else frames
    if gpu is None:
        from flowkit.flow.cpu.solver import CpuSolver

        on_cpu = CpuSolver(grey.shape[1], grey.shape[2], params, mode)
        return on_cpu.flows(grey) if step is None else np.stack([on_cpu.solve(*grey[k : k + 2]) for k in range(0, len(grey), 2)])

    from flowkit.flow.cuda.solver import compute_flow as compute_flow_on_gpu

    pairs = None if step is None else np.arange(len(grey)).reshape(-1, 2)
    return compute_flow_on_gpu(grey, params, gpu, pairs=pairs)


def _other_method(method: str, params: TVL1Params | Mapping[str, Value] | None, device: str, mode: str) -> FlowMethod:
    """Return a method that is not TV-L1; one that has a parameter `device` takes that of the call."""
    values = {} if params is None else params
    if mode != "strict" or isinstance(values, TVL1Params):
        raise ParameterError(f"TVL1Params and mode are of TV-L1; leave them out with method {method!r}")
    if "device" in method_defaults(method):
        values = {"device": device, **values}
    elif device != "cpu":
        raise ParameterError(f"device and mode are of TV-L1; leave them out with method {method!r}, which runs on the CPU alone")
    return FlowMethod.named(method, **values)


def frames_for(method: FlowMethod | None, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return frames, grey (T, H, W) or RGB (T, H, W, 3), as a method takes them; None is TV-L1, which takes grey ones."""
    if method is None or not method.takes_rgb:
        return frames if frames.ndim == 3 else to_grey(frames)
    return frames if frames.ndim == 4 else frames[..., None].repeat(3, axis=3)


def gpu_of_device(device: str, height: int, width: int) -> int | None:
    """Return the index of the GPU that a device of TV-L1 names, None for the CPU.

    Raises
    ------
    ParameterError
        If there is no such device, or frames of this size, px, are too large for the GPU solver.
    """
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", device) if isinstance(device, str) else None
    if match is None:
        raise ParameterError(f"unknown device {device!r}; choose cpu, cuda or cuda:<index>")
    if device == "cpu":
        return None
    from flowkit.flow.cuda.plan import check_frame_size

    check_frame_size(height, width)
    return int(match.group(1) or 0)


def to_grey(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return RGB frames, uint8 (T, H, W, 3), as grey ones, uint8 (T, H, W), with the weights of OpenCV."""
    import cv2
    import numpy as np

    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
        raise ParameterError(f"frames must be uint8 (T, H, W, 3), got {frames.dtype} {frames.shape}")
    grey = np.empty(frames.shape[:3], np.uint8)
    for frame, target in zip(frames, grey, strict=True) if grey.size else ():  # OpenCV refuses an empty picture
        cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY, dst=target)
    return grey


def warm_up(mode: str = "strict") -> None:
    """Compile the CPU kernels of a mode, or load them from the disk cache, where workers that start later find them."""
    import numpy as np

    compute_flow(np.zeros((2, 16, 16), np.uint8), mode=mode)
