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

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from publisher.formats.blocks import Float32Array, TensorError, UInt8Array, require_bytes, require_weights

PATTERN = "paired-4:8"
GROUP, PAIRS, KEPT = 8, 4, 2
"""Weights of a group, its pairs, and how many of them are kept."""
_KEPT_COLUMNS, _ATOM_ROWS, _ATOM_COLUMNS = 64, 128, 256
_ATOM_BYTES = _ATOM_COLUMNS // (2 * GROUP)
_MAGNITUDES = 0x77  # code 8 is -0.0

_RUN = 1 << 18  # weights of the rows worked on at a time

Mask = npt.NDArray[np.bool_]
Word = npt.NDArray[np.uint32]


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


def _tables() -> tuple[Word, Word]:
    """What is looked up for a group: by which of its bytes are not zero, and by its metadata.

    Bits 0 to 7 say how far the first kept byte is shifted in the group's word, bits 8 to 15 the second, bits 16 to 23
    hold the metadata; bit 24 is set where there is no such form.
    """
    compressing, expanding = np.full(16, 1 << 24, np.uint32), np.full(16, 1 << 24, np.uint32)
    for bits in range(16):
        places = [place for place in range(PAIRS) if bits >> place & 1]
        if len(places) < KEPT:
            places = [0, 0] if not places else [0, 3] if places == [3] else [places[0], 3]
        if len(places) == KEPT:
            first, second = places
            code = first | second << 2
            compressing[bits] = expanding[code] = 8 * first | 8 * second << 8 | code << 16
    return compressing, expanding


_COMPRESSING, _EXPANDING = _tables()


def _looked_up(table: Word, index: Word) -> tuple[Word, Word, Word, bool]:
    """Both shifts, the metadata, and whether every group has a form."""
    found = np.take(table, index)
    byte = np.uint32(255)
    legal = not bool((found >> np.uint32(24)).any())
    return found & byte, found >> np.uint32(8) & byte, found >> np.uint32(16) & byte, legal


def _which(words: Word) -> Word:
    """Which bytes of every word are not zero, as bits 0 to 3."""
    words = words | words >> np.uint32(4)
    words |= words >> np.uint32(2)
    words |= words >> np.uint32(1)
    words &= np.uint32(0x01010101)
    words *= np.uint32(0x01020408)
    words >>= np.uint32(24)
    words &= np.uint32(15)
    return words


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
    kept = np.zeros(kept_shape(rows, columns), np.uint8)
    blocks, _, width = metadata_shape(rows, columns)
    metadata = np.empty((blocks, rows, width), np.uint8)
    for run in _runs(rows, columns):
        words = np.ascontiguousarray(payload[run]).view("<u4")
        first, second, codes, legal = _looked_up(_COMPRESSING, _which(words))
        if not legal:
            raise _not_pruned(payload, first_row)
        pairs = words >> first & np.uint32(255) | (words >> second & np.uint32(255)) << np.uint32(8)
        kept[run, : columns // 4] = pairs.astype("<u2").view(np.uint8)
        nibbles = np.zeros((len(words), blocks * width * 2), np.uint8)
        nibbles[:, : columns // GROUP] = codes
        packed = nibbles[:, 0::2] | nibbles[:, 1::2] << np.uint8(4)
        metadata[:, run] = packed.reshape(-1, blocks, width).transpose(1, 0, 2)
    return kept, metadata


def _runs(rows: int, columns: int) -> Iterator[slice]:
    """Rows whose groups and what is made of them stay in a cache."""
    step = max(1, _RUN // columns)
    for begin in range(0, rows, step):
        yield slice(begin, min(begin + step, rows))


def _not_pruned(payload: UInt8Array, first_row: int) -> TensorError:
    """What is wrong with a payload of which some group has three bytes that are not zero."""
    count = (payload.reshape(payload.shape[0], -1, PAIRS) != 0).sum(axis=2)
    truly = ((payload & np.uint8(_MAGNITUDES)).reshape(payload.shape[0], -1, PAIRS) != 0).sum(axis=2) > KEPT
    full = count > KEPT
    row, group = np.argwhere(truly if truly.any() else full)[0].tolist()
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
    payload = np.empty((rows, columns // 2), np.uint8)
    for run in _runs(rows, columns):
        packed = metadata[:, run].transpose(1, 0, 2).reshape(run.stop - run.start, -1)
        nibbles = np.stack([packed & np.uint8(15), packed >> np.uint8(4)], axis=-1).reshape(len(packed), -1)
        stored = np.ascontiguousarray(kept[run, : columns // 4]).view("<u2").astype(np.uint32)
        first, second, codes, legal = _looked_up(_EXPANDING, nibbles[:, : columns // GROUP].astype(np.uint32))
        empty = (codes == 0) & (stored != 0)
        if not legal or empty.any() or nibbles[:, columns // GROUP :].any() or kept[run, columns // 4 :].any():
            raise TensorError(
                f"Rows {first_row + run.start:,} to {first_row + run.stop - 1:,} have metadata or padding that no "
                "pruned weight gives.",
                hint="The tensor is damaged; copy or download it again.",
            )
        words = (stored & np.uint32(255)) << first | (stored >> np.uint32(8)) << second
        payload[run] = words.astype("<u4").view(np.uint8)
    return payload
