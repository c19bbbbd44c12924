# mypy: disable-error-code="import-untyped, misc, no-untyped-call, unused-ignore"
"""Sixteen float32 values as one type that numba compiles: the few vector instructions of which the kernels of flow consist.

LLVM does not vectorise loops over ten arrays, because it cannot rule out that they overlap, and where it does, it chooses
narrower registers than the machine has. With explicit vectors, one source and one compiled version serve every image size, and
LLVM splits the vectors into those of the machine (AVX-512, AVX2, SSE, NEON).

The functions below exist only inside compiled code. A vector supports ``+ - * /``; every other operation is a function. All are
IEEE-exact and computed in the order in which they are written, except the two ``rough_`` functions.
"""

from __future__ import annotations

import operator
import os
import platform
from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES = 16

_FLOAT = ir.FloatType()
_INTEGER = ir.IntType(32)
_FLOATS = ir.VectorType(_FLOAT, LANES)
_DOUBLES = ir.VectorType(ir.DoubleType(), LANES)
_LANE_0 = ir.Constant(ir.VectorType(ir.IntType(1), LANES), [1] + [0] * (LANES - 1))


class _Float32x16(types.Type):
    """The numba type of a vector of sixteen float32."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


class _Float32x16Model(models.PrimitiveModel):
    """One LLVM vector value; it never leaves compiled code and so needs no boxing."""

    def __init__(self, manager: Any, vector_type: Any) -> None:
        super().__init__(manager, vector_type, _FLOATS)


VECTOR = _Float32x16()
ARRAY = types.Array(types.float32, 1, "C")
register_model(_Float32x16)(_Float32x16Model)


def _machine_has(feature: str) -> bool:
    """Return whether this is an x86 processor with the feature, and numba compiles for it and not for one that the user named."""
    if os.environ.get("NUMBA_CPU_NAME") or os.environ.get("NUMBA_CPU_FEATURES"):
        return False
    return platform.machine().lower() in ("x86_64", "amd64") and bool(binding.get_host_cpu_features().get(feature, False))


ROUGH = _machine_has("avx512f")  # estimates of 14 bits
FUSED = _machine_has("fma") or platform.machine().lower() in ("aarch64", "arm64")


def _constant(value: float) -> Any:
    return ir.Constant(_FLOATS, [value] * LANES)


def _call(builder: Any, name: str, result: Any, *arguments: Any, fastmath: tuple[str, ...] = ()) -> Any:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments, fastmath=fastmath)


def _operator(function: Any, instruction: str) -> None:
    """Give vectors one of Python's arithmetic operators."""
    infer_global(function)(type(f"Vector_{instruction}", (ConcreteTemplate,), {"cases": [signature(VECTOR, VECTOR, VECTOR)]}))
    lower_builtin(function, VECTOR, VECTOR)(lambda context, builder, sig, args: getattr(builder, instruction)(*args))


for _function, _instruction in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul"), (operator.truediv, "fdiv")):
    _operator(_function, _instruction)


def _define(result: Any, operands: tuple[Any, ...], emit: Callable[..., Any]) -> Any:
    """Return a function for compiled code whose LLVM instructions ``emit(builder, *values)`` writes."""

    def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        with_pointers = (
            context.make_array(ARRAY)(context, builder, value).data if operand is ARRAY else value
            for operand, value in zip(operands, values, strict=True)
        )
        return emit(builder, *with_pointers)

    made = result(*operands), generate
    by_arity = {  # numba takes the number of arguments from the signature
        1: lambda context, a: made,
        2: lambda context, a, b: made,
        3: lambda context, a, b, c: made,
        4: lambda context, a, b, c, d: made,
        6: lambda context, a, b, c, d, e, f: made,
        7: lambda context, a, b, c, d, e, f, g: made,
        8: lambda context, a, b, c, d, e, f, g, h: made,
    }
    return intrinsic(by_arity[len(operands)])


def _address(builder: Any, data: Any, index: Any) -> Any:
    return builder.bitcast(builder.gep(data, [index]), _FLOATS.as_pointer())


def _emit_load(builder: Any, data: Any, index: Any) -> Any:
    return builder.load(_address(builder, data, index), align=4)


def _emit_store(builder: Any, data: Any, index: Any, value: Any) -> Any:
    builder.store(value, _address(builder, data, index), align=4)
    return ir.Constant(ir.IntType(8).as_pointer(), None)


def _shuffle(builder: Any, a: Any, b: Any, lanes: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_INTEGER, len(lanes)), lanes))


def _spread(builder: Any, value: Any) -> Any:
    nothing = ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined)
    return _shuffle(builder, builder.insert_element(nothing, value, ir.Constant(_INTEGER, 0)), nothing, [0] * LANES)


def _joined(builder: Any, parts: list[Any]) -> Any:
    """Put vectors end to end; their number is a power of two."""
    while len(parts) > 1:
        lanes = list(range(2 * parts[0].type.count))
        parts = [_shuffle(builder, a, b, lanes) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _emit_load_channel(num_channels: int, channel: int) -> Callable[..., Any]:
    def emit(builder: Any, data: Any, index: Any) -> Any:
        parts = [_emit_load(builder, data, builder.add(index, ir.Constant(index.type, LANES * part))) for part in range(num_channels)]
        together = _joined(builder, (parts + parts)[:4])
        return _shuffle(builder, together, together, [num_channels * lane + channel for lane in range(LANES)])

    return emit


def _emit_store_interleaved(builder: Any, data: Any, index: Any, *vectors: Any) -> Any:
    together = _joined(builder, list(vectors))
    order = [lane + LANES * channel for lane in range(LANES) for channel in range(len(vectors))]
    for part in range(len(vectors)):
        lanes = order[LANES * part : LANES * (part + 1)]
        _emit_store(builder, data, builder.add(index, ir.Constant(index.type, LANES * part)), _shuffle(builder, together, together, lanes))
    return ir.Constant(ir.IntType(8).as_pointer(), None)


def _emit_interpolate(builder: Any, image: Any, first: Any, stride: Any, scratch: Any, weights_x: Any, weights_y: Any, result: Any) -> Any:
    """Interpolate one pixel of four channels bicubically: along each row, then across their results, each as a chain of products."""
    quad = ir.VectorType(_FLOAT, 4)
    nothing = ir.Constant(quad, ir.Undefined)

    def offset(index: Any, distance: int) -> Any:
        return builder.add(index, ir.Constant(index.type, distance))

    def quad_address(data: Any, index: Any) -> Any:
        return builder.bitcast(builder.gep(data, [index]), quad.as_pointer())

    def weight(index: Any) -> Any:
        value = builder.load(builder.gep(scratch, [index]))
        return _shuffle(builder, builder.insert_element(nothing, value, ir.Constant(_INTEGER, 0)), nothing, [0] * 4)

    def chain(terms: list[tuple[Any, Any]]) -> Any:
        total = builder.fmul(*terms[0])
        for value, factor in terms[1:]:
            total = _emit_multiply_add(builder, value, factor, total)
        return total

    across = [weight(offset(weights_x, k)) for k in range(4)]
    rows = []
    for k in range(4):
        pixels = [builder.load(quad_address(image, offset(first, 4 * column)), align=4) for column in range(4)]
        rows.append((chain(list(zip(pixels, across, strict=True))), weight(offset(weights_y, k))))
        first = builder.add(first, stride)
    builder.store(chain(rows), quad_address(scratch, result), align=4)
    return ir.Constant(ir.IntType(8).as_pointer(), None)


def _emit_interpolate_linearly(
    builder: Any, image: Any, pixel: Any, row: Any, plane: Any, scratch: Any, weights: Any, result: Any, single_result: Any
) -> Any:
    """Interpolate one pixel of five channels bilinearly, four of which are interleaved."""
    quad = ir.VectorType(_FLOAT, 4)
    nothing = ir.Constant(quad, ir.Undefined)
    single, four = ir.Constant(_FLOAT, 0.0), ir.Constant(quad, [0.0] * 4)

    def offset(index: Any, distance: int) -> Any:
        return builder.add(index, ir.Constant(index.type, distance))

    below = builder.add(pixel, row)
    for number, corner in enumerate((pixel, offset(pixel, 1), below, offset(below, 1))):
        weight = builder.load(builder.gep(scratch, [offset(weights, number)]))
        weight_of_four = _shuffle(builder, builder.insert_element(nothing, weight, ir.Constant(_INTEGER, 0)), nothing, [0] * 4)
        address = builder.gep(image, [builder.mul(corner, ir.Constant(corner.type, 4))])
        four = _emit_multiply_add(builder, builder.load(builder.bitcast(address, quad.as_pointer()), align=4), weight_of_four, four)
        single = builder.fadd(builder.fmul(builder.load(builder.gep(image, [builder.add(plane, corner)])), weight), single)
    builder.store(four, builder.bitcast(builder.gep(scratch, [result]), quad.as_pointer()), align=4)
    builder.store(single, builder.gep(scratch, [single_result]))
    return ir.Constant(ir.IntType(8).as_pointer(), None)


def _emit_difference_of_products(builder: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    a, b, c, d = (builder.fpext(value, _DOUBLES) for value in (a, b, c, d))
    return builder.fptrunc(builder.fsub(builder.fmul(a, b), builder.fmul(c, d)), _FLOATS)


def _emit_keep_first(builder: Any, vector: Any, count: Any) -> Any:
    numbers = ir.Constant(ir.VectorType(count.type, LANES), list(range(LANES)))
    return builder.select(builder.icmp_signed("<", numbers, _spread(builder, count)), vector, _constant(0.0))


def _emit_where(comparison: str) -> Callable[..., Any]:
    return lambda builder, a, b, yes, no: builder.select(builder.fcmp_ordered(comparison, a, b), yes, no)


def _emit_any_differ(builder: Any, a: Any, b: Any) -> Any:
    lanes = builder.bitcast(builder.fcmp_unordered("!=", a, b), ir.IntType(LANES))
    return builder.icmp_unsigned("!=", lanes, ir.Constant(ir.IntType(LANES), 0))


def _emit_multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    if not FUSED:  # LLVM would call a function of the C library for every lane
        return builder.fadd(builder.fmul(a, b), c)
    return _call(builder, f"llvm.fma.v{a.type.count}f32", a.type, a, b, c)


def _emit_root(builder: Any, a: Any, fastmath: tuple[str, ...] = ()) -> Any:
    return _call(builder, f"llvm.sqrt.v{LANES}f{32 if a.type == _FLOATS else 64}", a.type, a, fastmath=fastmath)


def _emit_hypot(builder: Any, a: Any, b: Any) -> Any:
    a, b = builder.fpext(a, _DOUBLES), builder.fpext(b, _DOUBLES)
    squares = builder.fadd(builder.fmul(a, a), builder.fmul(b, b))
    return builder.fptrunc(_emit_root(builder, squares), _FLOATS)


def _emit_rough(name: str, otherwise: Callable[..., Any]) -> Callable[..., Any]:
    def emit(builder: Any, a: Any) -> Any:
        if ROUGH:
            return _call(builder, f"llvm.x86.avx512.{name}14.ps.512", _FLOATS, a, a, ir.Constant(ir.IntType(LANES), -1))
        return builder.fdiv(_constant(1.0), otherwise(builder, a), flags=("fast",))

    return emit


load = _define(VECTOR, (ARRAY, types.intp), _emit_load)
"""load(array, index): the sixteen values from ``array[index]`` on, unchecked."""

load_every_third = [_define(VECTOR, (ARRAY, types.intp), _emit_load_channel(3, channel)) for channel in range(3)]
"""load_every_third[c](array, index): ``array[index + c : index + 48 : 3]``, unchecked."""

load_every_fourth = [_define(VECTOR, (ARRAY, types.intp), _emit_load_channel(4, channel)) for channel in range(4)]
"""load_every_fourth[c](array, index): ``array[index + c : index + 64 : 4]``, unchecked."""

store_interleaved = _define(types.void, (ARRAY, types.intp, VECTOR, VECTOR, VECTOR, VECTOR), _emit_store_interleaved)
"""store_interleaved(array, index, a, b, c, d): write a[0], b[0], c[0], d[0], a[1] and so on, unchecked."""

interpolate = _define(types.void, (ARRAY, types.intp, types.intp, ARRAY, types.intp, types.intp, types.intp), _emit_interpolate)
"""interpolate(image, first, stride, scratch, weights_x, weights_y, result): bicubic, of one pixel of four channels, unchecked.

The window's first value is ``image[first]``, its rows are `stride` apart; the four weights along x and y begin at
``scratch[weights_x]`` and ``scratch[weights_y]``, the four results at ``scratch[result]``.
"""

interpolate_linearly = _define(
    types.void, (ARRAY, types.intp, types.intp, types.intp, ARRAY, types.intp, types.intp, types.intp), _emit_interpolate_linearly
)
"""interpolate_linearly(image, pixel, row, plane, scratch, weights, result, single_result): bilinear, of one pixel, unchecked.

`image` holds four interleaved channels and, from ``image[plane]`` on, a fifth one; its rows are `row` pixels apart, and the window's
first pixel is number `pixel`. The weights of the window's four pixels begin at ``scratch[weights]``, the results of the four channels
at ``scratch[result]``; that of the fifth is ``scratch[single_result]``.
"""

store = _define(types.void, (ARRAY, types.intp, VECTOR), _emit_store)
"""store(array, index, vector): write sixteen values from ``array[index]`` on, unchecked."""

splat = _define(VECTOR, (types.float32,), _spread)
"""splat(value): the value in every lane."""

keep_first = _define(VECTOR, (VECTOR, types.intp), _emit_keep_first)
"""keep_first(vector, count): the lanes numbered below count; the others become 0."""

store_pairs = _define(types.void, (ARRAY, types.intp, VECTOR, VECTOR), _emit_store_interleaved)
"""store_pairs(array, index, a, b): write a[0], b[0], a[1], b[1] and so on, unchecked."""

replace_lane_0 = _define(VECTOR, (VECTOR, VECTOR), lambda builder, a, b: builder.select(_LANE_0, b, a))
"""replace_lane_0(a, b): a, with lane 0 from b."""

where_less = _define(VECTOR, (VECTOR, VECTOR, VECTOR, VECTOR), _emit_where("<"))
"""where_less(a, b, yes, no): per lane, yes if a < b else no."""

smaller = _define(VECTOR, (VECTOR, VECTOR), lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), a, b))
"""smaller(a, b): a if a < b else b."""

larger = _define(VECTOR, (VECTOR, VECTOR), lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))
"""larger(a, b): a if a > b else b."""

any_differ = _define(types.boolean, (VECTOR, VECTOR), _emit_any_differ)
"""any_differ(a, b): whether a != b, or either is NaN, in any lane."""

absolute = _define(VECTOR, (VECTOR,), lambda builder, a: _call(builder, f"llvm.fabs.v{LANES}f32", _FLOATS, a))
"""absolute(a): the magnitude."""

floor = _define(VECTOR, (VECTOR,), lambda builder, a: _call(builder, f"llvm.floor.v{LANES}f32", _FLOATS, a))
"""floor(a): rounded down."""

nearest = _define(VECTOR, (VECTOR,), lambda builder, a: _call(builder, f"llvm.nearbyint.v{LANES}f32", _FLOATS, a))
"""nearest(a): rounded to the nearest whole number, halves to even."""

multiply_add = _define(VECTOR, (VECTOR, VECTOR, VECTOR), _emit_multiply_add)
"""multiply_add(a, b, c): a * b + c, rounded once if the machine is `FUSED`."""

multiply_subtract = _define(VECTOR, (VECTOR, VECTOR, VECTOR), lambda builder, a, b, c: _emit_multiply_add(builder, a, b, builder.fneg(c)))
"""multiply_subtract(a, b, c): a * b - c, rounded likewise."""

subtract_product = _define(VECTOR, (VECTOR, VECTOR, VECTOR), lambda builder, a, b, c: _emit_multiply_add(builder, builder.fneg(a), b, c))
"""subtract_product(a, b, c): c - a * b, rounded likewise."""

hypot_in_float64 = _define(VECTOR, (VECTOR, VECTOR), _emit_hypot)
"""hypot_in_float64(a, b): the root of the float64 sum of squares, rounded to float32, like hypotf of the C library."""

difference_of_products = _define(VECTOR, (VECTOR, VECTOR, VECTOR, VECTOR), _emit_difference_of_products)
"""difference_of_products(a, b, c, d): a * b - c * d in float64, rounded to float32."""

reciprocal = _define(VECTOR, (VECTOR,), lambda builder, a: builder.fdiv(_constant(1.0), a, flags=("fast",)))
"""reciprocal(a): 1 / a to at least 22 bits."""

rough_reciprocal = _define(VECTOR, (VECTOR,), _emit_rough("rcp", lambda builder, a: a))
"""rough_reciprocal(a): 1 / a to at least 14 bits."""

rough_reciprocal_root = _define(VECTOR, (VECTOR,), _emit_rough("rsqrt", lambda builder, a: _emit_root(builder, a, ("fast",))))
"""rough_reciprocal_root(a): 1 / sqrt(a) to at least 14 bits."""

total = _define(
    types.float32,
    (VECTOR,),
    lambda builder, a: _call(builder, f"llvm.vector.reduce.fadd.v{LANES}f32", _FLOAT, ir.Constant(_FLOAT, 0.0), a, fastmath=("reassoc",)),
)
"""total(a): the sum of the lanes, in any order."""
