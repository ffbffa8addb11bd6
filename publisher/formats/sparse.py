"""Paired 4:8 sparsity: of every eight neighbouring weights of a row two of the four pairs are kept, the rest is +0.

That is what Blackwell's sparse FP4 instructions multiply (CUTLASS `sm1xx_sparse_config.inl`: two of four bytes of
packed E2M1). Two things are computed here, in numpy, as the reference.

Which pairs are kept. Each pair has a score, in float32 and in this order: every weight times the root of its input's
mean square where statistics are given (the diagonal of the layer's Hessian), squared, and the two added. The two pairs
of the largest scores stay; of equal scores the one with the lower index. Scales are made from what is left, so pruning
comes before everything else of quantization.

How packed codes are stored sparsely, which no serving engine reads today: of each four bytes the two kept ones, and
four bits that say where they were, `first | second << 2`, as CUTLASS's `sm90_sparse_gemm_compressor.hpp` makes them.
One byte that is not zero goes with byte 3 or, if it is byte 3, after byte 0; four zero bytes are 0. Kept bytes lie row
by row, a row padded to 64 weights. Metadata lie as the F4 atoms of `Sm1xxGemmSparseConfig::fill_layoutE` do: two groups
of eight to a byte, the even one low; sixteen bytes for 256 weights of a row; rows padded to 128; all rows of the first
256 columns, then of the next. That makes `(columns / 256, rows, 16)`. Padding is zero.

Refused, with the number and the place: a group with more than two bytes that are not zero, and one where the third is a
negative zero, which dense files may hold and the sparse form would lose; metadata and padding this does not write.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from publisher.formats.blocks import Float32Array, TensorError, UInt8Array, require_bytes, require_weights

PATTERN = "paired-4:8"
GROUP, PAIRS, KEPT = 8, 4, 2
"""Weights of a group, its pairs, and how many of them are kept."""
_KEPT_COLUMNS, _ATOM_ROWS, _ATOM_COLUMNS = 64, 128, 256
_ATOM_BYTES = _ATOM_COLUMNS // (2 * GROUP)
_MAGNITUDES = 0x77  # code 8 is -0.0

Mask = npt.NDArray[np.bool_]


# --- which pairs are kept ------------------------------------------------------------------------------------------


def importance(mean_square: Float32Array) -> Float32Array:
    """What weights are multiplied by before they are compared: the roots of their inputs' mean squares, float32 (in,).

    Raises:
        TensorError: one is negative or no finite number.
    """
    if not (np.isfinite(mean_square) & (mean_square >= 0)).all():
        raise TensorError("A mean square of inputs is negative or no finite number.", hint="Calibrate again.")
    return np.sqrt(mean_square.astype(np.float32))


def pair_scores(rows: Float32Array, weighted_by: Float32Array | None = None) -> Float32Array:
    """Scores of all pairs: float32 (n, in) to (n, in / 8, 4).

    Args:
        rows: finite weights, `in` divisible by 8.
        weighted_by: float32 (in,), from `importance`; None for magnitudes alone.
    """
    require_weights(rows, GROUP)
    with np.errstate(over="ignore", under="ignore"):
        squares = rows if weighted_by is None else rows * weighted_by
        squares = squares * squares
        scores: Float32Array = squares[:, 0::2] + squares[:, 1::2]
    return scores.reshape(rows.shape[0], -1, PAIRS)


def kept_pairs(scores: Float32Array) -> Mask:
    """Which two of every four pairs stay: (..., 4) to the same shape."""
    order = np.argsort(-scores, axis=-1, kind="stable")[..., :KEPT]
    kept = np.zeros(scores.shape, np.bool_)
    np.put_along_axis(kept, order, True, axis=-1)
    return kept


def pruned(rows: Float32Array, weighted_by: Float32Array | None = None) -> Float32Array:
    """The rows with +0 where a pair is not kept; arguments as `pair_scores` has them."""
    kept = kept_pairs(pair_scores(rows, weighted_by)).reshape(rows.shape[0], -1)
    return np.where(np.repeat(kept, 2, axis=1), rows, np.float32(0))


# --- sparse storage ------------------------------------------------------------------------------------------------


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def kept_shape(rows: int, columns: int) -> tuple[int, int]:
    """Shape of the kept bytes of a weight of so many rows and columns."""
    return rows, _up(columns, _KEPT_COLUMNS) // 4


def metadata_shape(rows: int, columns: int) -> tuple[int, int, int]:
    """Shape of its metadata."""
    return _up(columns, _ATOM_COLUMNS) // _ATOM_COLUMNS, _up(rows, _ATOM_ROWS), _ATOM_BYTES


def _position_tables() -> tuple[UInt8Array, Mask]:
    """Metadata by which of four bytes are not zero, bit by bit, and which metadata there are."""
    table = np.zeros(16, np.uint8)
    for bits in range(1, 16):
        places = [place for place in range(PAIRS) if bits >> place & 1][:KEPT]
        if len(places) == 1:
            places = [0, 3] if places == [3] else [places[0], 3]
        table[bits] = places[0] | places[1] << 2
    legal = np.zeros(16, np.bool_)
    legal[[0, *(a | b << 2 for a in range(PAIRS) for b in range(a + 1, PAIRS))]] = True
    return table, legal


_METADATA, _LEGAL = _position_tables()
_COUNT = np.array([bits.bit_count() for bits in range(16)], np.uint8)


def _which(payload: UInt8Array) -> UInt8Array:
    """Which bytes of every four are not zero, as bits 0 to 3: (n, 4 m) to (n, m)."""
    words = np.ascontiguousarray(payload).view("<u4")
    words = words | words >> 4
    words |= words >> 2
    words |= words >> 1
    words &= np.uint32(0x01010101)
    found: UInt8Array = ((words * np.uint32(0x01020408)) >> np.uint32(24)).astype(np.uint8)
    return found & np.uint8(15)


def compress(payload: UInt8Array, first_row: int = 0) -> tuple[UInt8Array, UInt8Array]:
    """Some rows of packed codes, without what is pruned.

    Args:
        payload: uint8 (n, in / 2), `in` divisible by 8.
        first_row: what the first of them is called in a message.

    Returns:
        kept bytes uint8 (n, `kept_shape`) and metadata uint8 (columns / 256, n, 16), to lie at these rows of a tensor
        of `metadata_shape`.

    Raises:
        TensorError: a group that cannot be stored without loss; with the number of such groups and the first place.
    """
    require_bytes("payload", payload)
    rows, columns = payload.shape[0], payload.shape[1] * 2
    if columns % GROUP:
        raise TensorError(f"Rows of {columns} weights are no whole groups of {GROUP}.")
    which = _which(payload)
    full = _COUNT[which] > KEPT
    if full.any():
        raise _not_pruned(payload, full, first_row)
    codes = _METADATA[which]
    groups = payload.reshape(rows, -1, PAIRS)
    places = np.stack([codes & 3, codes >> 2], axis=-1)
    kept = np.zeros(kept_shape(rows, columns), np.uint8)
    kept[:, : columns // 4] = np.take_along_axis(groups, places.astype(np.intp), axis=-1).reshape(rows, -1)
    nibbles = np.zeros((rows, _up(columns, _ATOM_COLUMNS) // GROUP), np.uint8)
    nibbles[:, : columns // GROUP] = codes
    packed = nibbles[:, 0::2] | nibbles[:, 1::2] << np.uint8(4)
    return kept, np.ascontiguousarray(packed.reshape(rows, -1, _ATOM_BYTES).transpose(1, 0, 2))


def _not_pruned(payload: UInt8Array, full: Mask, first_row: int) -> TensorError:
    truly = _COUNT[_which(payload & np.uint8(_MAGNITUDES))] > KEPT
    shown = truly if truly.any() else full
    row, group = np.argwhere(shown)[0].tolist()
    place = f"the first at row {first_row + row:,}, weights {GROUP * group:,} to {GROUP * group + GROUP - 1:,}"
    if truly.any():
        return TensorError(
            f"{int(truly.sum()):,} of {truly.size:,} groups of eight keep more than two pairs, {place}.",
            hint="Only weights pruned 4 of 8 in pairs have a sparse form.",
        )
    return TensorError(
        f"{int(full.sum()):,} of {full.size:,} groups of eight hold a negative zero (code 8) beside two kept pairs, "
        f"{place}; the sparse form would lose its sign.",
        hint="Quantize again with engine native, which writes code 0 where a pair is pruned.",
    )


def expand(kept: UInt8Array, metadata: UInt8Array, columns: int, first_row: int = 0) -> UInt8Array:
    """Packed codes of some rows, every pruned pair a zero byte.

    Args:
        kept: uint8 (n, `kept_shape`).
        metadata: uint8 (columns / 256, n, 16), those rows of the stored tensor.
        columns: weights of a row.
        first_row: what the first of them is called in a message.

    Returns:
        uint8 (n, columns / 2).

    Raises:
        TensorError: shapes that do not belong together, or bytes that `compress` does not write.
    """
    rows = kept.shape[0]
    blocks, _, width = metadata_shape(rows, columns)
    wanted = (kept_shape(rows, columns), (blocks, rows, width))
    if columns % GROUP or (kept.shape, metadata.shape) != wanted or kept.dtype != np.uint8:
        raise TensorError(f"Kept bytes {kept.shape} and metadata {metadata.shape} are not those of {columns} columns.")
    packed = metadata.transpose(1, 0, 2).reshape(rows, -1)
    nibbles = np.stack([packed & np.uint8(15), packed >> np.uint8(4)], axis=-1).reshape(rows, -1)
    codes, pairs = nibbles[:, : columns // GROUP], kept[:, : columns // 4].reshape(rows, -1, KEPT)
    empty = (codes == 0) & (pairs != 0).any(axis=-1)
    wrong = ~_LEGAL[codes] | empty
    if wrong.any() or nibbles[:, columns // GROUP :].any() or kept[:, columns // 4 :].any():
        row = int(np.argwhere(wrong)[0][0]) if wrong.any() else 0
        raise TensorError(
            f"{int(wrong.sum()):,} of {wrong.size:,} groups of eight have metadata or padding that no pruned weight "
            f"gives, the first in row {first_row + row:,}.",
            hint="The tensor is damaged; copy or download it again.",
        )
    payload = np.zeros((rows, columns // GROUP, PAIRS), np.uint8)
    places = np.stack([codes & np.uint8(3), codes >> np.uint8(2)], axis=-1)
    np.put_along_axis(payload, places.astype(np.intp), pairs, axis=-1)
    return payload.reshape(rows, columns // 2)
