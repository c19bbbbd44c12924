"""TV-L1 on one CPU core: the pyramid, the warps and the outer loop around the compiled inner loop of `kernels`.

The algorithm is that of OpenCV's ``DualTVL1OpticalFlow`` [1]_. In mode ``strict``, the result has the same bits as that of the
installed OpenCV: the inner loop keeps the order of float operations, OpenCV resizes the images, the median rounds nothing, and
the warp is OpenCV's or has been found equal to it. Mode ``fast`` takes the same steps with estimates instead of exact divisions
and roots; it differs by less than two versions of OpenCV differ from each other.

A solver uses one core. The threads of OpenCV help little here, and compete when there is one process per core. Their number is
a setting of the process, which its owner chooses: call ``cv2.setNumThreads(1)`` in worker processes.

References
----------
.. [1] Sanchez, Meinhardt-Llopis, Facciolo, "TV-L1 optical flow estimation", IPOL 2013, doi:10.5201/ipol.2013.26
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ParameterError
from flowkit.flow.cpu.fields import STATE_BLOCK, U, V, clear_state, make_fields, num_blocks, read_flow, state_at, write_flow
from flowkit.flow.cpu.kernels import iterate_fast, iterate_strict
from flowkit.flow.cpu.median import SCRATCH_ROWS, median_5x5, scratch_row
from flowkit.flow.cpu.simd import LANES
from flowkit.flow.cpu.warp import make_warp, own_warp_is_exact
from flowkit.flow.params import MODES, TVL1Params

LARGEST_STRICT_SIDE_PX = 32_766  # OpenCV cannot warp larger images

FloatImage = NDArray[np.float32]
Grey = NDArray[np.uint8] | NDArray[np.float32]
Pyramid = list[NDArray[np.float32]]  # flat, finest first, each with 16 values after the last pixel, which kernels read


class CpuSolver:
    """Computes the flow between frames of one size; it owns its buffers and keeps the pyramid of the last frame for the next pair.

    Parameters
    ----------
    height, width : int
        Size of the frames. Each side has at least 16 px, and at most 32,766 px in mode ``strict``.
    params : TVL1Params, optional
        Parameters of the method; by default the preset ``opencv``.
    mode : {"strict", "fast"}
        ``strict`` gives the same bits as the installed OpenCV; ``fast`` replaces exact operations by estimates.

    Attributes
    ----------
    iterations : int
        Number of inner iterations for the last pair, over all levels and warps.
    pixel_iterations : int
        The sum of these iterations times the pixels of their level, to which the time is proportional.

    Raises
    ------
    ParameterError
        If the size or the mode is not one of the above.
    """

    def __init__(self, height: int, width: int, params: TVL1Params | None = None, mode: str = "strict") -> None:
        if mode not in MODES:
            raise ParameterError(f"unknown TV-L1 mode {mode!r}; choose one of {', '.join(MODES)}")
        self.params = params or TVL1Params()
        self._sizes = self.params.level_sizes(height, width)
        if mode == "strict" and max(height, width) > LARGEST_STRICT_SIDE_PX:
            raise ParameterError(
                f"mode strict needs OpenCV, which warps at most {LARGEST_STRICT_SIDE_PX} px per side, got {width}x{height}; use mode fast"
            )
        self.mode = mode
        self._iterate = iterate_strict if mode == "strict" else iterate_fast
        self.iterations = 0
        self.pixel_iterations = 0
        self._pyramids: tuple[Pyramid, ...] = tuple(  # of the last two frames
            [np.zeros(h * w + LANES, np.float32) for h, w in self._sizes] for _ in range(2)
        )
        self._frames_seen = 0
        # Only one level is solved at a time, so all levels share buffers of the size of the largest.
        self._fields = make_fields(height, width)
        self._median_scratch = np.zeros(SCRATCH_ROWS * scratch_row(width), np.float32)
        like_opencv = mode == "strict" and not all(own_warp_is_exact(*size) for size in self._sizes)
        self._warp = make_warp(height, width, mode == "strict", like_opencv)

    def solve(self, first: Grey, second: Grey) -> FloatImage:
        """Return the flow from `first` to `second`, float32 (2, H, W) in px: u (to the right) and v (down).

        Frames are (H, W), uint8 or float32 with values from 0 to 1. The solver forgets the frames of earlier calls.
        """
        self.forget()
        flow: FloatImage = self.flows((first, second))[0]
        return flow

    def flows(self, frames: Iterable[Grey]) -> FloatImage:
        """Return the flow between consecutive frames, beginning with the last frame of the previous call.

        Parameters
        ----------
        frames : uint8 or float32 array, shape (T, H, W)
            Grey frames; the values of float32 frames are from 0 to 1.

        Returns
        -------
        flow : float32 array, px/frame
            The shape is (T - 1, 2, H, W) in the first call and after `forget`, and (T, 2, H, W) otherwise. The flow does not
            depend on how the frames of a video are divided into calls.
        """
        flows = [flow for frame in frames if (flow := self._next(frame)) is not None]
        return np.stack(flows) if flows else np.empty((0, 2, *self._sizes[0]), np.float32)

    def forget(self) -> None:
        """Forget the last frame: the next one is the first frame of a video."""
        self._frames_seen = 0

    def _next(self, frame: Grey) -> FloatImage | None:
        self._check(frame)
        first, second = self._pyramids if self._frames_seen % 2 else self._pyramids[::-1]
        self._fill(second, frame)
        self._frames_seen += 1
        return self._solve(first, second) if self._frames_seen > 1 else None

    def _check(self, frame: Grey) -> None:
        if frame.shape != self._sizes[0]:
            raise ParameterError(f"this solver needs grey frames of shape {self._sizes[0]}, got {frame.shape}")
        if frame.dtype == np.float32:
            if not np.isfinite(frame).all():
                raise ParameterError("a float32 frame contains NaN or infinity")
        elif frame.dtype != np.uint8:
            raise ParameterError(f"frames must be uint8, or float32 with values from 0 to 1, got {frame.dtype}")

    def _fill(self, pyramid: Pyramid, frame: Grey) -> None:
        """Fill a pyramid with the frame at every scale, with values from 0 to 255."""
        images = [self._image(flat, scale) for scale, flat in enumerate(pyramid)]
        if frame.dtype == np.uint8:
            images[0][:] = frame
        else:
            np.multiply(frame, np.float32(255), out=images[0])
        step = self.params.scale_step
        for finer, coarser in pairwise(images):  # by factor and not by size, so that the sampling step is exactly 1 / step
            cv2.resize(finer, None, dst=coarser, fx=step, fy=step, interpolation=cv2.INTER_LINEAR)

    def _image(self, flat: NDArray[np.float32], scale: int) -> FloatImage:
        height, width = self._sizes[scale]
        return flat[: height * width].reshape(height, width)

    def _solve(self, first: Pyramid, second: Pyramid) -> FloatImage:
        """Solve from coarse to fine; each level starts from the enlarged flow of the coarser one."""
        self.iterations = self.pixel_iterations = 0
        coarsest = len(self._sizes) - 1
        flow = np.zeros((2, *self._sizes[coarsest]), np.float32)
        for scale in range(coarsest, -1, -1):
            height, width = self._sizes[scale]
            if scale < coarsest:
                coarse, flow = flow, np.empty((2, height, width), np.float32)
                for source, target in zip(coarse, flow, strict=True):
                    cv2.resize(source, (width, height), dst=target, interpolation=cv2.INTER_LINEAR)
                    cv2.multiply(target, 1 / self.params.scale_step, dst=target)  # type: ignore[call-overload]
            self._solve_level(scale, first[scale], second[scale], flow)
        return flow

    def _solve_level(self, scale: int, image_0: NDArray[np.float32], image_1: NDArray[np.float32], flow: FloatImage) -> None:
        """Warp, linearise and iterate, `num_warps` times, on `flow` in place."""
        params = self.params
        height, width = self._sizes[scale]
        threshold = float(np.float32(params.epsilon * params.epsilon * width * height))
        clear_state(self._fields, height, width)
        state = 0
        write_flow(self._fields, state, flow.ravel(), height, width)
        self._warp.set_image(image_1, height, width)
        for _ in range(params.num_warps):
            self._warp.linearise(self._fields, state, image_0, height, width)
            error = np.inf
            for _ in range(params.outer_iterations):
                if not error > threshold:
                    break
                self._smooth(state, flow)
                done, error, state = self._iterate(
                    self._fields,
                    state,
                    height,
                    width,
                    np.float32(params.lambda_ * params.theta),
                    np.float32(params.theta),
                    np.float32(params.tau / params.theta),
                    threshold,
                    params.inner_iterations,
                )
                self.iterations += done
                self.pixel_iterations += done * height * width
        read_flow(self._fields, state, flow.reshape(-1), height, width)

    def _smooth(self, state: int, flow: FloatImage) -> None:
        """Replace u and v of a state by their medians; `flow` is room for them."""
        _, height, width = flow.shape
        if self.params.median_size == 5:
            start = state_at(state, 0, height, width)
            row = num_blocks(width) * STATE_BLOCK
            for component in (U, V):
                median_5x5(self._fields, start + component, row, STATE_BLOCK, self._median_scratch, height, width)
        elif self.params.median_size == 3:
            read_flow(self._fields, state, flow.reshape(-1), height, width)
            for field in flow:
                cv2.medianBlur(field, 3, dst=field)
            write_flow(self._fields, state, flow.reshape(-1), height, width)
