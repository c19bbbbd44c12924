# mypy: disable-error-code="arg-type, call-overload, call-arg, misc, no-any-return, return-value, unused-ignore"
"""TV-L1 on one CPU core: the pyramid, the warps and the outer loop around the compiled inner loop of `kernels`.

The algorithm is that of OpenCV's ``DualTVL1OpticalFlow`` [1]_: in mode ``strict`` the result equals that of the installed
OpenCV bit for bit, primitives (resize, remap, median) included, because they are OpenCV's own. Mode ``fast`` does the same
steps with estimates instead of exact divisions and roots; it differs by less than two versions of OpenCV do.

A solver works on one core. OpenCV's own threads help little here and fight with one another when there is a process per
core; how many they are is a setting of the process and so its owner's choice: call ``cv2.setNumThreads(1)`` in workers.

References
----------
.. [1] Sanchez, Meinhardt-Llopis, Facciolo, "TV-L1 optical flow estimation", IPOL 2013, doi:10.5201/ipol.2013.26
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ParameterError
from flowkit.flow import kernels
from flowkit.flow.params import TVL1Params

MODES = ("strict", "fast")
SMALLEST_SIDE_PX = 16

FloatImage = NDArray[np.float32]
Grey = NDArray[np.uint8] | NDArray[np.float32]

_SEPARATE_PLANES = int(cv2.__version__.split(".")[0]) < 5  # OpenCV 4 rounds coordinates differently for three channels


class _Level:
    """The fields of one pyramid level, in the layout of `kernels`, and views of them as images."""

    def __init__(self, height: int, width: int, epsilon: float) -> None:
        self.height, self.width = height, width
        self.threshold = float(np.float32(epsilon * epsilon * width * height))
        plane, stride = kernels.plane_size(height, width), kernels.row_stride(width)
        self.fields = np.zeros(kernels.NUM_FIELDS * plane + kernels.PAD, np.float32)
        rows = self.fields[: kernels.NUM_FIELDS * plane].reshape(kernels.NUM_FIELDS, plane)[:, : (height + 2) * stride]
        padded = rows.reshape(kernels.NUM_FIELDS, height + 2, stride)
        self.images = padded[:, 1 : height + 1, kernels.PAD : kernels.PAD + width]
        self.dual = self.fields[kernels.P11 * plane : (kernels.P22 + 1) * plane]
        self.columns = np.arange(width, dtype=np.float32)[None, :]
        self.rows = np.arange(height, dtype=np.float32)[:, None]


class CpuSolver:
    """Flow between frames of one size; owns its buffers and keeps the last frame's pyramid for the next pair.

    Parameters
    ----------
    height, width : int
        Size of the frames, at least 16 px a side.
    params : TVL1Params
    mode : {"strict", "fast"}
        ``strict``: bit-equal to the installed OpenCV. ``fast``: exact operations replaced by estimates.

    Attributes
    ----------
    iterations : int
        Inner iterations of the last pair, over all levels and warps.
    pixel_iterations : int
        The same, each times the pixels of its level: what the time goes with.

    Raises
    ------
    ParameterError
        If the size or the mode is not one of the above.
    """

    def __init__(self, height: int, width: int, params: TVL1Params | None = None, mode: str = "strict") -> None:
        if mode not in MODES:
            raise ParameterError(f"unknown TV-L1 mode {mode!r}; choose one of {', '.join(MODES)}")
        if min(height, width) < SMALLEST_SIDE_PX:
            raise ParameterError(f"TV-L1 needs frames of at least {SMALLEST_SIDE_PX} px a side, got {width}x{height}")
        self.params = params or TVL1Params()
        self.mode = mode
        self.iterations = 0
        self.pixel_iterations = 0
        self._height, self._width = height, width
        sizes = [image.shape for image in self._pyramid(np.zeros((height, width), np.uint8))]
        self._levels = [_Level(*size, self.params.epsilon) for size in sizes]
        self._last_pyramid: list[FloatImage] | None = None

    def solve(self, first: Grey, second: Grey) -> FloatImage:
        """Return the flow from `first` to `second`, float32 (2, H, W) in px: u to the right, v downwards.

        Frames are (H, W), uint8, or float32 of range 0..1. The solver forgets the frames it saw before.
        """
        self.forget()
        return self.flows([first, second])[0]

    def flows(self, frames: NDArray[np.uint8] | NDArray[np.float32] | list[Grey]) -> FloatImage:
        """Return the flows between consecutive frames, float32 (n, 2, H, W), going on from the last frame of the last call.

        Parameters
        ----------
        frames : uint8 or float32 array, shape (T, H, W)

        Returns
        -------
        flow : float32 array, shape (T - 1, 2, H, W) in the first call or after `forget`, then (T, 2, H, W), px/frame
            However the frames of a video are divided into calls, the flows are the same bytes.
        """
        flows = []
        for frame in frames:
            pyramid = self._pyramid(self._checked(frame))
            if self._last_pyramid is not None:
                flows.append(self._solve(self._last_pyramid, pyramid))
            self._last_pyramid = pyramid
        return np.stack(flows) if flows else np.empty((0, 2, self._height, self._width), np.float32)

    def forget(self) -> None:
        """Start anew: the next frame is the first of a video."""
        self._last_pyramid = None

    def _checked(self, frame: Grey) -> Grey:
        if frame.shape != (self._height, self._width):
            raise ParameterError(f"this solver is for grey frames of shape {(self._height, self._width)}, got {frame.shape}")
        if frame.dtype == np.float32:
            if not np.isfinite(frame).all():
                raise ParameterError("a float32 frame holds NaN or infinity")
        elif frame.dtype != np.uint8:
            raise ParameterError(f"frames must be uint8, or float32 of range 0..1, got {frame.dtype}")
        return frame

    def _pyramid(self, grey: Grey) -> list[FloatImage]:
        """Return the frame at every scale, finest first, range 0..255; levels with a side below 16 px are not made."""
        finest = grey.astype(np.float32) if grey.dtype == np.uint8 else grey * np.float32(255)
        levels: list[FloatImage] = [finest]
        step = self.params.scale_step
        while len(levels) < self.params.num_scales:
            coarser = cv2.resize(levels[-1], None, fx=step, fy=step, interpolation=cv2.INTER_LINEAR)
            if min(coarser.shape) < SMALLEST_SIDE_PX:
                break
            levels.append(coarser)
        return levels

    def _solve(self, first: list[FloatImage], second: list[FloatImage]) -> FloatImage:
        """Coarse to fine; the flow of a level, enlarged, is where the next one starts."""
        self.iterations = self.pixel_iterations = 0
        u = v = np.zeros(first[-1].shape, np.float32)
        for level, image_0, image_1 in zip(reversed(self._levels), reversed(first), reversed(second), strict=True):
            if u.shape != image_0.shape:
                size = (level.width, level.height)
                enlarge = 1 / self.params.scale_step
                u, v = (cv2.multiply(cv2.resize(field, size), enlarge) for field in (u, v))
            u, v = self._solve_level(level, image_0, image_1, u, v)
        return np.stack([u, v])

    def _solve_level(
        self, level: _Level, image_0: FloatImage, image_1: FloatImage, u: FloatImage, v: FloatImage
    ) -> tuple[FloatImage, FloatImage]:
        """Warp, linearise and iterate, `num_warps` times; p starts at 0 once per level."""
        params = self.params
        dx, dy = centred_gradient(image_1)
        level.dual[:] = 0
        images = level.images
        for _ in range(params.num_warps):
            map_x, map_y = level.columns + u, level.rows + v
            warped, ix, iy = warp((image_1, dx, dy), map_x, map_y)
            images[kernels.IX], images[kernels.IY] = ix, iy
            images[kernels.RHO] = warped - ix * u - iy * v - image_0
            images[kernels.GRAD] = ix * ix + iy * iy
            images[kernels.U], images[kernels.V] = u, v
            error = np.inf
            for _ in range(params.outer_iterations):
                if not error > level.threshold:
                    break
                if params.median_size > 1:
                    images[kernels.U] = cv2.medianBlur(np.ascontiguousarray(images[kernels.U]), params.median_size)
                    images[kernels.V] = cv2.medianBlur(np.ascontiguousarray(images[kernels.V]), params.median_size)
                done, error = kernels.iterate(
                    level.fields,
                    level.height,
                    level.width,
                    np.float32(params.lambda_ * params.theta),
                    np.float32(params.theta),
                    np.float32(params.tau / params.theta),
                    level.threshold,
                    params.inner_iterations,
                    self.mode == "strict",
                )
                self.iterations += done
                self.pixel_iterations += done * level.height * level.width
            u, v = images[kernels.U].copy(), images[kernels.V].copy()
        return u, v


def centred_gradient(image: FloatImage) -> tuple[FloatImage, FloatImage]:
    """Return d/dx and d/dy by central differences; beyond a border the border pixel itself stands in."""
    half = np.float32(0.5)
    padded = np.pad(image, 1, mode="edge")
    return half * (padded[1:-1, 2:] - padded[1:-1, :-2]), half * (padded[2:, 1:-1] - padded[:-2, 1:-1])


def warp(images: tuple[FloatImage, FloatImage, FloatImage], map_x: FloatImage, map_y: FloatImage) -> tuple[FloatImage, ...]:
    """Sample each image at (map_x, map_y) by bicubic interpolation; 0 outside."""
    if _SEPARATE_PLANES:
        return tuple(cv2.remap(image, map_x, map_y, cv2.INTER_CUBIC) for image in images)
    together = cv2.remap(cv2.merge(images), map_x, map_y, cv2.INTER_CUBIC)
    return cv2.split(together)  # type: ignore[no-any-return]
