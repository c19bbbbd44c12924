# mypy: disable-error-code="import-untyped, misc, no-untyped-call, unused-ignore"
"""Operations between the lanes of `simd` vectors, on some of their lanes, and on windows of images.

They exist only inside compiled code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from flowkit.flow.cpu.simd import (
    ARRAY,
    FLOAT,
    FLOATS,
    INTEGER,
    INTP,
    LANES,
    VECTOR,
    constant,
    define,
    emit_load,
    emit_multiply_add,
    emit_store,
    joined,
    shuffle,
    spread,
)

_LANE_0 = ir.Constant(ir.VectorType(ir.IntType(1), LANES), [1] + [0] * (LANES - 1))


def _emit_load_channel(num_channels: int, channel: int) -> Callable[..., Any]:
    def emit(builder: Any, data: Any, index: Any) -> Any:
        parts = [emit_load(builder, data, builder.add(index, ir.Constant(index.type, LANES * part))) for part in range(num_channels)]
        together = joined(builder, (parts + parts)[:4])
        return shuffle(builder, together, together, [num_channels * lane + channel for lane in range(LANES)])

    return emit


def _emit_store_interleaved(builder: Any, data: Any, index: Any, *vectors: Any) -> Any:
    together = joined(builder, list(vectors))
    order = [lane + LANES * channel for lane in range(LANES) for channel in range(len(vectors))]
    for part in range(len(vectors)):
        lanes = order[LANES * part : LANES * (part + 1)]
        emit_store(builder, data, builder.add(index, ir.Constant(index.type, LANES * part)), shuffle(builder, together, together, lanes))
    return ir.Constant(ir.IntType(8).as_pointer(), None)


def _emit_interpolate_linearly(
    builder: Any, image: Any, pixel: Any, row: Any, plane: Any, scratch: Any, weights: Any, result: Any, single_result: Any
) -> Any:
    """Interpolate one pixel of five channels bilinearly, four of which are interleaved."""
    quad = ir.VectorType(FLOAT, 4)
    nothing = ir.Constant(quad, ir.Undefined)
    single, four = ir.Constant(FLOAT, 0.0), ir.Constant(quad, [0.0] * 4)

    def offset(index: Any, distance: int) -> Any:
        return builder.add(index, ir.Constant(index.type, distance))

    below = builder.add(pixel, row)
    for number, corner in enumerate((pixel, offset(pixel, 1), below, offset(below, 1))):
        weight = builder.load(builder.gep(scratch, [offset(weights, number)]))
        weight_of_four = shuffle(builder, builder.insert_element(nothing, weight, ir.Constant(INTEGER, 0)), nothing, [0] * 4)
        address = builder.gep(image, [builder.mul(corner, ir.Constant(corner.type, 4))])
        four = emit_multiply_add(builder, builder.load(builder.bitcast(address, quad.as_pointer()), align=4), weight_of_four, four)
        single = builder.fadd(builder.fmul(builder.load(builder.gep(image, [builder.add(plane, corner)])), weight), single)
    builder.store(four, builder.bitcast(builder.gep(scratch, [result]), quad.as_pointer()), align=4)
    builder.store(single, builder.gep(scratch, [single_result]))
    return ir.Constant(ir.IntType(8).as_pointer(), None)


def _emit_window_sum(builder: Any, image: Any, first: Any, stride: Any, weights: Any, at: Any, five_columns: Any, five_rows: Any) -> Any:
    def offset(index: Any, distance: int) -> Any:
        return builder.add(index, ir.Constant(index.type, distance))

    def weight(number: int) -> Any:
        return emit_load(builder, weights, offset(at, LANES * number))

    def chain(terms: list[tuple[Any, Any]]) -> Any:
        total = builder.fmul(*terms[0])
        for value, factor in terms[1:]:
            total = emit_multiply_add(builder, value, factor, total)
        return total

    def row(number: int, num_columns: int) -> Any:
        start = builder.add(first, builder.mul(stride, ir.Constant(stride.type, number)))
        return chain([(emit_load(builder, image, offset(start, column)), weight(column)) for column in range(num_columns)])

    def rows(num_columns: int) -> tuple[Any, Any]:
        four = chain([(row(number, num_columns), weight(5 + number)) for number in range(4)])
        before = builder.block
        with builder.if_then(five_rows):
            five = emit_multiply_add(builder, row(4, num_columns), weight(9), four)
            last = builder.block
        result = builder.phi(FLOATS)
        result.add_incoming(four, before)
        result.add_incoming(five, last)
        return result, builder.block

    with builder.if_else(five_columns) as (then, otherwise):
        with then:
            wide = rows(5)
        with otherwise:
            narrow = rows(4)
    result = builder.phi(FLOATS)
    result.add_incoming(*wide)
    result.add_incoming(*narrow)
    return result


def _select_first(builder: Any, vector: Any, count: Any, otherwise: Any) -> Any:
    numbers = ir.Constant(ir.VectorType(count.type, LANES), list(range(LANES)))
    return builder.select(builder.icmp_signed("<", numbers, spread(builder, count)), vector, otherwise)


def _emit_keep_first(builder: Any, vector: Any, count: Any) -> Any:
    return _select_first(builder, vector, count, constant(0.0))


def _emit_repeat_last(builder: Any, vector: Any, count: Any) -> Any:
    last = builder.extract_element(vector, builder.sub(count, ir.Constant(count.type, 1)))
    return _select_first(builder, vector, count, spread(builder, last))


def _emit_lanes(comparison: str) -> Callable[..., Any]:
    """Compare lane by lane; the result is an integer with a bit for each lane."""

    def emit(builder: Any, a: Any, b: Any) -> Any:
        lanes = builder.bitcast(builder.fcmp_ordered(comparison, a, b), ir.IntType(LANES))
        return builder.zext(lanes, INTP)

    return emit


def _emit_choose(builder: Any, lanes: Any, yes: Any, no: Any) -> Any:
    bits = builder.bitcast(builder.trunc(lanes, ir.IntType(LANES)), ir.VectorType(ir.IntType(1), LANES))
    return builder.select(bits, yes, no)


def _emit_first_of(builder: Any, lanes: Any, vector: Any) -> Any:
    number = builder.cttz(lanes, ir.Constant(ir.IntType(1), 1))
    return builder.extract_element(vector, number)


def _emit_shifted(first_lane: int) -> Callable[..., Any]:
    return lambda builder, a, b: shuffle(builder, a, b, list(range(first_lane, first_lane + LANES)))


def _emit_with_lane(number: int) -> Callable[..., Any]:
    def emit(builder: Any, vector: Any, data: Any, index: Any) -> Any:
        return builder.insert_element(vector, builder.load(builder.gep(data, [index])), ir.Constant(INTEGER, number))

    return emit


load_every_third = [define(VECTOR, (ARRAY, types.intp), _emit_load_channel(3, channel)) for channel in range(3)]
"""load_every_third[c](array, index): ``array[index + c : index + 48 : 3]``, unchecked."""

load_every_fourth = [define(VECTOR, (ARRAY, types.intp), _emit_load_channel(4, channel)) for channel in range(4)]
"""load_every_fourth[c](array, index): ``array[index + c : index + 64 : 4]``, unchecked."""

store_interleaved = define(types.void, (ARRAY, types.intp, VECTOR, VECTOR, VECTOR, VECTOR), _emit_store_interleaved)
"""store_interleaved(array, index, a, b, c, d): write a[0], b[0], c[0], d[0], a[1] and so on, unchecked."""

store_pairs = define(types.void, (ARRAY, types.intp, VECTOR, VECTOR), _emit_store_interleaved)
"""store_pairs(array, index, a, b): write a[0], b[0], a[1], b[1] and so on, unchecked."""

keep_first = define(VECTOR, (VECTOR, types.intp), _emit_keep_first)
"""keep_first(vector, count): the lanes numbered below count; the others become 0."""

repeat_last = define(VECTOR, (VECTOR, types.intp), _emit_repeat_last)
"""repeat_last(vector, count): the lanes numbered below count; the others become the last of these."""

one_before = define(VECTOR, (VECTOR, VECTOR), _emit_shifted(LANES - 1))
"""one_before(a, b): the last lane of a, then all but the last of b."""

one_after = define(VECTOR, (VECTOR, VECTOR), _emit_shifted(1))
"""one_after(a, b): all but the first lane of a, then the first of b."""

neighbours_after = define(VECTOR, (VECTOR,), lambda builder, a: shuffle(builder, a, a, [*range(1, LANES), LANES - 1]))
"""neighbours_after(a): all but the first lane of a, then the last lane again."""

with_first = define(VECTOR, (VECTOR, ARRAY, types.intp), _emit_with_lane(0))
"""with_first(vector, array, index): the vector, with ``array[index]`` in its first lane, unchecked."""

with_last = define(VECTOR, (VECTOR, ARRAY, types.intp), _emit_with_lane(LANES - 1))
"""with_last(vector, array, index): the vector, with ``array[index]`` in its last lane, unchecked."""

replace_lane_0 = define(VECTOR, (VECTOR, VECTOR), lambda builder, a, b: builder.select(_LANE_0, b, a))
"""replace_lane_0(a, b): a, with lane 0 from b."""

first_of = define(types.float32, (types.intp, VECTOR), _emit_first_of)
"""first_of(lanes, vector): the value in the first lane whose bit is set; at least one is."""

lanes_equal = define(types.intp, (VECTOR, VECTOR), _emit_lanes("=="))
"""lanes_equal(a, b): bit i is set if a == b in lane i."""

lanes_at_most = define(types.intp, (VECTOR, VECTOR), _emit_lanes("<="))
"""lanes_at_most(a, b): bit i is set if a <= b in lane i."""

choose = define(VECTOR, (types.intp, VECTOR, VECTOR), _emit_choose)
"""choose(lanes, yes, no): per lane, yes if its bit is set, else no."""

interpolate_linearly = define(
    types.void, (ARRAY, types.intp, types.intp, types.intp, ARRAY, types.intp, types.intp, types.intp), _emit_interpolate_linearly
)
"""interpolate_linearly(image, pixel, row, plane, scratch, weights, result, single_result): bilinear, of one pixel, unchecked.

`image` holds four interleaved channels and, from ``image[plane]`` on, a fifth one; its rows are `row` pixels apart, and the window's
first pixel is number `pixel`. The weights of the window's four pixels begin at ``scratch[weights]``, the results of the four channels
at ``scratch[result]``; that of the fifth is ``scratch[single_result]``.
"""

window_sum = define(VECTOR, (ARRAY, types.intp, types.intp, ARRAY, types.intp, types.boolean, types.boolean), _emit_window_sum)
"""window_sum(image, first, stride, weights, at, five_columns, five_rows): sums over the windows of sixteen neighbours, unchecked.

The first window begins at ``image[first]``, and has four columns and rows or five. From ``weights[at]`` on there are five vectors with
the weights of the columns and five with those of the rows. The sum is that of the rows' sums; each is a chain of products.
"""
