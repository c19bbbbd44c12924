# mypy: disable-error-code="attr-defined, import-untyped, misc, no-untyped-call, unused-ignore"
"""Sixteen float32 values as one type that numba compiles: the few vector instructions of which the kernels of flow consist.

LLVM does not vectorise loops over ten arrays, because it cannot rule out that they overlap, and where it does, it chooses
narrower registers than the machine has. With explicit vectors, one source and one compiled version serve every image size, and
LLVM splits the vectors into those of the machine (AVX-512, AVX2, SSE, NEON).

The functions below exist only inside compiled code. A vector supports ``+ - * /``; every other operation is a function. All are
IEEE-exact and computed in the order in which they are written, except `reciprocal` and `rough_reciprocal_root`.
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

FLOAT = ir.FloatType()
INTEGER = ir.IntType(32)
INTP = ir.IntType(types.intp.bitwidth)
FLOATS = ir.VectorType(FLOAT, LANES)
_DOUBLES = ir.VectorType(ir.DoubleType(), LANES)


class _Float32x16(types.Type):
    """The numba type of a vector of sixteen float32."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


class _Float32x16Model(models.PrimitiveModel):
    """One LLVM vector value; it never leaves compiled code and so needs no boxing."""

    def __init__(self, manager: Any, vector_type: Any) -> None:
        super().__init__(manager, vector_type, FLOATS)


VECTOR = _Float32x16()
ARRAY = types.Array(types.float32, 1, "C")
register_model(_Float32x16)(_Float32x16Model)


def _machine_has(feature: str) -> bool:
    """Return whether this is an x86 processor with the feature, and numba compiles for it and not for one that the user named."""
    if os.environ.get("NUMBA_CPU_NAME") or os.environ.get("NUMBA_CPU_FEATURES"):
        return False
    return platform.machine().lower() in ("x86_64", "amd64") and bool(binding.get_host_cpu_features().get(feature, False))


AVX512 = _machine_has("avx512f")  # 32 registers of 16 lanes
_AVX = _machine_has("avx")
FUSED = _machine_has("fma") or platform.machine().lower() in ("aarch64", "arm64")


def constant(value: float) -> Any:
    """Return the constant vector of one value."""
    return ir.Constant(FLOATS, [value] * LANES)


def _call(builder: Any, name: str, result: Any, *arguments: Any, fastmath: tuple[str, ...] = ()) -> Any:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments, fastmath=fastmath)


def _operator(function: Any, instruction: str) -> None:
    """Give vectors one of Python's arithmetic operators."""
    infer_global(function)(type(f"Vector_{instruction}", (ConcreteTemplate,), {"cases": [signature(VECTOR, VECTOR, VECTOR)]}))
    lower_builtin(function, VECTOR, VECTOR)(lambda context, builder, sig, args: getattr(builder, instruction)(*args))


for _function, _instruction in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul"), (operator.truediv, "fdiv")):
    _operator(_function, _instruction)


def define(result: Any, operands: tuple[Any, ...], emit: Callable[..., Any]) -> Any:
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
    return builder.bitcast(builder.gep(data, [index]), FLOATS.as_pointer())


def emit_load(builder: Any, data: Any, index: Any) -> Any:
    """Load sixteen values."""
    return builder.load(_address(builder, data, index), align=4)


def emit_store(builder: Any, data: Any, index: Any, value: Any) -> Any:
    """Store sixteen values."""
    builder.store(value, _address(builder, data, index), align=4)
    return ir.Constant(ir.IntType(8).as_pointer(), None)


def shuffle(builder: Any, a: Any, b: Any, lanes: list[int]) -> Any:
    """Choose lanes of two vectors, which are numbered one after the other."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(INTEGER, len(lanes)), lanes))


def spread(builder: Any, value: Any) -> Any:
    """Repeat a value in every lane."""
    nothing = ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined)
    return shuffle(builder, builder.insert_element(nothing, value, ir.Constant(INTEGER, 0)), nothing, [0] * LANES)


def joined(builder: Any, parts: list[Any]) -> Any:
    """Put vectors end to end; their number is a power of two."""
    while len(parts) > 1:
        lanes = list(range(2 * parts[0].type.count))
        parts = [shuffle(builder, a, b, lanes) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _emit_difference_of_products(builder: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    a, b, c, d = (builder.fpext(value, _DOUBLES) for value in (a, b, c, d))
    return builder.fptrunc(builder.fsub(builder.fmul(a, b), builder.fmul(c, d)), FLOATS)


def _emit_where(comparison: str) -> Callable[..., Any]:
    return lambda builder, a, b, yes, no: builder.select(builder.fcmp_ordered(comparison, a, b), yes, no)


def _emit_any_differ(builder: Any, a: Any, b: Any) -> Any:
    lanes = builder.bitcast(builder.fcmp_unordered("!=", a, b), ir.IntType(LANES))
    return builder.icmp_unsigned("!=", lanes, ir.Constant(ir.IntType(LANES), 0))


def emit_multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Compute a * b + c, in one step if the machine has one for it."""
    if not FUSED:  # LLVM would call a function of the C library for every lane
        return builder.fadd(builder.fmul(a, b), c)
    return _call(builder, f"llvm.fma.v{a.type.count}f32", a.type, a, b, c)


def _emit_root(builder: Any, a: Any, fastmath: tuple[str, ...] = ()) -> Any:
    return _call(builder, f"llvm.sqrt.v{LANES}f{32 if a.type == FLOATS else 64}", a.type, a, fastmath=fastmath)


def _emit_hypot(builder: Any, a: Any, b: Any) -> Any:
    a, b = builder.fpext(a, _DOUBLES), builder.fpext(b, _DOUBLES)
    squares = builder.fadd(builder.fmul(a, a), builder.fmul(b, b))
    return builder.fptrunc(_emit_root(builder, squares), FLOATS)


def _emit_rough_root(builder: Any, a: Any) -> Any:
    if AVX512:
        return _call(builder, "llvm.x86.avx512.rsqrt14.ps.512", FLOATS, a, a, ir.Constant(ir.IntType(LANES), -1))
    if _AVX:
        halves = [shuffle(builder, a, a, list(range(start, start + 8))) for start in (0, 8)]
        return joined(builder, [_call(builder, "llvm.x86.avx.rsqrt.ps.256", half.type, half) for half in halves])
    return builder.fdiv(constant(1.0), _emit_root(builder, a, ("fast",)), flags=("fast",))


load = define(VECTOR, (ARRAY, types.intp), emit_load)
"""load(array, index): the sixteen values from ``array[index]`` on, unchecked."""

store = define(types.void, (ARRAY, types.intp, VECTOR), emit_store)
"""store(array, index, vector): write sixteen values from ``array[index]`` on, unchecked."""

splat = define(VECTOR, (types.float32,), spread)
"""splat(value): the value in every lane."""

where_less = define(VECTOR, (VECTOR, VECTOR, VECTOR, VECTOR), _emit_where("<"))
"""where_less(a, b, yes, no): per lane, yes if a < b else no."""

smaller = define(VECTOR, (VECTOR, VECTOR), lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), a, b))
"""smaller(a, b): a if a < b else b."""

larger = define(VECTOR, (VECTOR, VECTOR), lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))
"""larger(a, b): a if a > b else b."""

any_differ = define(types.boolean, (VECTOR, VECTOR), _emit_any_differ)
"""any_differ(a, b): whether a != b, or either is NaN, in any lane."""

absolute = define(VECTOR, (VECTOR,), lambda builder, a: _call(builder, f"llvm.fabs.v{LANES}f32", FLOATS, a))
"""absolute(a): the magnitude."""

with_sign = define(VECTOR, (VECTOR, VECTOR), lambda builder, a, b: _call(builder, f"llvm.copysign.v{LANES}f32", FLOATS, a, b))
"""with_sign(a, b): the magnitude of a with the sign of b."""

floor = define(VECTOR, (VECTOR,), lambda builder, a: _call(builder, f"llvm.floor.v{LANES}f32", FLOATS, a))
"""floor(a): rounded down."""

nearest = define(VECTOR, (VECTOR,), lambda builder, a: _call(builder, f"llvm.nearbyint.v{LANES}f32", FLOATS, a))
"""nearest(a): rounded to the nearest whole number, halves to even."""

multiply_add = define(VECTOR, (VECTOR, VECTOR, VECTOR), emit_multiply_add)
"""multiply_add(a, b, c): a * b + c, rounded once if the machine is `FUSED`."""

multiply_subtract = define(VECTOR, (VECTOR, VECTOR, VECTOR), lambda builder, a, b, c: emit_multiply_add(builder, a, b, builder.fneg(c)))
"""multiply_subtract(a, b, c): a * b - c, rounded likewise."""

subtract_product = define(VECTOR, (VECTOR, VECTOR, VECTOR), lambda builder, a, b, c: emit_multiply_add(builder, builder.fneg(a), b, c))
"""subtract_product(a, b, c): c - a * b, rounded likewise."""

hypot_in_float64 = define(VECTOR, (VECTOR, VECTOR), _emit_hypot)
"""hypot_in_float64(a, b): the root of the float64 sum of squares, rounded to float32, like hypotf of the C library."""

difference_of_products = define(VECTOR, (VECTOR, VECTOR, VECTOR, VECTOR), _emit_difference_of_products)
"""difference_of_products(a, b, c, d): a * b - c * d in float64, rounded to float32."""

reciprocal = define(VECTOR, (VECTOR,), lambda builder, a: builder.fdiv(constant(1.0), a, flags=("fast",)))
"""reciprocal(a): 1 / a to at least 22 bits."""

rough_reciprocal_root = define(VECTOR, (VECTOR,), _emit_rough_root)
"""rough_reciprocal_root(a): 1 / sqrt(a) to at least 11 bits."""

total = define(
    types.float32,
    (VECTOR,),
    lambda builder, a: _call(builder, f"llvm.vector.reduce.fadd.v{LANES}f32", FLOAT, ir.Constant(FLOAT, 0.0), a, fastmath=("reassoc",)),
)
"""total(a): the sum of the lanes, in any order."""
