"""Vector instructions for numba: sixteen weights at a time, written in LLVM's own terms.

Plain loops over small integers are left scalar by numba's types (everything becomes 64 bits wide), so the two inner
loops of quantization are given as vector code, which LLVM turns into whatever the processor has. All of it is exact
integer work but the error sums, which are added lane by lane in a fixed order, without reassociation; with AVX-512
products and sums are fused there (`registers`), so their last digits are that processor's own.
Whoever calls these sees to the bounds; the machine is little-endian.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from publisher.native.kernels import registers

LANES = registers.LANES
vector_code: Callable[[Callable[..., Any]], Callable[..., Any]] = intrinsic
_I8, _I16, _I32, _I64 = (ir.IntType(width) for width in (8, 16, 32, 64))
_F32, _F64 = ir.FloatType(), ir.DoubleType()
_F16_BIAS = 2.0**112  # an F16's bits, moved to where a float32 has its own, are this much too small


class Emitter:
    """Writes the body of one intrinsic; `arguments` by name are LLVM values, arrays become pointers on access."""

    def __init__(self, context: Any, builder: Any, signature: Any, values: Any, names: str) -> None:
        self.context, self.builder = context, builder
        self._types = dict(zip(names.split(), signature.args, strict=True))
        self.arguments = dict(zip(names.split(), values, strict=True))

    def address(self, name: str, index: Any) -> Any:
        """Where element `index` of an array is."""
        array = self.context.make_array(self._types[name])(self.context, self.builder, self.arguments[name])
        return self.builder.gep(array.data, [index])

    def scalar(self, name: str, index: Any) -> Any:
        """Element `index` of an array."""
        return self.builder.load(self.address(name, index))

    def load(self, name: str, index: Any, kind: Any, align: int) -> Any:
        """A vector that begins at element `index`."""
        found = self.builder.load(self.builder.bitcast(self.address(name, index), kind.as_pointer()))
        found.align = align
        return found

    def store(self, value: Any, name: str, index: Any) -> None:
        """Store a vector from element `index` on."""
        self.builder.store(value, self.builder.bitcast(self.address(name, index), value.type.as_pointer())).align = 1

    def splat(self, value: Any) -> Any:
        """A scalar in all lanes."""
        nothing = ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined)
        one = self.builder.insert_element(nothing, value, _I32(0))
        return self.builder.shuffle_vector(one, nothing, all_lanes(_I32, 0))


def all_lanes(kind: Any, value: float, lanes: int = LANES) -> Any:
    """A constant in all lanes."""
    return ir.Constant(ir.VectorType(kind, lanes), [value] * lanes)


def vector(kind: Any) -> Any:
    """The type of sixteen of a kind."""
    return ir.VectorType(kind, LANES)


def magnitudes_at(emit: Emitter, index: Any, bits: int) -> tuple[Any, Any]:
    """Sixteen weights as they are, and without their signs, as integers."""
    kind = ir.IntType(bits)
    raw = emit.load("weights", index, vector(kind), bits // 8)
    return raw, emit.builder.and_(raw, all_lanes(kind, (1 << (bits - 1)) - 1))


@vector_code
def sixteens_peaks(_typing: Any, weights: Any, out: Any, _count: Any) -> Any:
    """The largest magnitude, as bits, of each of the first `_count` runs of sixteen."""
    bits: int = weights.dtype.bitwidth

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        emit = Emitter(context, builder, signature, values, "weights out count")
        kind = ir.IntType(bits)
        name = f"llvm.vector.reduce.umax.v{LANES}i{bits}"
        reduce = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [vector(kind)]), name)
        with cgutils.for_range(builder, emit.arguments["count"], intp=_I64) as loop:
            _, magnitudes = magnitudes_at(emit, builder.mul(loop.index, _I64(LANES)), bits)
            largest = builder.call(reduce, [magnitudes])
            address = builder.bitcast(emit.address("out", loop.index), kind.as_pointer())
            builder.store(largest, address)
        return context.get_dummy_value()

    return numba.void(weights, out, numba.int64), generate


def _codes(emit: Emitter, raw: Any, magnitudes: Any, code: Any, bits: int) -> tuple[Any, Any, list[Any]]:
    """E2M1 codes with their signs under one block scale code, without, and what they count: all ones where above."""
    builder, kind = emit.builder, ir.IntType(bits)
    row = builder.mul(code, _I64(8))
    above = [
        builder.sext(
            builder.icmp_signed(">", magnitudes, emit.splat(emit.scalar("below", builder.add(row, _I64(mark))))),
            vector(kind),
        )
        for mark in range(8)
    ]
    steps = builder.sub(all_lanes(kind, 0), above[1])
    for mask in above[2:]:
        steps = builder.sub(steps, mask)
    sign = builder.and_(builder.lshr(raw, all_lanes(kind, bits - 4)), all_lanes(kind, 8))
    return builder.or_(steps, builder.and_(sign, above[0])), steps, above


def _pack(emit: Emitter, codes: Any, index: Any, bits: int) -> None:
    """Sixteen codes to eight bytes, the even one in the low half."""
    builder = emit.builder
    if bits == 32:
        codes = builder.trunc(codes, vector(_I16))
    half = LANES // 2
    pairs = builder.bitcast(codes, ir.VectorType(_I32, half))
    joined = builder.or_(pairs, builder.lshr(pairs, all_lanes(_I32, 12, half)))
    emit.store(builder.trunc(joined, ir.VectorType(_I8, half)), "out", builder.mul(index, _I64(half)))


def _halves_of(emit: Emitter, above: list[Any], bits: int) -> Any:
    """E2M1 values of codes, counted in halves, as float32: 0, 1, 2, 3, 4, 6, 8, 12."""
    builder, kind = emit.builder, ir.IntType(bits)
    total = builder.sub(all_lanes(kind, 0), builder.mul(above[7], all_lanes(kind, 4)))
    for mark, worth in ((1, 1), (2, 1), (3, 1), (4, 1), (5, 2), (6, 2)):
        total = builder.sub(total, above[mark] if worth == 1 else builder.add(above[mark], above[mark]))
    wide = builder.sext(total, vector(_I32)) if bits == 16 else total
    return builder.sitofp(wide, vector(_F32))


def as_float(emit: Emitter, magnitudes: Any, dtype: Any) -> Any:
    """Magnitude bits as float32."""
    builder = emit.builder
    if dtype.bitwidth == 32:
        return builder.bitcast(magnitudes, vector(_F32))
    wide = builder.zext(magnitudes, vector(_I32))
    if dtype != numba.int16:
        return builder.bitcast(builder.shl(wide, all_lanes(_I32, 16)), vector(_F32))
    small = builder.bitcast(builder.shl(wide, all_lanes(_I32, 13)), vector(_F32))
    return builder.fmul(small, all_lanes(_F32, _F16_BIAS))


def _encoder(metered: bool) -> Callable[..., Any]:
    names = "weights codes below halves out begin count shift sums"

    def encode(_typing: Any, weights: Any, codes: Any, below: Any, halves: Any, out: Any, *rest: Any) -> Any:
        sums = rest[3]
        bits: int = weights.dtype.bitwidth

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            emit, looked_up = Emitter(context, builder, signature, values, names), registers.can_look_up(context)
            meters = [cgutils.alloca_once_value(builder, all_lanes(_F32, 0.0)) for _ in range(2)]
            with cgutils.for_range(builder, emit.arguments["count"], intp=_I64) as loop:
                index = builder.add(emit.arguments["begin"], loop.index)
                code = builder.zext(emit.scalar("codes", builder.lshr(index, emit.arguments["shift"])), _I64)
                raw, magnitudes = magnitudes_at(emit, builder.mul(index, _I64(LANES)), bits)
                signed, unsigned, above = _codes(emit, raw, magnitudes, code, bits)
                if metered:
                    weight = as_float(emit, magnitudes, weights.dtype)
                    half = emit.splat(emit.scalar("halves", code))
                    if looked_up:
                        _count_fused(builder, meters, registers.halves_of(builder, unsigned), half, weight)
                    else:
                        _count(builder, meters, builder.fmul(_halves_of(emit, above, bits), half), weight)
                _pack(emit, signed, index, bits)
            if metered:
                for place, meter in enumerate(meters):
                    _add_lanes(emit, builder.load(meter), _I64(place))
            return context.get_dummy_value()

        integer = numba.int64
        return numba.void(weights, codes, below, halves, out, integer, integer, integer, sums), generate

    return encode


def _count(builder: Any, meters: list[Any], value: Any, weight: Any) -> None:
    """Add squares of error and weight to the meters."""
    for meter, number in zip(meters, (builder.fsub(value, weight), weight), strict=True):
        builder.store(builder.fadd(builder.load(meter), builder.fmul(number, number)), meter)


def _count_fused(builder: Any, meters: list[Any], halves: Any, half: Any, weight: Any) -> None:
    """The same with one rounding for a product and a sum."""
    error = registers.fused(builder, halves, half, builder.fneg(weight))
    for meter, number in zip(meters, (error, weight), strict=True):
        builder.store(registers.fused(builder, number, number, builder.load(meter)), meter)


def _add_lanes(emit: Emitter, lanes: Any, place: Any) -> None:
    """Add sixteen float32 in their order to one of the float64 sums."""
    builder = emit.builder
    total = emit.scalar("sums", place)
    for lane in range(LANES):
        total = builder.fadd(total, builder.fpext(builder.extract_element(lanes, _I32(lane)), _F64))
    builder.store(total, emit.address("sums", place))


@vector_code
def encode_sixteens(
    _typing: Any,
    weights: Any,
    codes: Any,
    below: Any,
    halves: Any,
    out: Any,
    begin: Any,
    count: Any,
    shift: Any,
    sums: Any,
) -> Any:
    """Codes of `count` runs of sixteen from run `begin` on, packed; a block scale serves `1 << shift` runs."""
    return _encoder(False)(_typing, weights, codes, below, halves, out, begin, count, shift, sums)


@vector_code
def encode_sixteens_metered(
    _typing: Any,
    weights: Any,
    codes: Any,
    below: Any,
    halves: Any,
    out: Any,
    begin: Any,
    count: Any,
    shift: Any,
    sums: Any,
) -> Any:
    """The same, and squared error and squared weight are added to `sums`."""
    return _encoder(True)(_typing, weights, codes, below, halves, out, begin, count, shift, sums)
