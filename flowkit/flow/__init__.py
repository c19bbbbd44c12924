"""TV-L1 optical flow: one entry point, `compute_flow`, that picks the solver by device and mode.

Importing this package is cheap: OpenCV, numba and CUDA are loaded by the solver that needs them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from flowkit.errors import ParameterError
from flowkit.flow.params import MODES, PRESETS, TVL1Params

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["PRESETS", "TVL1Params", "compute_flow", "to_grey", "warm_up"]

_DEFAULTS = TVL1Params()


def compute_flow(
    frames: NDArray[np.uint8], *, params: TVL1Params = _DEFAULTS, device: str = "cpu", mode: str = "strict"
) -> NDArray[np.float32]:
    """Return the TV-L1 flow between consecutive frames.

    Parameters
    ----------
    frames : uint8 array, shape (T, H, W) grey or (T, H, W, 3) RGB
        At least 16 px a side, and at most 32,766 with ``strict`` on the CPU; T may be 1 or 0 (no flow).
    params : TVL1Params
        Parameters of the solver; the default is the ``opencv`` preset.
    device : {"cpu", "cuda", "cuda:<i>"}
    mode : {"strict", "fast"}
        On the CPU: ``strict`` equals the installed OpenCV's ``DualTVL1OpticalFlow`` bit for bit; ``fast`` is within
        hundredths of a pixel of it. On a GPU there is one solver, and the mode is not used.

    Returns
    -------
    flow : float32 array, shape (T - 1, 2, H, W), px/frame
        ``flow[k]`` leads from frame k to k + 1; channel 0 is u (right), channel 1 is v (down).

    Raises
    ------
    ParameterError
        If shape, dtype, parameters, device or mode are none of the above.
    DeviceError
        If the GPU is missing, or lacks memory or software.
    """
    import numpy as np

    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or not (frames.ndim == 3 or (frames.ndim == 4 and frames.shape[3] == 3)):
        raise ParameterError(f"frames must be uint8 (T, H, W) or (T, H, W, 3), got {frames.dtype} {frames.shape}")
    if not isinstance(params, TVL1Params):
        raise ParameterError(f"params must be TVL1Params, got {params!r}; a preset by its name is TVL1Params.preset(name)")
    if mode not in MODES:
        raise ParameterError(f"unknown TV-L1 mode {mode!r}; choose one of {', '.join(MODES)}")
    grey = to_grey(frames) if frames.ndim == 4 else frames
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", device) if isinstance(device, str) else None
    if match is None:
        raise ParameterError(f"unknown device {device!r}; choose cpu, cuda or cuda:<index>")
    if device == "cpu":
        from flowkit.flow.cpu.solver import CpuSolver

        return CpuSolver(grey.shape[1], grey.shape[2], params, mode).flows(grey)

    from flowkit.flow.cuda import solver as cuda  # type: ignore[attr-defined, unused-ignore]

    flow: NDArray[np.float32] = cuda.compute_flow(grey, params, int(match.group(1) or 0))
    return flow


def to_grey(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the grey of RGB frames as OpenCV weighs it: uint8 (T, H, W, 3) to uint8 (T, H, W)."""
    import cv2
    import numpy as np

    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
        raise ParameterError(f"frames must be uint8 (T, H, W, 3), got {frames.dtype} {frames.shape}")
    grey = np.empty(frames.shape[:3], np.uint8)
    for frame, target in zip(frames, grey, strict=True) if grey.size else ():  # OpenCV takes no empty picture
        cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY, dst=target)
    return grey


def warm_up(mode: str = "strict") -> None:
    """Compile the CPU kernels of a mode, or load them from the disk cache; workers started afterwards find them there."""
    import numpy as np

    compute_flow(np.zeros((2, 16, 16), np.uint8), mode=mode)
