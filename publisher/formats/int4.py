"""INT4 as compressed-tensors packs it (`pack-quantized`): what sources such as Kimi K2.x are stored in.

Eight weights share a 32-bit word, element 0 in the least significant nibble; a nibble is the value plus eight, and a
group of neighbours along the input axis (32 in Kimi) has one scale, mostly BF16:

    w = BF16((nibble - 8) * scale)

The product of a 4-bit integer and a BF16 scale needs up to eleven bits, so whether it is rounded to BF16 matters: the
engines' own dequantizers compute in the scale's dtype, a tool that stays in float32 gets other maxima. Both can be had
here. Refused: zero points (asymmetric weights) and shapes that do not belong together.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from publisher.formats import floats
from publisher.formats.blocks import Float32Array, TensorError

OFFSET = 8
PER_WORD = 8
Intermediate = Literal["BF16", "F32"]
"""What a dequantized weight is rounded to before anything else is done with it; `F32` rounds nothing."""
Order = Literal["low", "high"]
"""Where element 0 of a word is: the least significant nibble (the format) or the most significant (a mistake)."""

_VALUES: Float32Array = np.stack([(np.arange(256) & 0xF) - OFFSET, (np.arange(256) >> 4) - OFFSET], axis=1).astype(
    np.float32
)  # (256, 2): the even element of a byte, then the odd one
_PAIRS = np.ascontiguousarray(_VALUES).view(np.uint64).reshape(256)  # both in one word: one look-up for two


def words_of(columns: int) -> int:
    """32-bit words of a row of `columns` weights."""
    return -(-columns // PER_WORD)


def unpack(words: npt.NDArray[Any], columns: int, *, order: Order = "low") -> Float32Array:
    """Integers -8..7 as float32.

    Args:
        words: int32 or uint32 (rows, words), little-endian as stored.
        columns: weights of a row; the last word may be partly used.
        order: which nibble holds element 0.

    Returns:
        float32 (rows, columns).

    Raises:
        TensorError: another dtype or rank, or another number of words than `columns` needs.
    """
    if words.dtype.kind not in "iu" or words.dtype.itemsize != 4 or words.ndim != 2:
        raise TensorError(f"Packed INT4 weights are {words.dtype} {words.shape}; they must be 32-bit with two axes.")
    if words.shape[1] != words_of(columns):
        raise TensorError(f"{words.shape[1]} words per row cannot hold {columns} INT4 weights.")
    stored = np.ascontiguousarray(words.astype(words.dtype.newbyteorder("<"), copy=False)).view(np.uint8)
    if order == "high":
        stored = stored.reshape(*words.shape, 4)[:, :, ::-1].reshape(stored.shape)
    pairs = np.take(_PAIRS, stored).view(np.float32).reshape(*stored.shape, 2)
    if order == "high":
        pairs = pairs[:, :, ::-1]
    return pairs.reshape(words.shape[0], -1)[:, :columns]


def dequantize(
    words: npt.NDArray[Any],
    scales: Float32Array,
    columns: int,
    *,
    group: int,
    intermediate: Intermediate = "BF16",
    order: Order = "low",
) -> Float32Array:
    """Weights from stored words and scales; any run of whole rows will do.

    Args:
        words: int32 (rows, ceil(columns / 8)).
        scales: float32 (rows, ceil(columns / group)), exactly as stored.
        columns: weights of a row.
        group: weights that share a scale.
        intermediate: what the product is rounded to.
        order: which nibble holds element 0.

    Returns:
        float32 (rows, columns).

    Raises:
        TensorError: shapes that do not belong together.
    """
    values = unpack(words, columns, order=order)
    expected = (values.shape[0], -(-columns // max(group, 1)))
    if group < 1 or scales.shape != expected:
        raise TensorError(
            f"INT4 scales have shape {scales.shape}; {columns} weights in groups of {group} need {expected}."
        )
    with np.errstate(over="ignore", invalid="ignore"):
        weights: Float32Array = values * np.repeat(scales, group, axis=1)[:, :columns]
    return floats.round_to_bf16(weights) if intermediate == "BF16" else weights
