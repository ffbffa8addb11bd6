"""FP8 weights (E4M3) with scales per block, per row or per tensor: DeepSeek's sources, compressed-tensors, modelopt.

Written beside FP4 (`BESIDE`): modelopt's layers have one scale and one for their inputs, measured beforehand;
compressed-tensors' have one a row, and inputs are scaled token by token when serving.

All three multiply: `w = code * scale`, in float32, the result mostly kept in BF16. DeepSeek calls its scale of a
128x128 block `weight_scale_inv`, and it is to be multiplied by all the same. Blocks at the lower and right edges may be
partial. Refused: shapes that do not belong together; E5M2 is never used for weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from publisher.formats import e4m3, floats
from publisher.formats.blocks import Float32Array, TensorError, UInt8Array, require_bytes
from publisher.formats.int4 import Intermediate


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """How a layout stores an FP8 layer among FP4 ones.

    Attributes:
        by_row: one scale for each output; otherwise one for the matrix, or for the fused layer it belongs to.
        inputs: whether the input's scale is stored; otherwise it is computed when serving.
    """

    by_row: bool
    inputs: bool

    def scale_shape(self, rows: int) -> tuple[int, ...]:
        """The shape the weight's scale is written with."""
        return (rows, 1) if self.by_row else ()

    def size(self, rows: int, columns: int) -> int:
        """Bytes of a layer with its scales."""
        return rows * columns + 4 * ((rows if self.by_row else 1) + self.inputs)


BESIDE: Mapping[str, Beside] = {
    "modelopt": Beside(by_row=False, inputs=True),
    "compressed-tensors": Beside(by_row=True, inputs=False),
}
"""By dialect; vLLM's `ModelOptFp8` reads a static input scale, its `CompressedTensorsW8A8Fp8` takes dynamic ones."""


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
