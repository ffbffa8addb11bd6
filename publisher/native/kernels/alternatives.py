"""Of two steps for every NVFP4 block the one with the smaller loss, in machine code.

The sixteen errors of a block are taken at once, their squares added one by one in their order, as the reference adds
them; the two sums, and those of neighbouring blocks, go on side by side.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir

from publisher.formats.blocks import Float32Array, UInt8Array
from publisher.native.kernels.machine import machine_code
from publisher.native.kernels.vectors import LANES, Emitter, as_float, magnitudes_at, vector_code
from publisher.native.kernels.windows import to_element

_I32, _I64 = ir.IntType(32), ir.IntType(64)


@vector_code
def _second_is_better(_typing: Any, weights: Any, _block: Any, _first: Any, _second: Any) -> Any:
    """Whether block `_block` loses less under the step `_second` than under `_first`."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        emit = Emitter(context, builder, signature, values, "weights block first second")
        place = builder.mul(emit.arguments["block"], _I64(LANES))
        _, bits = magnitudes_at(emit, place, weights.dtype.bitwidth)
        magnitudes = as_float(emit, bits, weights.dtype)
        first, second = (_loss(emit, magnitudes, emit.arguments[name]) for name in ("first", "second"))
        return builder.fcmp_ordered("<", second, first)

    return numba.boolean(weights, numba.int64, numba.float32, numba.float32), generate


def _loss(emit: Emitter, magnitudes: Any, step: Any) -> Any:
    """Sum of squared errors, float32, in the order of the weights."""
    builder, steps = emit.builder, emit.splat(step)
    error = builder.fsub(magnitudes, builder.fmul(to_element(builder, builder.fdiv(magnitudes, steps)), steps))
    squares = builder.fmul(error, error)
    total = builder.extract_element(squares, _I32(0))
    for lane in range(1, LANES):
        total = builder.fadd(total, builder.extract_element(squares, _I32(lane)))
    return total


@machine_code
def _better(weights: Any, rows: Any, codes: Any, steps: Any, out: Any) -> None:
    for block in range(out.shape[0]):
        row = np.int64(rows[block])
        better = _second_is_better(weights, block, steps[row, 0], steps[row, 1])
        out[block] = codes[row, 1] if better else codes[row, 0]


def better_codes(weights: Any, rows: Any, codes: UInt8Array, steps: Float32Array, out: UInt8Array) -> None:
    """Choose for every block; of equal losses the first.

    Args:
        weights: flat contiguous bits of finite weights (see `compiled`), sixteen a block.
        rows: unsigned (blocks,), which row of the tables is a block's.
        codes: uint8 (n, 2).
        steps: float32 (n, 2), what one unit of an element is worth.
        out: uint8 (blocks,), the chosen codes.
    """
    _better(weights, rows, np.ascontiguousarray(codes), np.ascontiguousarray(steps), out)
