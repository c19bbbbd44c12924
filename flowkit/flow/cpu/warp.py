"""Warp an image and its gradient by the flow, and linearise the brightness difference there, with OpenCV's remap or our own warp.

Strict results need the bits of OpenCV. Our warp takes a fifth of the time of OpenCV's remap and repeats the arithmetic of
OpenCV 5.0 on processors with fused multiply-add. `own_warp_is_exact` tests, for every image size, whether the installed OpenCV
computes the same; where it does not (OpenCV 4, other processors), mode ``strict`` calls OpenCV.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import cv2
import numpy as np

from flowkit.flow.cpu.fields import (
    COEFFICIENT_BLOCK,
    STATE_BLOCK,
    FloatArray,
    U,
    V,
    coefficient_images,
    coefficients_at,
    make_fields,
    num_blocks,
    state_at,
    write_flow,
)
from flowkit.flow.cpu.jit import compile_kernel
from flowkit.flow.cpu.own_warp import OwnWarp, set_coefficients
from flowkit.flow.cpu.shuffles import load_every_third
from flowkit.flow.cpu.simd import LANES, load, splat, store

# OpenCV 4 rounds coordinates to 1/32 px. OpenCV 5 remaps three channels at once faster than three images, with the same result.
_OPENCV_4 = int(cv2.__version__.split(".")[0]) < 5

_HALF = np.float32(0.5)
_FIRST_OF_3, _SECOND_OF_3, _THIRD_OF_3 = load_every_third


class Warp(Protocol):
    """Sets the coefficients in `fields`, for images up to the size for which it was made."""

    def set_image(self, image_1: FloatArray, height: int, width: int) -> None:
        """Set the image to warp, which is flat and has 16 more values, and its gradient."""

    def linearise(self, fields: FloatArray, state: int, image_0: FloatArray, height: int, width: int) -> None:
        """Sample image and gradient at x + u by bicubic interpolation, 0 outside, and linearise rho there.

        `image_0` is flat and has 16 more values than the image.
        """


def make_warp(height: int, width: int, exact: bool, like_opencv: bool) -> Warp:
    """Return OpenCV's warp or our own, for images up to a size; if not `exact`, it stores the reciprocal of the squared gradient."""
    return OpenCVWarp(height, width) if like_opencv else OwnWarp(height, width, _OPENCV_4, exact)


class OpenCVWarp:
    """The warp by ``cv2.remap``."""

    def __init__(self, height: int, width: int) -> None:
        pixels = height * width
        self._gradient = np.empty(3 * pixels, np.float32)
        self._warped = np.zeros(3 * (pixels + LANES), np.float32)
        self._maps = np.empty((2, pixels + LANES), np.float32)
        self._ramp = np.arange(width + LANES, dtype=np.float32)

    def set_image(self, image_1: FloatArray, height: int, width: int) -> None:
        _differentiate(image_1, self._gradient, height, width, *((1, height * width) if _OPENCV_4 else (3, 1)))

    def linearise(self, fields: FloatArray, state: int, image_0: FloatArray, height: int, width: int) -> None:
        pixels = height * width
        _set_coordinates(fields, state, self._ramp, self._maps[0], self._maps[1], height, width)
        map_x, map_y = (flat[:pixels].reshape(height, width) for flat in self._maps)
        sources, targets = self._images(self._gradient, height, width), self._images(self._warped, height, width)
        for source, target in zip(sources, targets, strict=True):
            cv2.remap(source, map_x, map_y, cv2.INTER_CUBIC, dst=target)
        _linearise(fields, state, self._warped, not _OPENCV_4, image_0, height, width)

    @staticmethod
    def _images(flat: FloatArray, height: int, width: int) -> list[FloatArray]:
        flat = flat[: 3 * height * width]
        return list(flat.reshape(3, height, width)) if _OPENCV_4 else [flat.reshape(height, width, 3)]


@lru_cache(maxsize=256)
def own_warp_is_exact(height: int, width: int) -> bool:
    """Return whether both warps give the same bytes at this size, for a random image and motions of every magnitude."""
    rng = np.random.default_rng(height * 65_536 + width)
    image_0, image_1 = (255 * rng.random(height * width + LANES, dtype=np.float32) for _ in range(2))
    # nearly all windows lie inside the image in some rows, across its border in others, and far outside in the rest
    magnitudes_px = np.resize([0.4, 4, 0.1, 40, 1, 1e4], (height, 1))
    flow = (rng.normal(size=(2, height, width)) * magnitudes_px).astype(np.float32)
    results = []
    for like_opencv in (True, False):
        warp = make_warp(height, width, True, like_opencv)
        fields = make_fields(height, width)
        write_flow(fields, 0, flow.ravel(), height, width)
        warp.set_image(image_1, height, width)
        warp.linearise(fields, 0, image_0, height, width)
        results.append(coefficient_images(fields, height, width))
    return np.array_equal(results[0], results[1])


@compile_kernel
def _set_coordinates(S: FloatArray, state: int, ramp: FloatArray, map_x: FloatArray, map_y: FloatArray, height: int, width: int) -> None:
    """Set the images x + u and y + v, which have no padding but room for 16 more values; `ramp` is 0, 1, 2, ..."""
    for y in range(height):
        for block in range(num_blocks(width)):  # the next row overwrites what is written beyond the end of this one
            x, at = LANES * block, state_at(state, y, height, width) + block * STATE_BLOCK
            store(map_x, y * width + x, load(ramp, x) + load(S, at + U))
            store(map_y, y * width + x, splat(np.float32(y)) + load(S, at + V))


@compile_kernel
def _linearise(S: FloatArray, state: int, warped: FloatArray, interleaved: bool, image_0: FloatArray, height: int, width: int) -> None:
    """Set the coefficients of rho(u) (eq. 9) from the warped image and gradient.

    `warped` holds I1, dI1/dx and dI1/dy at x + u, as three channels if `interleaved`, else as three images. It and
    `image_0` have 16 more values per channel than the image, which are read but not used.
    """
    pixels = height * width
    for y in range(height):
        for block in range(num_blocks(width)):
            pixel, at = y * width + LANES * block, state_at(state, y, height, width) + block * STATE_BLOCK
            if interleaved:
                i1, ix, iy = _FIRST_OF_3(warped, 3 * pixel), _SECOND_OF_3(warped, 3 * pixel), _THIRD_OF_3(warped, 3 * pixel)
            else:
                i1, ix, iy = load(warped, pixel), load(warped, pixel + pixels), load(warped, pixel + 2 * pixels)
            to = coefficients_at(y, width) + block * COEFFICIENT_BLOCK
            set_coefficients(S, to, i1, ix, iy, load(S, at + U), load(S, at + V), load(image_0, pixel), True)


@compile_kernel
def _differentiate(image: FloatArray, result: FloatArray, height: int, width: int, to_pixel: int, to_channel: int) -> None:
    """Set I, dI/dx and dI/dy by central differences; border pixels are repeated outside the image.

    `result` has no padding; its pixels and channels are the given distances apart.
    """
    for y in range(height):
        above, below = max(y - 1, 0) * width, min(y + 1, height - 1) * width
        for x in range(width):
            left, right = y * width + max(x - 1, 0), y * width + min(x + 1, width - 1)
            at = (y * width + x) * to_pixel
            result[at] = image[y * width + x]
            result[at + to_channel] = _HALF * (image[right] - image[left])
            result[at + 2 * to_channel] = _HALF * (image[below + x] - image[above + x])
