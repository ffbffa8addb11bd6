"""The winner of the scale candidates for sixteen NVFP4 blocks at a time, one block per lane, where bounds settle it.

Weights and candidates are turned so that a lane holds one block: ten neighbouring candidates are weighed in turn, no
lane waits for another, and nothing is added across lanes. What the bounds of `search` do not settle is reported, and
left to it. Elements are looked up where the processor can (`registers`), and rounded by its adder elsewhere.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir

from publisher.native.kernels.registers import called, can_look_up, element_in_quarters
from publisher.native.kernels.vectors import LANES, Emitter, all_lanes, as_float, magnitudes_at, vector, vector_code
from publisher.native.kernels.windows import to_element

BATCH = LANES
"""Blocks of a batch."""
CANDIDATES = 10
"""Neighbouring candidates that are weighed."""
LOWEST = 8
"""The first of them at least: from twice this code on, eight codes more are twice the step."""
_BEFORE = 2  # candidates below that of mode max
_CLIPPED = 6.75  # steps: up to here the nearest number of an unbounded grid is 6 at most

_I8, _I16, _I32, _I64 = (ir.IntType(width) for width in (8, 16, 32, 64))
_F32 = ir.FloatType()


@vector_code
def settle(
    _typing: Any, weights: Any, _batch: Any, peaks: Any, steps: Any, codes: Any, _lowest: Any, _margin: Any
) -> Any:
    """Overwrite the codes of one batch with their winners; returns, as bits, which blocks are not settled.

    `steps` are by code, infinite where there is no candidate; `codes` are those of mode max; no peak below `_lowest` is
    settled; a peak times `_margin` is the margin.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        emit = Emitter(context, builder, signature, values, "weights batch peaks steps codes lowest margin")
        begin = builder.mul(emit.arguments["batch"], _I64(BATCH))
        peak = emit.load("peaks", begin, vector(_F32), 4)
        first = _first(emit, begin)
        columns = _turned(builder, [_magnitudes(emit, weights.dtype, begin, row) for row in range(BATCH)])
        table = _turned(builder, [_steps(emit, first, row) for row in range(BATCH)])
        looked_up = can_look_up(context)
        best, second, step, place = _weighed(builder, columns, table[1 : CANDIDATES + 1], looked_up)
        margin = builder.fmul(peak, emit.splat(emit.arguments["margin"]))
        root = builder.fadd(_sqrt(builder, best), margin)
        limit = builder.fmul(root, root)
        settled = _settled(emit, peak, columns, table, second, limit)
        doubled = _loss(builder, columns, builder.fadd(step, step), looked_up)
        settled = builder.and_(settled, builder.fcmp_unordered(">", doubled, limit))
        _store(emit, begin, settled, builder.add(first, place))
        return builder.xor(builder.zext(builder.bitcast(settled, _I16), _I64), _I64((1 << BATCH) - 1))

    number = numba.float32
    return numba.int64(weights, numba.int64, peaks, steps, codes, number, number), generate


def _first(emit: Emitter, begin: Any) -> Any:
    """The first candidate of every block: two below that of mode max."""
    builder = emit.builder
    wide = builder.zext(emit.load("codes", begin, vector(_I8), 1), vector(_I32))
    first = builder.sub(wide, all_lanes(_I32, _BEFORE))
    high = builder.icmp_signed(">", first, all_lanes(_I32, LOWEST))
    return builder.select(high, first, all_lanes(_I32, LOWEST))


def _magnitudes(emit: Emitter, dtype: Any, begin: Any, row: int) -> Any:
    place = emit.builder.mul(emit.builder.add(begin, _I64(row)), _I64(LANES))
    return as_float(emit, magnitudes_at(emit, place, dtype.bitwidth)[1], dtype)


def _steps(emit: Emitter, first: Any, row: int) -> Any:
    """The steps of one block from the one below its first candidate on."""
    code = emit.builder.zext(emit.builder.extract_element(first, _I32(row)), _I64)
    return emit.load("steps", emit.builder.sub(code, _I64(1)), vector(_F32), 4)


def _turned(builder: Any, rows: list[Any]) -> list[Any]:
    """Sixteen rows as sixteen columns: squares of 8, 4, 2 and 1 change places."""
    rows = list(rows)
    for distance in (8, 4, 2, 1):
        upper = [lane + LANES - distance if lane & distance else lane for lane in range(LANES)]
        lower = [lane + LANES if lane & distance else lane + distance for lane in range(LANES)]
        for row in (row for row in range(LANES) if not row & distance):
            a, b = rows[row], rows[row + distance]
            rows[row] = builder.shuffle_vector(a, b, ir.Constant(vector(_I32), upper))
            rows[row + distance] = builder.shuffle_vector(a, b, ir.Constant(vector(_I32), lower))
    return rows


def _weighed(builder: Any, columns: list[Any], steps: list[Any], looked_up: bool) -> tuple[Any, Any, Any, Any]:
    """The smallest loss, the second smallest, the smallest's step and its place."""
    infinite = all_lanes(_F32, float("inf"))
    best, second, chosen, place = infinite, infinite, infinite, all_lanes(_I32, 0)
    for number, step in enumerate(steps):
        loss = _loss(builder, columns, step, looked_up, clipped=number < _BEFORE)
        less = builder.fcmp_ordered("<", loss, best)
        other = builder.select(less, best, loss)
        second = builder.select(builder.fcmp_ordered("<", other, second), other, second)
        best = builder.select(less, loss, best)
        chosen = builder.select(less, step, chosen)
        place = builder.select(less, all_lanes(_I32, number), place)
    return best, second, chosen, place


def _loss(builder: Any, columns: list[Any], step: Any, looked_up: bool, *, clipped: bool = False) -> Any:
    """Nearly the losses under one step for each block; no number where it is infinite.

    Args:
        builder: of LLVM.
        columns: the blocks' weights.
        step: one for each block.
        looked_up: whether elements are looked up, and therefore counted in quarters of the step.
        clipped: whether weights may be larger than the grid.
    """
    unit = builder.fmul(step, all_lanes(_F32, 0.25)) if looked_up else step
    element = element_in_quarters if looked_up else to_element
    reciprocal = builder.fdiv(all_lanes(_F32, 1.0), unit)
    totals = [all_lanes(_F32, 0.0)] * 2
    for number, weight in enumerate(columns):
        scaled = builder.fmul(weight, reciprocal)
        error = builder.fsub(element(builder, scaled, clipped=clipped), scaled)
        totals[number % 2] = _multiply_add(builder, error, totals[number % 2])
    return builder.fmul(builder.fadd(*totals), builder.fmul(unit, unit))


def _settled(emit: Emitter, peak: Any, columns: list[Any], table: list[Any], second: Any, limit: Any) -> Any:
    """Whether one candidate alone is within the limit, and the bounds hold for those below and above."""
    builder = emit.builder
    conditions = [
        builder.fcmp_ordered(">", second, limit),
        builder.fcmp_ordered(">", _cut(builder, columns, table[0]), limit),
        builder.fcmp_ordered("<=", peak, builder.fmul(table[_BEFORE + 1], all_lanes(_F32, _CLIPPED))),
        builder.fcmp_ordered(">=", peak, emit.splat(emit.arguments["lowest"])),
    ]
    settled = conditions[0]
    for condition in conditions[1:]:
        settled = builder.and_(settled, condition)
    return settled


def _cut(builder: Any, columns: list[Any], step: Any) -> Any:
    """What is lost of the weights above the grid under one step, squared: less than is lost under any smaller one."""
    top = builder.fmul(step, all_lanes(_F32, 6.0))
    total = zero = all_lanes(_F32, 0.0)
    for weight in columns:
        over = builder.fsub(weight, top)
        total = _multiply_add(builder, builder.select(builder.fcmp_ordered(">", over, zero), over, zero), total)
    return total


def _store(emit: Emitter, begin: Any, settled: Any, found: Any) -> None:
    builder = emit.builder
    before = emit.load("codes", begin, vector(_I8), 1)
    emit.store(builder.select(settled, builder.trunc(found, vector(_I8)), before), "codes", begin)


def _multiply_add(builder: Any, number: Any, total: Any) -> Any:
    return called(builder, f"llvm.fmuladd.v{LANES}f32", vector(_F32), [number, number, total])


def _sqrt(builder: Any, values: Any) -> Any:
    return called(builder, f"llvm.sqrt.v{LANES}f32", vector(_F32), [values])
