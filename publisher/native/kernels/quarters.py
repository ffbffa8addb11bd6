"""E2M1 by looking up: all rounding boundaries are whole quarters, so the quarters of a number name its element.

A permutation of 32 float32 in two registers (AVX-512) does in one instruction what clearing an exponent, adding and
taking away do in five. On a boundary the one below is as near as the one above, and the one above is found: this is for
losses, where both count alike, not for codes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from publisher.formats import e2m1
from publisher.native.kernels.vectors import LANES, all_lanes, vector

LAST = 31
"""The last quarter there is an element for; 20 and what is above are 6."""
_ELEMENTS = e2m1.DECODE[e2m1.encode((np.arange(LAST + 1, dtype=np.float32) + np.float32(0.5)) / np.float32(4))]
_I16, _I32, _F32 = ir.IntType(16), ir.IntType(32), ir.FloatType()


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
        last = all_lanes(_F32, float(LAST))
        quarters = builder.select(builder.fcmp_ordered("<", quarters, last), quarters, last)
    whole = _call(
        builder,
        "llvm.x86.avx512.mask.cvttps2dq.512",  # any number has a result, which a plain conversion has not
        vector(_I32),
        [quarters, all_lanes(_I32, 0), _I16((1 << LANES) - 1), _I32(4)],
    )
    low, high = (ir.Constant(vector(_F32), [4 * float(element) for element in half]) for half in np.split(_ELEMENTS, 2))
    return _call(builder, "llvm.x86.avx512.vpermi2var.ps.512", vector(_F32), [low, whole, high])


def _call(builder: Any, name: str, kind: Any, arguments: list[Any]) -> Any:
    declared = ir.FunctionType(kind, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, declared, name), arguments)
