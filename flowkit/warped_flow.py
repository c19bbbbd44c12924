"""Flow without the motion of the camera ("warped flow"): each second frame is first warped as the camera of the first would have seen it.

The camera's motion is found as for improved trajectories [1]_. Every method then computes the flow that is left between the two frames,
so it depends on these two frames alone, as flow without this step does.

References
----------
.. [1] Wang, Schmid, "Action recognition with improved trajectories", ICCV 2013, section 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowkit.errors import ParameterError
from flowkit.flow import TVL1Params, check_frames, compute_pairs_flow, frames_for, gpu_of_device, to_grey
from flowkit.flow import compute_flow as flow_of_frames
from flowkit.flow.methods import TVL1, FlowMethod, Value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

NONE = "none"
CAMERA_MOTIONS = (NONE, "sift", "flow")

PAIRS_AT_ONCE = 8  # that are warped before their flow is computed


def compute_flow(
    frames: NDArray[np.uint8],
    *,
    method: str = TVL1,
    params: TVL1Params | Mapping[str, Value] | None = None,
    device: str = "cpu",
    mode: str = "strict",
    camera_motion: str = NONE,
) -> NDArray[np.float32]:
    """Return the optical flow between consecutive frames, by default that of TV-L1 [1]_, [2]_.

    Parameters
    ----------
    frames : uint8 array, shape (T, H, W) grey or (T, H, W, 3) RGB
        Each side has at least 16 px, and at most 32,766 px in mode ``strict`` on the CPU. T may be 1 or 0; there is no
        flow then.
    method : str
        ``tvl1``, ``farneback``, ``dis``, ``raft``, or the name of a method of an installed package.
    params : TVL1Params or dict, optional
        Parameters of the method: of TV-L1 an object, which is the preset ``opencv`` by default; of another method those that are not
        to have its defaults, by name.
    device : {"cpu", "cuda", "cuda:<i>"}
        Where the flow is computed; ``cuda:1`` is the second GPU. Of other methods than TV-L1, those that have a parameter `device`
        take ``cuda``.
    mode : {"strict", "fast"}
        Of TV-L1 on the CPU: ``strict`` gives the same bits as ``DualTVL1OpticalFlow`` of the installed OpenCV, and ``fast`` differs
        from it by hundredths of a pixel where the flow is well determined, by more in noise. A GPU has one solver, and ignores
        the mode.
    camera_motion : {"none", "sift", "flow"}
        Whether the motion of the camera is removed from the flow [3]_, and how it is found: by SIFT keypoints and corners that follow
        the flow, or by these corners alone. Within 5 px of a border that the second frame does not reach, there is no flow then.

    Returns
    -------
    flow : float32 array, shape (T - 1, 2, H, W), px/frame
        ``flow[k]`` leads from frame k to frame k + 1. Channel 0 is u (to the right), channel 1 is v (down).

    Raises
    ------
    ParameterError
        If the shape or type of the frames, the method, its parameters, the device, the mode or `camera_motion` are not as above.
    DeviceError
        If the GPU, its memory or its software is missing.

    References
    ----------
    .. [1] Zach, Pock, Bischof, "A duality based approach for realtime TV-L1 optical flow", DAGM 2007.
    .. [2] Sanchez, Meinhardt-Llopis, Facciolo, "TV-L1 optical flow estimation", IPOL 2013,
       doi:10.5201/ipol.2013.26
    .. [3] Wang, Schmid, "Action recognition with improved trajectories", ICCV 2013.

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

    A texture before which the camera pans:

    >>> texture = np.random.default_rng(0).integers(0, 256, (24, 40), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    >>> panned = np.stack([texture[:, 10 + 2 * t : 110 + 2 * t] for t in range(3)])
    >>> [abs(compute_flow(panned, camera_motion=how)[:, 0]).mean().round(1).item() for how in ("none", "sift")]
    [2.0, 0.0]
    """
    import numpy as np

    check_camera_motion(camera_motion)
    if camera_motion == NONE:
        return flow_of_frames(frames, method=method, params=params, device=device, mode=mode)
    frames = check_frames(frames)
    if method == TVL1:
        gpu_of_device(device, *frames.shape[1:3])  # before the camera's motion is searched for
    frames = frames_for(None if method == TVL1 else FlowMethod(method), frames)  # grey ones are warped, not made of colours
    flow = [
        compute_pairs_flow(pairs, method=method, params=params, device=device, mode=mode)
        for pairs in pairs_without_camera_motion(frames, camera_motion=camera_motion)
    ]
    return np.concatenate(flow) if flow else flow_of_frames(frames, method=method, params=params, device=device, mode=mode)


def check_camera_motion(camera_motion: str) -> None:
    """Raise `ParameterError` unless this is ``none`` or a way to find the camera's motion."""
    if camera_motion not in CAMERA_MOTIONS:
        raise ParameterError(f"camera_motion must be one of {', '.join(CAMERA_MOTIONS)}, got {camera_motion!r}")


def pairs_without_camera_motion(
    frames: NDArray[np.uint8], *, camera_motion: str, at_once: int = PAIRS_AT_ONCE
) -> Iterator[NDArray[np.uint8]]:
    """Yield each frame with the next one, from which the camera's motion is removed.

    Parameters
    ----------
    frames : uint8 array, shape (T, H, W) grey or (T, H, W, 3) RGB
        Consecutive frames. The camera's motion is found in the grey ones.
    camera_motion : {"sift", "flow"}
        How it is found.
    at_once : int
        The largest number of pairs of one array.

    Yields
    ------
    uint8 array, shape (n, 2, H, W) or (n, 2, H, W, 3)
        The next n pairs.
    """
    import numpy as np

    from flowkit.trajectories.camera_motion import without_camera_motion
    from flowkit.trajectories.frame_motion import camera_homographies

    grey = frames if frames.ndim == 3 else to_grey(frames)
    few: list[NDArray[np.uint8]] = []
    for k, matrix in enumerate(camera_homographies(grey, camera_motion=camera_motion)):
        second = np.empty_like(frames[k])
        for plane in np.ndindex(frames.shape[3:]):  # the colours, or the one plane of a grey frame
            first, following = (np.ascontiguousarray(frame[(..., *plane)]) for frame in frames[k : k + 2])
            second[(..., *plane)] = without_camera_motion(first, following, matrix)
        few.append(np.stack([frames[k], second]))
        if len(few) == at_once:
            yield np.stack(few)
            few.clear()
    if few:
        yield np.stack(few)


def warm_up_camera_motion(camera_motion: str) -> None:
    """Compile what finding the camera's motion needs, or load it from the disk cache."""
    import numpy as np

    if camera_motion != NONE:
        noise = np.random.default_rng(0).integers(0, 256, (2, 64, 64), dtype=np.uint8)
        list(pairs_without_camera_motion(noise, camera_motion=camera_motion))
