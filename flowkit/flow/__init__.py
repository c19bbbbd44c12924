"""Optical flow. Its entry point is `compute_flow`, which chooses the method by name, and the solver of TV-L1 by device and mode.

Importing this package is cheap: only the solver that is used loads OpenCV and numba, or CUDA.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from flowkit.errors import ParameterError
from flowkit.flow.methods import TVL1, FlowMethod, Value
from flowkit.flow.params import MIN_SIDE_PX, MODES, PRESETS, TVL1Params

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["PRESETS", "FlowMethod", "TVL1Params", "compute_flow", "to_grey", "warm_up"]

_DEFAULTS = TVL1Params()


def compute_flow(
    frames: NDArray[np.uint8],
    *,
    method: str = TVL1,
    params: TVL1Params | Mapping[str, Value] | None = None,
    device: str = "cpu",
    mode: str = "strict",
) -> NDArray[np.float32]:
    """Return the optical flow between consecutive frames, by default that of TV-L1 [1]_, [2]_.

    Parameters
    ----------
    frames : uint8 array, shape (T, H, W) grey or (T, H, W, 3) RGB
        Each side has at least 16 px, and at most 32,766 px in mode ``strict`` on the CPU. T may be 1 or 0; there is no
        flow then.
    method : str
        ``tvl1``, ``farneback``, ``dis``, or the name of a method of an installed package.
    params : TVL1Params or dict, optional
        Parameters of the method: of TV-L1 an object, which is the preset ``opencv`` by default; of another method those that are not
        to have its defaults, by name.
    device : {"cpu", "cuda", "cuda:<i>"}
        Where the flow of TV-L1 is computed; ``cuda:1`` is the second GPU.
    mode : {"strict", "fast"}
        Of TV-L1 on the CPU: ``strict`` gives the same bits as ``DualTVL1OpticalFlow`` of the installed OpenCV, and ``fast`` differs
        from it by hundredths of a pixel where the flow is well determined, by more in noise. A GPU has one solver, and ignores
        the mode.

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

    References
    ----------
    .. [1] Zach, Pock, Bischof, "A duality based approach for realtime TV-L1 optical flow", DAGM 2007.
    .. [2] Sanchez, Meinhardt-Llopis, Facciolo, "TV-L1 optical flow estimation", IPOL 2013,
       doi:10.5201/ipol.2013.26

    Examples
    --------
    A smooth pattern that moves to the right by 2 px per frame:

    >>> import numpy as np
    >>> from flowkit import compute_flow
    >>> y, x = np.mgrid[:32, :48]
    >>> frames = np.stack([128 + 100 * np.sin((x - 2 * t) / 5) * np.cos(y / 7) for t in range(3)]).astype(np.uint8)
    >>> flow = compute_flow(frames)
    >>> flow.shape
    (2, 2, 32, 48)
    >>> np.median(flow, axis=(2, 3)).round().astype(int).tolist()
    [[2, 0], [2, 0]]
    """
    import numpy as np

    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or not (frames.ndim == 3 or (frames.ndim == 4 and frames.shape[3] == 3)):
        raise ParameterError(f"frames must be uint8 (T, H, W) or (T, H, W, 3), got {frames.dtype} {frames.shape}")
    if frames.ndim == 3 and frames.shape[2] == 3 and frames.shape[0] >= MIN_SIDE_PX:
        raise ParameterError(f"frames {frames.shape} look like one colour frame; flow is between frames, so give (T, H, W, 3)")
    if method != TVL1:
        if (device, mode) != ("cpu", "strict") or isinstance(params, TVL1Params):
            raise ParameterError(f"TVL1Params, device and mode are of TV-L1; leave them out with method {method!r}")
        chosen = FlowMethod.named(method, **(params or {}))
        return chosen.flows(to_grey(frames) if frames.ndim == 4 else frames)
    if params is None:
        params = _DEFAULTS
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

    from flowkit.flow.cuda.solver import compute_flow as compute_flow_on_gpu

    return compute_flow_on_gpu(grey, params, int(match.group(1) or 0))


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
