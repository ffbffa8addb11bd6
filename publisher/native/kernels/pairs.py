"""Pruning 4 of 8 in pairs in machine code: sixteen weights, two groups, at a time.

Each pair is compared with the other three of its group by turning the group's lanes; it stays when it beats two, and of
equal scores the earlier one does. Squares and sums are float32 and nothing is contracted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir

from publisher.formats.blocks import Float32Array
from publisher.native.kernels.machine import machine_code
from publisher.native.kernels.vectors import LANES, Emitter, all_lanes, as_float, magnitudes_at, vector, vector_code

_I8, _I32, _I64 = (ir.IntType(width) for width in (8, 32, 64))
_F32, _F64 = ir.FloatType(), ir.DoubleType()
_PAIRS = LANES // 2
_GROUP = 4  # pairs


def _chosen(places: list[int]) -> Any:
    """Which lanes a shuffle takes."""
    return ir.Constant(ir.VectorType(_I32, len(places)), places)


def _kept(emit: Emitter, values: Any) -> Any:
    """Whether each of the eight pairs of sixteen values stays."""
    builder = emit.builder
    squares = builder.fmul(values, values)
    even, odd = (_chosen([2 * pair + side for pair in range(_PAIRS)]) for side in (0, 1))
    scores = builder.fadd(builder.shuffle_vector(squares, squares, even), builder.shuffle_vector(squares, squares, odd))
    wins = all_lanes(_I8, 0, _PAIRS)
    for turn in range(1, _GROUP):
        others = [pair - pair % _GROUP + (pair + turn) % _GROUP for pair in range(_PAIRS)]
        other = builder.shuffle_vector(scores, scores, _chosen(others))
        earlier = ir.Constant(ir.VectorType(ir.IntType(1), _PAIRS), [pair < others[pair] for pair in range(_PAIRS)])
        equal = builder.and_(builder.fcmp_ordered("==", scores, other), earlier)
        won = builder.or_(builder.fcmp_ordered(">", scores, other), equal)
        wins = builder.add(wins, builder.zext(won, wins.type))
    return builder.icmp_unsigned(">=", wins, all_lanes(_I8, 2, _PAIRS))


def _dropper(weighted: bool) -> Callable[..., Any]:
    names = "weights run products lost" if weighted else "weights run lost"

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        emit = Emitter(context, builder, signature, values, names)
        kind = signature.args[0].dtype
        place = builder.mul(emit.arguments["run"], _I64(LANES))
        raw, bits = magnitudes_at(emit, place, kind.bitwidth)
        magnitudes = as_float(emit, bits, kind)
        compared = emit.load("products", place, vector(_F32), 4) if weighted else magnitudes
        pairs = _kept(emit, compared)
        kept = builder.shuffle_vector(pairs, pairs, _chosen([lane // 2 for lane in range(LANES)]))
        nothing = all_lanes(raw.type.element, 0)
        emit.store(builder.select(kept, raw, nothing), "weights", place)
        wide = builder.fpext(builder.select(kept, all_lanes(_F32, 0.0), magnitudes), vector(_F64))
        lost = emit.load("lost", _I64(0), vector(_F64), 8)
        emit.store(builder.fadd(lost, builder.fmul(wide, wide)), "lost", _I64(0))
        return context.get_dummy_value()

    return generate


@vector_code
def _drop(_typing: Any, weights: Any, _run: Any, lost: Any) -> Any:
    """Zero what is not kept of run `_run`; squares of the dropped are added to `lost`, lane by lane."""
    return numba.void(weights, numba.int64, lost), _dropper(False)


@vector_code
def _drop_weighted(_typing: Any, weights: Any, _run: Any, products: Any, lost: Any) -> Any:
    """The same, by the scores of `products`."""
    return numba.void(weights, numba.int64, products, lost), _dropper(True)


@machine_code
def _plain(weights: Any, runs: Any, lost: Any) -> None:
    for run in range(runs):
        _drop(weights, run, lost)


@machine_code
def _weighted(weights: Any, runs: Any, products: Any, lost: Any) -> None:
    for run in range(runs):
        _drop_weighted(weights, run, products, lost)


def drop(weights: Any, products: Float32Array | None = None) -> float:
    """Zero the pairs that are not kept; returns the sum of their squares.

    Args:
        weights: flat contiguous bits of finite weights (see `compiled`), a multiple of sixteen; overwritten.
        products: float32, the weights times what they are weighted by; None for magnitudes alone.
    """
    lost = np.zeros(LANES, np.float64)
    runs = weights.size // LANES
    if products is None:
        _plain(weights, runs, lost)
    else:
        _weighted(weights, runs, products, lost)
    return float(lost.sum())
