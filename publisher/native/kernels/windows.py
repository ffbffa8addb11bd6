"""Losses of sixteen neighbouring scale candidates of one block at a time, one candidate per lane.

Every lane walks through the block's sixteen weights in their order, so a lane's sum is the sum the reference takes.
`exact_window` does what the reference does, division by division. `near_window` multiplies by a reciprocal and lets the
processor contract; its losses are near enough to bound the exact ones (see `search`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir

from publisher.native.kernels.registers import called
from publisher.native.kernels.vectors import Emitter, all_lanes, as_float, magnitudes_at, vector, vector_code

BLOCK = WINDOW = 16
_I16, _I32, _I64 = (ir.IntType(width) for width in (16, 32, 64))
_F32 = ir.FloatType()
_EXPONENT, _ONE, _MAGIC = 0x7F800000, 127 << 23, 22 << 23


@vector_code
def float_magnitudes(_typing: Any, weights: Any, _index: Any, out: Any) -> Any:
    """Magnitudes of the sixteen weights of run `_index`, as float32, to the begin of `out`."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        emit = Emitter(context, builder, signature, values, "weights index out")
        place = builder.mul(emit.arguments["index"], _I64(BLOCK))
        _, magnitudes = magnitudes_at(emit, place, weights.dtype.bitwidth)
        emit.store(as_float(emit, magnitudes, weights.dtype), "out", _I64(0))
        return context.get_dummy_value()

    return numba.void(weights, numba.int64, out), generate


def to_element(builder: Any, scaled: Any, *, clipped: bool = True) -> Any:
    """E2M1 magnitudes of float32, ties to even: the adder rounds (see `portable`).

    Above 6 they saturate; where they need not be `clipped`, because none reaches 7, that is left out.
    """
    six, integers = all_lanes(_F32, 6.0), vector(_I32)
    clamped = builder.select(builder.fcmp_ordered("<", scaled, six), scaled, six) if clipped else scaled
    exponent = builder.and_(builder.bitcast(clamped, integers), all_lanes(_I32, _EXPONENT))
    small = builder.icmp_signed("<", exponent, all_lanes(_I32, _ONE))
    exponent = builder.select(small, all_lanes(_I32, _ONE), exponent)
    magic = builder.bitcast(builder.add(exponent, all_lanes(_I32, _MAGIC)), vector(_F32))
    return builder.fsub(builder.fadd(clamped, magic), magic)


def _generator(body: Callable[[Emitter, Any, Any], Any], names: str) -> Callable[..., Any]:
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        emit = Emitter(context, builder, signature, values, names)
        total = all_lanes(_F32, 0.0)
        for place in range(BLOCK):
            weight = emit.splat(emit.scalar("magnitudes", _I64(place)))
            total = body(emit, weight, total)
        return _finish(emit, total)

    return generate


def _finish(emit: Emitter, total: Any) -> Any:
    """Store the lanes and the limit; return which lanes are within the limit."""
    builder = emit.builder
    if "margin" not in emit.arguments:
        emit.store(total, "losses", _I64(0))
        return emit.context.get_dummy_value()
    first = emit.arguments["first"]
    total = builder.fmul(total, emit.load("squares", first, vector(_F32), 4))
    total = builder.fadd(total, emit.load("penalties", first, vector(_F32), 4))
    emit.store(total, "near", first)
    bits = builder.bitcast(total, vector(_I32))  # of numbers that are not negative, so in their order
    smallest = builder.bitcast(called(builder, f"llvm.vector.reduce.umin.v{WINDOW}i32", _I32, [bits]), _F32)
    root = builder.fadd(called(builder, "llvm.sqrt.f32", _F32, [smallest]), emit.arguments["margin"])
    limit = builder.fmul(root, root)
    builder.store(limit, emit.address("near", _I64(0)))
    within = builder.fcmp_ordered("<=", total, emit.splat(limit))
    return builder.zext(builder.bitcast(within, _I16), _I64)


@vector_code
def exact_window(_typing: Any, magnitudes: Any, steps: Any, _first: Any, losses: Any) -> Any:
    """The reference's losses under `steps[_first : _first + 16]`, to the begin of `losses`."""

    def body(emit: Emitter, weight: Any, total: Any) -> Any:
        builder = emit.builder
        step = emit.load("steps", emit.arguments["first"], vector(_F32), 4)
        rounded = builder.fmul(to_element(builder, builder.fdiv(weight, step)), step)
        error = builder.fsub(weight, rounded)
        return builder.fadd(total, builder.fmul(error, error))

    signature = numba.void(magnitudes, steps, numba.int64, losses)
    return signature, _generator(body, "magnitudes steps first losses")


@vector_code
def near_window(
    _typing: Any,
    magnitudes: Any,
    reciprocals: Any,
    squares: Any,
    penalties: Any,
    _first: Any,
    _margin: Any,
    near: Any,
) -> Any:
    """Nearly those losses, plus penalties, and as bits which of them are within a margin of the smallest.

    They are stored to `near[_first : _first + 16]`, and to `near[0]` the limit, the square of the smallest's root plus
    `_margin`; `_first` is not 0.
    """

    def body(emit: Emitter, weight: Any, total: Any) -> Any:
        builder = emit.builder
        scaled = builder.fmul(weight, emit.load("reciprocals", emit.arguments["first"], vector(_F32), 4))
        error = builder.fsub(to_element(builder, scaled), scaled)
        name = f"llvm.fmuladd.v{WINDOW}f32"
        return called(builder, name, vector(_F32), [error, error, total])

    names = "magnitudes reciprocals squares penalties first margin near"
    signature = numba.int64(magnitudes, reciprocals, squares, penalties, numba.int64, numba.float32, near)
    return signature, _generator(body, names)
