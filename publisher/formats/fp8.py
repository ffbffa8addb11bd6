"""FP8 weights (E4M3) with scales per block, per row or per tensor: DeepSeek's sources, compressed-tensors, modelopt.

All three multiply: `w = code * scale`, in float32, the result mostly kept in BF16. DeepSeek calls its scale of a
128x128 block `weight_scale_inv`, and it is to be multiplied by all the same. Blocks at the lower and right edges may be
partial. Refused: shapes that do not belong together; E5M2 is never used for weights.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from publisher.formats import e4m3, floats
from publisher.formats.blocks import Float32Array, TensorError, UInt8Array, require_bytes
from publisher.formats.int4 import Intermediate


def blocks_of(rows: int, columns: int, block: tuple[int, int]) -> tuple[int, int]:
    """Shape of the scales of a (rows, columns) matrix."""
    return -(-rows // block[0]), -(-columns // block[1])


def dequantize(
    codes: UInt8Array,
    scales: Float32Array,
    *,
    block: tuple[int, int],
    first_row: int = 0,
    intermediate: Intermediate = "BF16",
) -> Float32Array:
    """Weights of some rows.

    Args:
        codes: uint8 (rows, columns), E4M3 codes of rows `first_row` and following of a matrix.
        scales: float32, the scales of the block rows those rows touch, first one first.
        block: (rows, columns) that share a scale; (1, columns) per row, the whole shape per tensor.
        first_row: where in the matrix the run of rows begins.
        intermediate: what the product is rounded to.

    Returns:
        float32 (rows, columns); NaN where a code or its scale is NaN.

    Raises:
        TensorError: shapes that do not belong together.
    """
    require_bytes("FP8 weight", codes)
    if min(block) < 1:
        raise TensorError(f"A block of {block[0]} x {block[1]} weights has no scale.")
    rows, columns = codes.shape
    owner = (first_row + np.arange(rows)) // block[0] - first_row // block[0]
    expected = (int(owner[-1]) + 1 if rows else 0, -(-columns // block[1]))
    if scales.shape != expected:
        raise TensorError(f"FP8 scales have shape {scales.shape}; these rows need {expected}.")
    with np.errstate(over="ignore", invalid="ignore"):
        weights: Float32Array = e4m3.decode(codes)
        for run in _runs(owner):
            wide = (
                np.repeat(scales[owner[run.start]], block[1])[:columns]
                if block[1] < columns
                else scales[owner[run.start]]
            )
            weights[run] *= wide
    return floats.round_to_bf16(weights) if intermediate == "BF16" else weights


def _runs(owner: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> list[slice]:
    """Runs of rows with the same block row."""
    edges = [0, *(np.flatnonzero(np.diff(owner)) + 1).tolist(), len(owner)]
    return [slice(begin, end) for begin, end in pairwise(edges) if end > begin]
