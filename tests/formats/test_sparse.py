"""Pruning in pairs against plain Python; storage against torch's own reference, CUTLASS's loop and its strides."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch.sparse._semi_structured_conversions import (
    _calculate_meta_reordering_scatter_offsets,
    sparse_semi_structured_from_dense_cutlass,
)

from publisher.formats import nvfp4, sparse
from publisher.formats.blocks import TensorError

# --- which pairs ---------------------------------------------------------------------------------------------------


def by_hand(row: list[float], factors: list[float] | None = None) -> list[float]:
    """The rule, one number at a time, each operation rounded to float32."""
    one = np.float32
    kept = list(row)
    for start in range(0, len(row), 8):
        scores = []
        for pair in range(start, start + 8, 2):
            terms = [one(row[i]) if factors is None else one(one(row[i]) * one(factors[i])) for i in (pair, pair + 1)]
            scores.append((-one(one(terms[0] * terms[0]) + one(terms[1] * terms[1])), pair))
        for _, pair in sorted(scores)[2:]:
            kept[pair] = kept[pair + 1] = 0.0
    return kept


@given(arrays.arrays(np.float32, (3, 24), elements=st.floats(-100, 100, width=32)))
def test_two_pairs_stay_as_by_hand(rows: np.ndarray) -> None:
    with np.errstate(all="ignore"):
        expected = np.array([by_hand(row) for row in rows.tolist()], np.float32)
    found = sparse.pruned(rows)
    assert np.array_equal(found, expected)
    assert (sparse.kept_pairs(sparse.pair_scores(rows)).sum(axis=-1) == 2).all()
    assert not np.signbit(found[(found == 0) & (rows != 0)]).any()


@given(
    arrays.arrays(np.float32, (2, 16), elements=st.floats(-8, 8, width=16)),
    arrays.arrays(np.float32, 16, elements=st.floats(0, 4, width=16)),
)
def test_mean_squares_weigh_as_by_hand(rows: np.ndarray, squares: np.ndarray) -> None:
    factors = sparse.importance(squares)
    expected = np.array([by_hand(row, factors.tolist()) for row in rows.tolist()], np.float32)
    assert np.array_equal(sparse.pruned(rows, factors), expected)


def test_of_equal_pairs_the_earlier_stay() -> None:
    row = np.array([[1, -1, -1, 1, 1, 1, 1, 1, 3, 4, 5, 0, 0, 5, 4, 3]], np.float32)
    assert sparse.pruned(row).tolist() == [[1, -1, -1, 1, 0, 0, 0, 0, 3, 4, 5, 0, 0, 0, 0, 0]]


def test_an_input_that_is_always_zero_counts_for_nothing() -> None:
    row = np.array([[9, 9, 1, 1, 2, 0, 0, 0]], np.float32)
    factors = sparse.importance(np.array([0, 0, 1, 1, 1, 1, 1, 1], np.float32))
    assert sparse.pruned(row, factors).tolist() == [[0, 0, 1, 1, 2, 0, 0, 0]]


def test_squares_too_large_for_float32_still_leave_two_pairs() -> None:
    row = np.array([[3e38, 1, 1e38, 1, 2e38, 2e38, 1, 1]], np.float32)
    found = sparse.pruned(row, np.full(8, 2e19, np.float32))
    assert ((found.reshape(4, 2) != 0).any(axis=1)).tolist() == [True, True, False, False]


@pytest.mark.parametrize("wrong", [-1.0, np.nan, np.inf])
def test_what_is_no_mean_square_is_refused(wrong: float) -> None:
    with pytest.raises(TensorError, match="mean square"):
        sparse.importance(np.array([1, wrong], np.float32))


def test_rows_of_no_whole_groups_are_refused() -> None:
    with pytest.raises(TensorError, match="12"):
        sparse.pair_scores(np.ones((2, 12), np.float32))


# --- storage -------------------------------------------------------------------------------------------------------


def payload_of(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """Random bytes without a zero nibble, two of every four kept."""
    rng = np.random.default_rng(seed)
    codes = rng.choice([c for c in range(256) if c & 0x77], (rows, columns // 8, 4)).astype(np.uint8)
    lost = np.argsort(rng.random(codes.shape), axis=-1)[..., :2]
    np.put_along_axis(codes, lost, 0, axis=-1)
    return codes.reshape(rows, columns // 2)


def cutlass(group: list[int]) -> tuple[list[int], int]:
    """`sm90_sparse_gemm_compressor.hpp`, structure_sparse_compress, for one chunk of four bytes."""
    count, places, kept = 0, [0, 0], [0, 0]
    for place, byte in enumerate(group):
        if byte & 0x77:
            places[count], kept[count] = place, byte
            count += 1
    if count == 1 and places[0] == 3:
        kept, places = [0, kept[0]], [0, 3]
    elif count == 1:
        kept[1], places[1] = 0, 3
    return kept, places[0] | places[1] << 2


@pytest.mark.parametrize("kept", [k for n in range(3) for k in itertools.combinations(range(4), n)])
def test_a_group_is_compressed_as_cutlass_does(kept: tuple[int, ...]) -> None:
    group = [0x21 + place if place in kept else 0 for place in range(4)]
    bytes_, metadata = sparse.compress(np.array([group], np.uint8))
    wanted, code = cutlass(group)
    assert bytes_[0, :2].tolist() == wanted
    assert metadata.reshape(-1).tolist()[:2] == [code, 0]


def test_the_metadata_of_torch_say_the_same() -> None:
    """torch's 2:4 of int8 keeps whole bytes too; its metadata are the same, in another instruction's order."""
    payload = payload_of(64, 256)
    dense = torch.from_numpy(payload.view(np.int8).copy())
    kept, shuffled = sparse_semi_structured_from_dense_cutlass(dense)
    mine, metadata = sparse.compress(payload)
    assert torch.equal(kept, torch.from_numpy(mine.view(np.int8)))
    offsets = _calculate_meta_reordering_scatter_offsets(64, shuffled.shape[1], shuffled.dtype, "cpu")
    ordered = shuffled.view(-1).gather(0, offsets.view(-1).long()).numpy().view("<u4").view(np.uint8)
    assert np.array_equal(ordered.reshape(64, -1), metadata[0])


def test_metadata_lie_in_atoms_of_128_rows_and_256_columns() -> None:
    """The byte of each group by CUTLASS's own strides: atoms first along rows, then along columns."""
    rows, columns = 130, 320
    payload = payload_of(rows, columns)
    kept, metadata = sparse.compress(payload)
    whole = np.zeros(sparse.metadata_shape(rows, columns), np.uint8)
    whole[:, :rows] = metadata
    assert (kept.shape, whole.shape) == ((130, 80), (2, 256, 16))
    flat, high = whole.reshape(-1), 256  # rows, rounded up
    for row, group in [(0, 0), (0, 1), (1, 0), (5, 31), (5, 32), (127, 39), (128, 3), (129, 38)]:
        column = 8 * group
        offset = (row // 128) * 128 * 256 + (row % 128) * 256 + (column // 256) * high * 256 + column % 256
        stored = flat[offset // 16] >> (4 * (group % 2)) & 15
        _, wanted = cutlass(payload[row, 4 * group : 4 * group + 4].tolist())
        assert stored == wanted, (row, group)
    assert not flat[(128 * 256 + 2 * 256) // 16 : 256 * 256 // 16].any()


@given(st.integers(1, 5), st.integers(1, 40), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3, 1.0]))
def test_there_and_back(rows: int, groups: int, seed: int, flushed: float) -> None:
    payload = payload_of(rows, 8 * groups, seed)
    payload[np.random.default_rng(seed).random(payload.shape) < flushed] = 0
    kept, metadata = sparse.compress(payload)
    assert np.array_equal(sparse.expand(kept, metadata, 8 * groups), payload)


def test_negative_zeros_stay_where_there_is_room() -> None:
    payload = np.array([[0x88, 0x31, 0, 0, 0, 0, 0x80, 0, 0x08, 0, 0, 0x88]], np.uint8)
    kept, metadata = sparse.compress(payload)
    assert np.array_equal(sparse.expand(kept, metadata, 24), payload)


def test_a_negative_zero_too_many_is_refused_by_name() -> None:
    payload = np.array([[0, 0, 0, 0], [1, 2, 0x80, 0]], np.uint8)
    with pytest.raises(TensorError, match=r"1 of 2 groups of eight hold a negative zero .* row 101, weights 0 to 7"):
        sparse.compress(payload, first_row=100)


def test_what_is_not_pruned_is_refused() -> None:
    payload = np.array([[0, 0, 0, 0, 1, 2, 3, 0], [1, 1, 1, 1, 1, 2, 0x80, 0]], np.uint8)
    with pytest.raises(TensorError, match=r"2 of 4 groups of eight keep more .* row 0, weights 8 to 15"):
        sparse.compress(payload)


@pytest.mark.parametrize("change", ["order", "empty", "padding", "columns"])
def test_damaged_metadata_are_refused(change: str) -> None:
    kept, metadata = sparse.compress(payload_of(2, 80))
    if change == "order":
        metadata[0, 1, 0] = 0b0001  # place 1, then place 0
    elif change == "empty":
        metadata[0, 1, 0] &= 0xF0  # two zero bytes, it says, and there are two that are not
    elif change == "padding":
        kept[1, -1] = 1
    else:
        metadata[0, 1, -1] = 4
    with pytest.raises(TensorError, match="metadata or padding"):
        sparse.expand(kept, metadata, 80)


def test_a_pruned_weight_quantizes_to_what_can_be_stored() -> None:
    weights = np.random.default_rng(1).standard_normal((16, 128)).astype(np.float32)
    weights[3] = 0
    made = nvfp4.quantize(sparse.pruned(weights))
    kept, metadata = sparse.compress(made.payload)
    assert kept.size == made.payload.size // 2
    assert np.array_equal(sparse.expand(kept, metadata, 128), made.payload)
