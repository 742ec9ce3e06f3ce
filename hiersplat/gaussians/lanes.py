"""Sixteen float32 lanes as a value inside numba functions.

Numba leaves it to LLVM to find vectors in loops over scalars, and whether it succeeds depends on
proofs about overlapping arrays. Here a kernel says what it means: a value of this type *is* a
vector of LLVM, which becomes one AVX-512 register, two of AVX2 or four of SSE or NEON.

Lanes are added, subtracted, multiplied and divided with one another and with scalars; comparing
them gives a mask, masks are combined with ``&``. Nothing is reordered, so results do not depend
on the machine beyond fused multiply-adds.
"""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import lower_builtin
from numba.core.typing import signature, templates
from numba.extending import intrinsic as numba_intrinsic
from numba.extending import models, register_model

NUM_LANES = 16

_FLOATS = ir.VectorType(ir.FloatType(), NUM_LANES)
_INTS = ir.VectorType(ir.IntType(32), NUM_LANES)
_BITS = ir.VectorType(ir.IntType(1), NUM_LANES)


def intrinsic(emit: Callable) -> Callable[..., Any]:
    """Declare an intrinsic; numba passes the typing context by itself, checkers cannot know."""
    return numba_intrinsic(emit)  # pyright: ignore[reportReturnType]


def infer_global(function: Callable) -> Callable[[type], type]:
    """Declare how numba types an operator."""
    return templates.infer_global(function)  # pyright: ignore[reportReturnType]


class LanesType(types.Type):
    """Type of sixteen float32 values."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


class MaskType(types.Type):
    """Type of sixteen truth values."""

    def __init__(self) -> None:
        super().__init__(name="Mask")


LANES, MASK = LanesType(), MaskType()
_SCALARS = (types.float32, types.float64)


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: types.Type) -> None:
        super().__init__(manager, numba_type, _FLOATS)


@register_model(MaskType)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: types.Type) -> None:
        super().__init__(manager, numba_type, _BITS)


def _spread(builder: Any, numba_type: types.Type, value: Any) -> Any:
    """Return lanes as they are, and a scalar in all lanes."""
    if isinstance(numba_type, LanesType):
        return value
    if numba_type == types.float64:
        value = builder.fptrunc(value, ir.FloatType())
    first = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), value, _index(0))
    return builder.shuffle_vector(
        first, ir.Constant(_FLOATS, ir.Undefined), ir.Constant(_INTS, [0] * NUM_LANES)
    )


def _index(value: int) -> Any:
    return ir.Constant(ir.IntType(32), value)


def _define(function: Callable, result: types.Type, emit: Callable) -> None:
    """Teach numba an operator between lanes, and between lanes and scalars."""
    pairs = [(LANES, LANES)]
    for scalar in _SCALARS:
        pairs += [(LANES, scalar), (scalar, LANES)]

    class Template(templates.ConcreteTemplate):
        cases = [signature(result, *pair) for pair in pairs]

    infer_global(function)(Template)
    for pair in pairs:

        def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            left, right = (_spread(builder, t, v) for t, v in zip(sig.args, args, strict=True))
            return emit(builder, left, right)

        lower_builtin(function, *pair)(lower)


_FUSE = ("contract", "nsz")
_define(operator.add, LANES, lambda b, x, y: b.fadd(x, y, flags=_FUSE))
_define(operator.sub, LANES, lambda b, x, y: b.fsub(x, y, flags=_FUSE))
_define(operator.mul, LANES, lambda b, x, y: b.fmul(x, y, flags=_FUSE))
_define(operator.truediv, LANES, lambda b, x, y: b.fdiv(x, y))
_define(operator.lt, MASK, lambda b, x, y: b.fcmp_ordered("<", x, y))
_define(operator.le, MASK, lambda b, x, y: b.fcmp_ordered("<=", x, y))
_define(operator.gt, MASK, lambda b, x, y: b.fcmp_ordered(">", x, y))
_define(operator.ge, MASK, lambda b, x, y: b.fcmp_ordered(">=", x, y))


@infer_global(operator.and_)
class _AndTemplate(templates.ConcreteTemplate):
    cases = [signature(MASK, MASK, MASK)]


@lower_builtin(operator.and_, MASK, MASK)
def _lower_and(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.and_(*args)


@intrinsic
def spread(typing, value):
    """Return a scalar in all lanes."""

    def emit(context, builder, sig, args):
        return _spread(builder, sig.args[0], args[0])

    return LANES(value), emit


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _FLOATS.as_pointer())


@intrinsic
def load(typing, array, index):
    """Read lanes from a contiguous float32 array, from ``index`` on; bounds are not checked."""

    def emit(context, builder, sig, args):
        return builder.load(_pointer(context, builder, sig.args[0], *args), align=4)

    return LANES(array, types.intp), emit


@intrinsic
def store(typing, array, index, value):
    """Write lanes to a contiguous float32 array, from ``index`` on; bounds are not checked."""

    def emit(context, builder, sig, args):
        builder.store(args[2], _pointer(context, builder, sig.args[0], *args[:2]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, LANES), emit


def _block_indices(builder: Any, at: Any, row_step: Any, step: Any, rows: Any, columns: Any) -> Any:
    """Return sixteen places of a block of 4 x 4, with rows and columns held inside an image."""
    word = ir.IntType(64)

    def held(limit: Any) -> list[Any]:
        last = builder.sub(limit, ir.Constant(word, 1))
        numbers = [ir.Constant(word, i) for i in range(4)]
        return [
            builder.select(builder.icmp_signed("<", number, last), number, last)
            for number in numbers
        ]

    across = [builder.mul(column, step) for column in held(columns)]
    starts = [builder.add(at, builder.mul(row, row_step)) for row in held(rows)]
    return [builder.add(start, offset) for start in starts for offset in across]


@intrinsic
def load_block(typing, array, at, row_step, step, rows, columns):
    """Read a block of 4 x 4 from a flat array, rows ``row_step`` and columns ``step`` apart.

    Where the image ends after ``rows`` or ``columns``, its last row or column is repeated.
    """

    def emit(context, builder, sig, args):
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        lanes = ir.Constant(_FLOATS, ir.Undefined)
        for lane, index in enumerate(_block_indices(builder, *args[1:])):
            value = builder.load(builder.gep(data, [index]))
            lanes = builder.insert_element(lanes, value, _index(lane))
        return lanes

    return LANES(array, *(types.int64,) * 5), emit


@intrinsic
def store_block(typing, array, at, row_step, step, rows, columns, value):
    """Write a block of 4 x 4 to a flat array; lanes beyond the image leave nothing."""

    def emit(context, builder, sig, args):
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        places = list(enumerate(_block_indices(builder, *args[1:6])))
        # Lanes beyond the image fall on its edge; the edge itself is written last.
        for lane, index in reversed(places):
            single = builder.extract_element(args[6], _index(lane))
            builder.store(single, builder.gep(data, [index]))
        return context.get_dummy_value()

    return types.void(array, *(types.int64,) * 5, LANES), emit


@intrinsic
def fused(typing, a, b, c):
    """Return ``a * b + c``; each may be a scalar."""

    def emit(context, builder, sig, args):
        lanes = [_spread(builder, t, v) for t, v in zip(sig.args, args, strict=True)]
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_FLOATS, [_FLOATS] * 3), "llvm.fmuladd.v16f32"
        )
        return builder.call(function, lanes)

    return LANES(a, b, c), emit


@intrinsic
def difference_of_products(typing, a, b, c):
    """Return ``a * b - c * c`` without cancellation (Kahan): the rounding error is added back."""

    def emit(context, builder, sig, args):
        fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_FLOATS, [_FLOATS] * 3), "llvm.fma.v16f32"
        )
        x, y, z = args
        minus_square = builder.fneg(builder.fmul(z, z))
        error = builder.call(fma, [z, z, minus_square])
        return builder.fsub(builder.call(fma, [x, y, minus_square]), error)

    return LANES(LANES, LANES, LANES), emit


@intrinsic
def choose(typing, mask, a, b):
    """Return ``a`` where the mask is set and ``b`` elsewhere; each may be a scalar."""

    def emit(context, builder, sig, args):
        left, right = (_spread(builder, t, v) for t, v in zip(sig.args[1:], args[1:], strict=True))
        return builder.select(args[0], left, right)

    return LANES(mask, a, b), emit


@intrinsic
def any_lane(typing, mask):
    """Tell whether a mask is set anywhere."""

    def emit(context, builder, sig, args):
        word = builder.bitcast(args[0], ir.IntType(NUM_LANES))
        return builder.icmp_unsigned("!=", word, ir.Constant(ir.IntType(NUM_LANES), 0))

    return types.boolean(mask), emit


def _unary(name: str) -> Callable:
    """Return an intrinsic that applies one of LLVM's functions to every lane."""

    @intrinsic
    def function(typing, value):
        def emit(context, builder, sig, args):
            callee = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(_FLOATS, [_FLOATS]), f"llvm.{name}.v16f32"
            )
            return builder.call(callee, args)

        return LANES(value), emit

    return function


magnitude = _unary("fabs")
round_down = _unary("floor")
round_up = _unary("ceil")
square_root = _unary("sqrt")


@intrinsic
def larger(typing, a, b):
    """Return the larger of two lanes; ``b`` where ``a`` is not a number."""

    def emit(context, builder, sig, args):
        left, right = (_spread(builder, t, v) for t, v in zip(sig.args, args, strict=True))
        return builder.select(builder.fcmp_ordered(">", left, right), left, right)

    return LANES(a, b), emit


@intrinsic
def smaller(typing, a, b):
    """Return the smaller of two lanes; ``b`` where ``a`` is not a number."""

    def emit(context, builder, sig, args):
        left, right = (_spread(builder, t, v) for t, v in zip(sig.args, args, strict=True))
        return builder.select(builder.fcmp_ordered("<", left, right), left, right)

    return LANES(a, b), emit


@intrinsic
def total(typing, value):
    """Sum the lanes, always in the same order: halves upon halves."""

    def emit(context, builder, sig, args):
        lanes = args[0]
        width = NUM_LANES
        while width > 1:
            width //= 2
            moved = [(i + width) if i < width else i for i in range(NUM_LANES)]
            other = builder.shuffle_vector(lanes, lanes, ir.Constant(_INTS, moved))
            lanes = builder.fadd(lanes, other)
        return builder.extract_element(lanes, _index(0))

    return types.float32(value), emit


@intrinsic
def totals(typing, a, b, c, d, e, f, g, h, i, j, k, m, n, o, p, q):
    """Sum sixteen lanes at once: lane 0 of the result is the sum of ``a``, lane 15 that of ``q``.

    Sixteen sums one by one take four times as many additions.
    """

    def emit(context, builder, sig, args):
        values, group = list(args), NUM_LANES
        while group > 1:
            half = group // 2
            starts = range(0, 2 * NUM_LANES, group)
            low = [start + step for start in starts for step in range(half)]
            high = [index + half for index in low]
            values = [
                builder.fadd(
                    builder.shuffle_vector(x, y, ir.Constant(_INTS, low)),
                    builder.shuffle_vector(x, y, ir.Constant(_INTS, high)),
                )
                for x, y in zip(values[::2], values[1::2], strict=True)
            ]
            group = half
        return values[0]

    return LANES(a, b, c, d, e, f, g, h, i, j, k, m, n, o, p, q), emit


@intrinsic
def lowest_bit(typing, word):
    """Return the place of the lowest set bit of a word that is not 0."""

    def emit(context, builder, sig, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), emit


@intrinsic
def count_bits(typing, word):
    """Count the set bits of a word."""

    def emit(context, builder, sig, args):
        return builder.ctpop(args[0])

    return types.int64(types.uint64), emit


def _constant_lanes(values: np.ndarray) -> Callable:
    @intrinsic
    def constant(typing):
        def emit(context, builder, sig, args):
            return ir.Constant(_FLOATS, [ir.Constant(ir.FloatType(), float(v)) for v in values])

        return LANES(), emit

    return constant


# The lanes of a block of 4 x 4 pixels, row by row.
lane_column = _constant_lanes(np.arange(NUM_LANES) % 4)
lane_row = _constant_lanes(np.arange(NUM_LANES) // 4)
lane_number = _constant_lanes(np.arange(NUM_LANES))

# Minimax polynomial of 2^f on [-0.5, 0.5]; relative error 7.5e-8 before rounding.
_EXP2 = (
    0.0013276460813358426,
    0.009675541892647743,
    0.05550713464617729,
    0.24022120237350464,
    0.6931469440460205,
    1.0000001192092896,
)


@intrinsic
def exp2(typing, value):
    """Return 2 to the power of each lane; powers below -120 count as -120, none may exceed 120."""

    def emit(context, builder, sig, args):
        def constant(number: float) -> Any:
            return ir.Constant(_FLOATS, [ir.Constant(ir.FloatType(), number)] * NUM_LANES)

        def unary(name: str, operand: Any) -> Any:
            function = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(_FLOATS, [_FLOATS]), f"llvm.{name}.v16f32"
            )
            return builder.call(function, [operand])

        fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_FLOATS, [_FLOATS] * 3), "llvm.fmuladd.v16f32"
        )
        lowest = constant(-120.0)
        # Ordered comparison: not-a-number becomes the lowest power instead of a wild exponent.
        power = builder.select(builder.fcmp_ordered(">", args[0], lowest), args[0], lowest)
        whole = unary("rint", power)
        fraction = builder.fsub(power, whole)
        result = constant(float(np.float32(_EXP2[0])))
        for coefficient in _EXP2[1:]:
            result = builder.call(fma, [result, fraction, constant(float(np.float32(coefficient)))])
        exponent = builder.shl(builder.fptosi(whole, _INTS), ir.Constant(_INTS, [23] * NUM_LANES))
        bits = builder.add(builder.bitcast(result, _INTS), exponent)
        return builder.bitcast(bits, _FLOATS)

    return LANES(value), emit


@intrinsic
def take_ticket(typing, counter):
    """Add one to ``counter[0]`` (int64) atomically and return what it was before."""

    def emit(context, builder, sig, args):
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", data, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(counter), emit
