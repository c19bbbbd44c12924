"""The 5 x 5 median of an image, compiled: a sorting network that shares its columns between neighbouring pixels.

The result equals ``cv2.medianBlur(image, 5)`` for every input without NaN, because minima and maxima round nothing, and takes
about half the time. TV-L1 needs sixty medians per pair of frames.
"""

from __future__ import annotations

from flowkit.flow.cpu.fields import FloatArray, Vector
from flowkit.flow.cpu.jit import compile_also, compile_kernel, compile_part
from flowkit.flow.cpu.simd import LANES, larger, load, smaller, store

SCRATCH_ROWS = 8


@compile_also
def scratch_row(width: int) -> int:
    """Return the length of a row of the scratch array, which has room for sixteen values before and after the pixels."""
    return (width + LANES - 1) // LANES * LANES + 2 * LANES


@compile_part
def _sort_5(a: Vector, b: Vector, c: Vector, d: Vector, e: Vector) -> tuple[Vector, Vector, Vector, Vector, Vector]:
    """Sort five values per lane by nine exchanges; the compiler drops those whose result is not used."""
    a, b = smaller(a, b), larger(a, b)
    d, e = smaller(d, e), larger(d, e)
    c, e = smaller(c, e), larger(c, e)
    c, d = smaller(c, d), larger(c, d)
    b, e = smaller(b, e), larger(b, e)
    a, d = smaller(a, d), larger(a, d)
    a, c = smaller(a, c), larger(a, c)
    b, d = smaller(b, d), larger(b, d)
    b, c = smaller(b, c), larger(b, c)
    return a, b, c, d, e


@compile_part
def _sorted_row(scratch: FloatArray, at: int) -> tuple[Vector, Vector, Vector, Vector, Vector]:
    """Sort the five neighbours along a row."""
    return _sort_5(load(scratch, at - 2), load(scratch, at - 1), load(scratch, at), load(scratch, at + 1), load(scratch, at + 2))


@compile_kernel
def median_5x5(image: FloatArray, start: int, stride: int, step: int, scratch: FloatArray, height: int, width: int) -> None:
    """Replace an image by its median over 5 x 5 windows, in place; border pixels are repeated outside the image.

    The image begins at `start` of a flat array. Its rows are `stride` apart, and each sixteen pixels of a row are `step` apart;
    they may be read and written up to the next multiple of 16 pixels. `scratch` has room for `SCRATCH_ROWS` rows of
    `scratch_row(width)` values.

    The rows of a window whose columns are sorted are sorted, which leaves the columns sorted. Twelve elements are then on a
    known side of the median by their position alone, and the other thirteen lie on three falling diagonals. Only the largest
    element of the upper diagonal, and only the smallest of the lower one, can be the median. (This was checked for all windows
    of zeros and ones, which proves it for a network of minima and maxima.)
    """
    length = scratch_row(width)
    blocks = (width + LANES - 1) // LANES
    for y in range(height + 2):
        if y < height:
            above_2, above = start + max(y - 2, 0) * stride, start + max(y - 1, 0) * stride
            below, below_2 = start + min(y + 1, height - 1) * stride, start + min(y + 2, height - 1) * stride
            for block in range(blocks):
                x = block * step
                lowest, low, middle, high, highest = _sort_5(
                    load(image, above_2 + x),
                    load(image, above + x),
                    load(image, start + y * stride + x),
                    load(image, below + x),
                    load(image, below_2 + x),
                )
                at = LANES + block * LANES
                store(scratch, at, lowest)
                store(scratch, at + length, low)
                store(scratch, at + 2 * length, middle)
                store(scratch, at + 3 * length, high)
                store(scratch, at + 4 * length, highest)
            for k in range(5):
                at = k * length + LANES
                scratch[at - 1] = scratch[at - 2] = scratch[at]
                scratch[at + width] = scratch[at + width + 1] = scratch[at + width - 1]
            for block in range(blocks):
                at = LANES + block * LANES
                _, _, _, a1, b1 = _sorted_row(scratch, at)
                _, _, a2, b2, c1 = _sorted_row(scratch, at + length)
                _, a3, b3, c2, _ = _sorted_row(scratch, at + 2 * length)
                a4, b4, c3, _, _ = _sorted_row(scratch, at + 3 * length)
                b5, c4, _, _, _ = _sorted_row(scratch, at + 4 * length)
                upper = larger(larger(a1, a2), larger(a3, a4))
                lower = smaller(smaller(c1, c2), smaller(c3, c4))
                _, b_2, b_3, b_4, _ = _sort_5(b1, b2, b3, b4, b5)
                first, second = smaller(upper, lower), larger(upper, lower)
                store(scratch, (5 + y % 3) * length + at, smaller(b_4, smaller(larger(first, b_3), larger(second, b_2))))
        if y >= 2:  # the row two above is no longer read
            for block in range(blocks):
                store(image, start + (y - 2) * stride + block * step, load(scratch, (5 + (y - 2) % 3) * length + LANES + block * LANES))
