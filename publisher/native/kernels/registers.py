"""E2M1 looked up in registers, sixteen at a time, where the processor has AVX-512.

A number's element by its quarters, because all rounding boundaries are whole quarters: one permutation of 32 float32 in
two registers does what clearing an exponent, adding and taking away do in five steps. On a boundary the element below
is as near as the one above, and the one above is found: that is for losses, where both count alike, not for codes. And
the value of a code, which elsewhere is counted together from comparisons.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from publisher.formats import e2m1

LAST_QUARTER = 31
"""The last quarter there is an element for; 20 and what is above are 6."""
_BY_QUARTER = e2m1.DECODE[
    e2m1.encode((np.arange(LAST_QUARTER + 1, dtype=np.float32) + np.float32(0.5)) / np.float32(4))
]
LANES = 16
_I16, _I32, _F32 = ir.IntType(16), ir.IntType(32), ir.FloatType()
_INTEGERS, _FLOATS = ir.VectorType(_I32, LANES), ir.VectorType(_F32, LANES)


def can_look_up(context: Any) -> bool:
    """Whether the processor that numba compiles for has the instruction."""
    _, _, features = context.codegen().magic_tuple()
    return "+avx512f" in features.split(",")


def element_in_quarters(builder: Any, quarters: Any, *, clipped: bool) -> Any:
    """Four times the nearest E2M1 magnitude of sixteen numbers of at least zero, given as four times what they are.

    Args:
        builder: of LLVM.
        quarters: the numbers.
        clipped: whether they may reach 32, eight times four; otherwise any element may be found for one that does.
    """
    if clipped:
        last = ir.Constant(_FLOATS, [float(LAST_QUARTER)] * LANES)
        quarters = builder.select(builder.fcmp_ordered("<", quarters, last), quarters, last)
    whole = called(
        builder,
        "llvm.x86.avx512.mask.cvttps2dq.512",  # any number has a result, which a plain conversion has not
        _INTEGERS,
        [quarters, ir.Constant(_INTEGERS, [0] * LANES), _I16((1 << LANES) - 1), _I32(4)],
    )
    low, high = (_floats(4 * half) for half in np.split(_BY_QUARTER, 2))
    return called(builder, "llvm.x86.avx512.vpermi2var.ps.512", _FLOATS, [low, whole, high])


def halves_of(builder: Any, codes: Any) -> Any:
    """E2M1 values, counted in halves, of sixteen codes without sign, of integers of any width."""
    indices = codes if codes.type == _INTEGERS else builder.zext(codes, _INTEGERS)
    return called(builder, "llvm.x86.avx512.permvar.sf.512", _FLOATS, [_floats(2 * abs(e2m1.DECODE)), indices])


def fused(builder: Any, first: Any, second: Any, third: Any) -> Any:
    """Sixteen products and sums, rounded once."""
    return called(builder, "llvm.fma.v16f32", _FLOATS, [first, second, third])


def called(builder: Any, name: str, kind: Any, arguments: list[Any]) -> Any:
    """What one of LLVM's own functions gives: `kind` of `arguments`."""
    declared = ir.FunctionType(kind, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, declared, name), arguments)


def _floats(values: Any) -> Any:
    return ir.Constant(_FLOATS, [float(value) for value in values])
