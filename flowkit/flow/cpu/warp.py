"""Warp an image and its gradient by the flow, and linearise the brightness difference there, with OpenCV's remap or our own.

Strict results need the bits of OpenCV. Our warp takes a third of the time of OpenCV's remap and repeats the arithmetic of
OpenCV 5.0 on processors with fused multiply-add. `own_warp_is_exact` tests, for every image size, whether the installed OpenCV
computes the same; where it does not (OpenCV 4, other processors), mode ``strict`` calls OpenCV.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import cv2
import numpy as np

from flowkit.flow.cpu.fields import (
    GRAD,
    IX,
    IY,
    PAD,
    RHO,
    SQUARES,
    STATES,
    FloatArray,
    U,
    V,
    Vector,
    images,
    make_fields,
    plane_size,
    row_stride,
)
from flowkit.flow.cpu.jit import compile_kernel, compile_part
from flowkit.flow.cpu.simd import (
    LANES,
    floor,
    interpolate,
    keep_first,
    larger,
    load,
    load_every_fourth,
    load_every_third,
    multiply_add,
    nearest,
    smaller,
    splat,
    store,
    store_interleaved,
)

# OpenCV 4 rounds coordinates to 1/32 px. OpenCV 5 remaps three channels at once faster than three images, with the same result.
_OPENCV_4 = int(cv2.__version__.split(".")[0]) < 5

_FRAME = 4  # width in px of the zeros around an image that is warped
_SCRATCH_ROWS = 14
_ZERO, _HALF, _ONE, _TWO, _THREE = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2), np.float32(3)
_CUBIC_A = np.float32(-0.75)  # of the bicubic kernel
_SUBPIXELS = np.float32(32)
_FIRST_OF_3, _SECOND_OF_3, _THIRD_OF_3 = load_every_third
_FIRST_OF_4, _SECOND_OF_4, _THIRD_OF_4, _ = load_every_fourth


class Warp(Protocol):
    """Sets the linearisation in `fields`, for images up to the size for which it was made."""

    def set_image(self, image_1: FloatArray, height: int, width: int) -> None:
        """Set the image to warp, which is flat, and its gradient."""

    def linearise(self, fields: FloatArray, state: int, image_0: FloatArray, height: int, width: int) -> None:
        """Sample image and gradient at x + u by bicubic interpolation, 0 outside, and linearise rho there."""


class OpenCVWarp:
    """The warp by ``cv2.remap``."""

    def __init__(self, height: int, width: int) -> None:
        pixels = height * width
        self._gradient = np.empty(3 * pixels, np.float32)
        self._warped = np.zeros(3 * (pixels + PAD), np.float32)
        self._maps = np.empty((2, pixels + PAD), np.float32)
        self._ramp = np.arange(width + PAD, dtype=np.float32)

    def set_image(self, image_1: FloatArray, height: int, width: int) -> None:
        layout = (0, width, 1, height * width) if _OPENCV_4 else (0, 3 * width, 3, 1)
        _differentiate(image_1, self._gradient, height, width, *layout)

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


class OwnWarp:
    """The warp compiled here; coordinates are rounded as in the installed OpenCV."""

    def __init__(self, height: int, width: int) -> None:
        frame = 2 * _FRAME
        self._framed = np.empty(4 * (height + frame) * (width + frame), np.float32)
        self._scratch = np.zeros(_SCRATCH_ROWS * row_stride(width), np.float32)
        self._ramp = np.arange(width + PAD, dtype=np.float32)

    def set_image(self, image_1: FloatArray, height: int, width: int) -> None:
        framed_width = width + 2 * _FRAME
        self._framed[: 4 * framed_width * (height + 2 * _FRAME)] = 0
        start = 4 * _FRAME * (framed_width + 1)
        _differentiate(image_1, self._framed, height, width, start, 4 * framed_width, 4, 1)

    def linearise(self, fields: FloatArray, state: int, image_0: FloatArray, height: int, width: int) -> None:
        _warp_and_linearise(fields, state, self._framed, self._scratch, self._ramp, image_0, height, width, _OPENCV_4)


@lru_cache(maxsize=256)
def own_warp_is_exact(height: int, width: int) -> bool:
    """Return whether both warps give the same bytes at this size, for a random image and motions of every magnitude."""
    rng = np.random.default_rng(height * 65_536 + width)
    image_0, image_1 = (255 * rng.random(height * width + PAD, dtype=np.float32) for _ in range(2))
    # nearly all windows lie inside the image in some rows, across its border in others, and far outside in the rest
    magnitudes_px = np.resize([0.4, 4, 0.1, 40, 1, 1e4], (height, 1))
    flow = (rng.normal(size=(2, height, width)) * magnitudes_px).astype(np.float32)
    results = []
    for warp in (OpenCVWarp(height, width), OwnWarp(height, width)):
        fields = make_fields(height, width)
        planes = images(fields, height, width)
        state = STATES[0]
        planes[state : state + 2] = flow
        warp.set_image(image_1, height, width)
        warp.linearise(fields, state, image_0, height, width)
        results.append(planes[:SQUARES].copy())
    return np.array_equal(results[0], results[1])


@compile_kernel
def _set_coordinates(S: FloatArray, state: int, ramp: FloatArray, map_x: FloatArray, map_y: FloatArray, height: int, width: int) -> None:
    """Set the images x + u and y + v, which have no padding but room for 16 more values; `ramp` is 0, 1, 2, ..."""
    stride, plane = row_stride(width), plane_size(height, width)
    for y in range(height):
        for x in range(0, width, LANES):  # the next row overwrites what is written beyond the end of this one
            at = (y + 1) * stride + PAD + x
            store(map_x, y * width + x, load(ramp, x) + load(S, at + (state + U) * plane))
            store(map_y, y * width + x, splat(np.float32(y)) + load(S, at + (state + V) * plane))


@compile_part
def _set_linearisation(
    S: FloatArray, at: int, plane: int, i1: Vector, ix: Vector, iy: Vector, u: Vector, v: Vector, i0: Vector, count: int
) -> None:
    """Set the coefficients of rho(u) (eq. 9) for sixteen pixels, of which the first `count` lie in the image."""
    store(S, at + IX * plane, keep_first(ix, count))
    store(S, at + IY * plane, keep_first(iy, count))
    store(S, at + RHO * plane, keep_first(((i1 - ix * u) - iy * v) - i0, count))
    store(S, at + GRAD * plane, keep_first(ix * ix + iy * iy, count))


@compile_kernel
def _linearise(S: FloatArray, state: int, warped: FloatArray, interleaved: bool, image_0: FloatArray, height: int, width: int) -> None:
    """Set the coefficients of rho(u) (eq. 9) from the warped image and gradient.

    `warped` holds I1, dI1/dx and dI1/dy at x + u, as three channels if `interleaved`, else as three images. It and
    `image_0` have 16 more values per channel than the image, which are read but not used.
    """
    stride, plane = row_stride(width), plane_size(height, width)
    pixels = height * width
    for y in range(height):
        for x in range(0, width, LANES):
            pixel, at = y * width + x, (y + 1) * stride + PAD + x
            if interleaved:
                i1, ix, iy = _FIRST_OF_3(warped, 3 * pixel), _SECOND_OF_3(warped, 3 * pixel), _THIRD_OF_3(warped, 3 * pixel)
            else:
                i1, ix, iy = load(warped, pixel), load(warped, pixel + pixels), load(warped, pixel + 2 * pixels)
            u, v = load(S, at + (state + U) * plane), load(S, at + (state + V) * plane)
            _set_linearisation(S, at, plane, i1, ix, iy, u, v, load(image_0, pixel), width - x)


@compile_kernel
def _differentiate(
    image: FloatArray, result: FloatArray, height: int, width: int, start: int, to_row: int, to_pixel: int, to_channel: int
) -> None:
    """Set I, dI/dx and dI/dy by central differences; border pixels are repeated outside the image.

    `result` begins at `start`, with the given distances between its rows, pixels and channels.
    """
    for y in range(height):
        above, below = max(y - 1, 0) * width, min(y + 1, height - 1) * width
        for x in range(width):
            left, right = y * width + max(x - 1, 0), y * width + min(x + 1, width - 1)
            at = start + y * to_row + x * to_pixel
            result[at] = image[y * width + x]
            result[at + to_channel] = _HALF * (image[right] - image[left])
            result[at + 2 * to_channel] = _HALF * (image[below + x] - image[above + x])


@compile_part
def _set_cubic_weights(weights: FloatArray, at: int, t: Vector) -> None:
    """Write the four bicubic weights (a = -0.75) of sixteen points at t in [0, 1), side by side."""
    one, a = splat(_ONE), splat(_CUBIC_A)
    rest = one - t
    first, last = a * (t * (rest * rest)), a * (rest * (t * t))
    second = multiply_add(multiply_add(a + splat(_TWO), t, splat(_ZERO) - (a + splat(_THREE))), t * t, one)
    store_interleaved(weights, at, first, second, one - first - second - last, last)


@compile_kernel
def _warp_and_linearise(
    S: FloatArray,
    state: int,
    framed: FloatArray,
    scratch: FloatArray,
    ramp: FloatArray,
    image_0: FloatArray,
    height: int,
    width: int,
    rounded: bool,
) -> None:
    """Do what OpenCV's bicubic remap and `_linearise` do, a row at a time, in the order of OpenCV 5's float operations.

    `framed` holds I1, dI1/dx, dI1/dy and an unused channel, in a frame of `_FRAME` pixels of zeros; a window of 4 x 4 pixels
    that lies outside the image is moved into the frame. If `rounded`, coordinates are rounded to 1/32 px, as in OpenCV 4.
    `scratch` has room for `_SCRATCH_ROWS` padded rows; `ramp` is 0, 1, 2, ...
    """
    stride, plane = row_stride(width), plane_size(height, width)
    framed_stride = 4 * (width + 2 * _FRAME)
    columns, rows, weights_x, weights_y, warped = 0, stride, 2 * stride, 6 * stride, 10 * stride
    frame, fine, unit = splat(np.float32(_FRAME - 1)), splat(_SUBPIXELS), splat(_ONE / _SUBPIXELS)
    zero, most_right, most_low = splat(_ZERO), splat(np.float32(width + _FRAME)), splat(np.float32(height + _FRAME))
    for y in range(height):
        for x in range(0, width, LANES):
            at = (y + 1) * stride + PAD + x
            to_x = load(ramp, x) + load(S, at + (state + U) * plane)
            to_y = splat(np.float32(y)) + load(S, at + (state + V) * plane)
            if rounded:
                to_x, to_y = nearest(to_x * fine) * unit, nearest(to_y * fine) * unit
            left, top = floor(to_x), floor(to_y)
            _set_cubic_weights(scratch, weights_x + 4 * x, to_x - left)
            _set_cubic_weights(scratch, weights_y + 4 * x, to_y - top)
            # the window's first pixel, within the frame
            store(scratch, columns + x, larger(smaller(left + frame, most_right), zero))
            store(scratch, rows + x, larger(smaller(top + frame, most_low), zero))
        for x in range(width):
            first = int(scratch[rows + x]) * framed_stride + 4 * int(scratch[columns + x])
            interpolate(framed, first, framed_stride, scratch, weights_x + 4 * x, weights_y + 4 * x, warped + 4 * x)
        for x in range(0, width, LANES):
            at = (y + 1) * stride + PAD + x
            i1, ix, iy = (_FIRST_OF_4(scratch, warped + 4 * x), _SECOND_OF_4(scratch, warped + 4 * x), _THIRD_OF_4(scratch, warped + 4 * x))
            u, v = load(S, at + (state + U) * plane), load(S, at + (state + V) * plane)
            _set_linearisation(S, at, plane, i1, ix, iy, u, v, load(image_0, y * width + x), width - x)
