"""Stored INT4 and FP8 weights as BF16 bits, in machine code where numba is there: the bits of `publisher.formats`.

One multiplication for each weight. What the vector code does not do (odd widths, scales that are not finite, no numba,
little work) the reference does itself.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from publisher.formats import fp8, int4
from publisher.formats.blocks import Float32Array, UInt8Array

Bits = npt.NDArray[np.uint16]
_LANES = 16
_FROM = 1 << 14  # weights of the smallest run that machine code gets


@functools.cache
def _compiled(name: str) -> Any:
    """One of the functions above in machine code; None without numba."""
    from publisher.native.kernels.quantizers import accelerated

    if not accelerated() or sys.byteorder != "little":
        return None
    from publisher.native.kernels import nibbles
    from publisher.native.kernels.machine import machine_code

    def of_int4(words: Any, scales: Any, out: Any, groups: Any, runs: Any) -> None:
        nibbles.decode_sixteens(words, scales, out, groups, runs)

    def of_fp8(codes: Any, scales: Any, tall: Any, wide: Any, first: Any, out: Any, rows: Any, columns: Any) -> None:
        for row in range(rows):
            owner = (first + row) // tall - first // tall
            for block in range(scales.shape[1]):
                begin, end = block * wide, min(block * wide + wide, columns)
                nibbles.decode_e4m3(codes, out, row * columns + begin, (end - begin) // _LANES, scales[owner, block])

    functions: dict[str, Callable[..., Any]] = {"int4": of_int4, "fp8": of_fp8}
    return machine_code(functions[name])


def int4_bits(words: npt.NDArray[Any], scales: Float32Array, columns: int, group: int, out: Bits) -> None:
    """BF16 bits of INT4 weights.

    Args:
        words: int32 (rows, ceil(columns / 8)), contiguous.
        scales: float32 (rows, ceil(columns / group)), contiguous.
        columns: weights of a row.
        group: weights that share a scale.
        out: uint16 (rows, columns), contiguous; overwritten.

    Raises:
        TensorError: shapes that do not belong together.
    """
    regular = not (group % _LANES or columns % group) and words.shape == (out.shape[0], columns // int4.PER_WORD)
    fitting = scales.shape == (out.shape[0], columns // max(group, 1))
    kernel = _compiled("int4") if regular and fitting and out.size >= _FROM and np.isfinite(scales).all() else None
    if kernel is None:
        values = int4.dequantize(words, scales, columns, group=group)
        out[...] = np.ascontiguousarray(values).view("<u2")[:, 1::2]  # rounded to BF16 already
    else:
        kernel(words.reshape(-1).view(np.uint32), scales.reshape(-1), out.reshape(-1), scales.size, group // _LANES)


def fp8_bits(codes: UInt8Array, scales: Float32Array, block: tuple[int, int], first_row: int, out: Bits) -> None:
    """BF16 bits of E4M3 weights with a scale for each block.

    Args:
        codes: uint8 (rows, columns), contiguous.
        scales: float32, the scales of the block rows those rows touch.
        block: (rows, columns) that share a scale.
        first_row: where in the matrix the rows begin.
        out: uint16 (rows, columns), contiguous; overwritten.

    Raises:
        TensorError: shapes that do not belong together.
    """
    rows, columns = codes.shape
    tall, wide = block
    expected = (-(-(first_row % tall + rows) // tall), -(-columns // wide)) if min(block) > 0 else None
    regular = scales.shape == expected and columns % _LANES == 0 and (wide % _LANES == 0 or wide >= columns)
    kernel = _compiled("fp8") if regular and codes.size >= _FROM and np.isfinite(scales).all() else None
    if kernel is None:
        values = fp8.dequantize(codes, scales, block=block, first_row=first_row)
        out[...] = np.ascontiguousarray(values).view("<u2")[:, 1::2]
    else:
        wide = min(wide, columns)
        kernel(codes.reshape(-1), scales, tall, wide, first_row, out.reshape(-1), rows, columns)
