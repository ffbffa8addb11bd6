"""Vector instructions that turn packed INT4 and FP8 codes into BF16: sixteen weights at a time.

The product of a number and its scale is rounded as `floats.to_bf16_bits` does it, to the nearest, ties to even; all of
it is one IEEE multiplication and exact integer work. Scales must be finite; whoever calls sees to that and the bounds.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils

from publisher.formats import e4m3, int4
from publisher.native.kernels.vectors import LANES, Emitter, all_lanes, vector, vector_code

_I8, _I16, _I32, _I64 = (ir.IntType(width) for width in (8, 16, 32, 64))
_F32 = ir.FloatType()
_BITS = 32 // int4.PER_WORD
_WORDS = LANES // int4.PER_WORD
_SIGN, _QUIET = 0x80, 0x7FC0


@vector_code
def decode_sixteens(_typing: Any, words: Any, scales: Any, out: Any, _count: Any, _runs: Any) -> Any:
    """BF16 bits of `_count` runs of sixteen weights; each scale serves `_runs` of them."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        emit = Emitter(context, builder, signature, values, "words scales out count runs")
        with cgutils.for_range(builder, emit.arguments["count"], intp=_I64) as group:
            scale = emit.splat(emit.scalar("scales", group.index))
            first = builder.mul(group.index, emit.arguments["runs"])
            with cgutils.for_range(builder, emit.arguments["runs"], intp=_I64) as run:
                index = builder.add(first, run.index)
                product = builder.fmul(_integers(emit, index), scale)
                emit.store(_bf16(emit, product), "out", builder.mul(index, _I64(LANES)))
        return context.get_dummy_value()

    signature = numba.void(words, scales, out, numba.int64, numba.int64)
    return signature, generate


def _integers(emit: Emitter, index: Any) -> Any:
    """Sixteen weights, -8 to 7, as float32."""
    builder = emit.builder
    pair = emit.load("words", builder.mul(index, _I64(_WORDS)), ir.VectorType(_I32, _WORDS), 4)
    owners = ir.Constant(vector(_I32), [lane // int4.PER_WORD for lane in range(LANES)])
    places = ir.Constant(vector(_I32), [lane % int4.PER_WORD * _BITS for lane in range(LANES)])
    spread = builder.shuffle_vector(pair, pair, owners)
    nibbles = builder.and_(builder.lshr(spread, places), all_lanes(_I32, (1 << _BITS) - 1))
    return builder.sitofp(builder.sub(nibbles, all_lanes(_I32, int4.OFFSET)), vector(_F32))


@vector_code
def decode_e4m3(_typing: Any, codes: Any, out: Any, _begin: Any, _count: Any, _scale: Any) -> Any:
    """BF16 bits of `_count` runs of sixteen E4M3 codes from element `_begin` on, all under one float32 scale."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        emit = Emitter(context, builder, signature, values, "codes out begin count scale")
        scale = emit.splat(emit.arguments["scale"])
        with cgutils.for_range(builder, emit.arguments["count"], intp=_I64) as run:
            index = builder.add(emit.arguments["begin"], builder.mul(run.index, _I64(LANES)))
            raw = builder.zext(emit.load("codes", index, vector(_I8), 1), vector(_I32))
            magnitudes = builder.and_(raw, all_lanes(_I32, _SIGN - 1))
            signs = builder.shl(builder.and_(raw, all_lanes(_I32, _SIGN)), all_lanes(_I32, 24))
            number = builder.bitcast(builder.or_(_of_e4m3(builder, magnitudes), signs), vector(_F32))
            rounded = _bf16(emit, builder.fmul(number, scale))
            missing = builder.icmp_signed("==", magnitudes, all_lanes(_I32, e4m3.NAN_CODE))
            signed = builder.trunc(builder.lshr(signs, all_lanes(_I32, 16)), vector(_I16))
            quiet = builder.or_(signed, all_lanes(_I16, _QUIET))
            emit.store(builder.select(missing, quiet, rounded), "out", index)
        return context.get_dummy_value()

    return numba.void(codes, out, numba.int64, numba.int64, numba.float32), generate


def _of_e4m3(builder: Any, magnitudes: Any) -> Any:
    """float32 bits of E4M3 magnitudes; below 8 they count in units of 2**-9."""
    small = builder.fmul(builder.sitofp(magnitudes, vector(_F32)), all_lanes(_F32, 2.0**-9))
    normal = builder.add(builder.shl(magnitudes, all_lanes(_I32, 20)), all_lanes(_I32, (127 - 7) << 23))
    subnormal = builder.icmp_signed("<", magnitudes, all_lanes(_I32, 8))
    return builder.select(subnormal, builder.bitcast(small, vector(_I32)), normal)


def _bf16(emit: Emitter, values: Any) -> Any:
    """Bits of finite float32 rounded to BF16; what is too large becomes infinite."""
    builder = emit.builder
    bits = builder.bitcast(values, vector(_I32))
    odd = builder.and_(builder.lshr(bits, all_lanes(_I32, 16)), all_lanes(_I32, 1))
    rounded = builder.add(builder.add(bits, all_lanes(_I32, 0x7FFF)), odd)
    return builder.trunc(builder.lshr(rounded, all_lanes(_I32, 16)), vector(_I16))
