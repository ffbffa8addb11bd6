"""Checks, runs of rows and maxima."""

from __future__ import annotations

import numpy as np
import pytest

from publisher.errors import CheckpointError
from publisher.formats import blocks


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (np.zeros((2, 24), np.float32), "24 is not divisible by the block length 16"),
        (np.zeros((2, 16), np.float64), "float64, not float32"),
        (np.zeros((2, 16), np.uint16), "uint16, not float32"),
        (np.zeros(16, np.float32), r"shape \(16,\)"),
        (np.zeros((2, 2, 16), np.float32), r"shape \(2, 2, 16\)"),
        (np.zeros((0, 16), np.float32), r"shape \(0, 16\)"),
        (np.zeros((2, 0), np.float32), r"shape \(2, 0\)"),
    ],
)
def test_what_cannot_be_blocked_is_refused_by_number(weights: np.ndarray, said: str) -> None:
    with pytest.raises(blocks.TensorError, match=said) as caught:
        blocks.require_weights(weights, 16)
    assert isinstance(caught.value, CheckpointError)
    assert isinstance(caught.value, ValueError)
    assert caught.value.hint


def test_bytes_must_be_a_uint8_matrix_of_the_right_shape() -> None:
    with pytest.raises(blocks.TensorError, match="scale is int8"):
        blocks.require_bytes("scale", np.zeros((1, 1), np.int8))
    with pytest.raises(blocks.TensorError, match=r"\(2, 3\).*must be \(2, 2\)"):
        blocks.require_bytes("scale", np.zeros((2, 3), np.uint8), (2, 2))


@pytest.mark.parametrize(("rows", "columns"), [(1, 16), (5, 1 << 20), (4097, 64), (3, 0)])
def test_runs_cover_every_row_once_and_stay_small(rows: int, columns: int) -> None:
    runs = list(blocks.row_runs(rows, columns))
    assert [row for run in runs for row in range(run.start, run.stop)] == list(range(rows))
    assert all((run.stop - run.start) * columns <= max(blocks.CHUNK_ELEMENTS, columns) for run in runs)


def test_maxima() -> None:
    weights = np.array([[0, -3, 1, 2], [-0.0, -0.0, 0, -0.0]], np.float32)
    assert blocks.amax(weights) == 3
    maxima = blocks.block_amax(weights, 2)
    assert maxima.tolist() == [[3, 2], [0, 0]]
    assert not np.signbit(maxima).any()
    assert not np.signbit(blocks.amax(-np.zeros((1, 2), np.float32)))
    assert np.isnan(blocks.amax(np.array([[1, np.nan]], np.float32)))


def test_a_fused_group_shares_its_largest_maximum() -> None:
    assert blocks.fused_amax([1.0, np.float32(2.5), 0.0]) == np.float32(2.5)
    with pytest.raises(blocks.TensorError, match="without members"):
        blocks.fused_amax([])
    with pytest.raises(blocks.TensorError, match="nan"):
        blocks.fused_amax([1.0, float("nan")])


def test_nonfinite_weights_are_counted_and_placed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "CHUNK_ELEMENTS", 32)  # several runs
    weights = np.zeros((6, 16), np.float32)
    weights[3, 5], weights[4, 0], weights[5, 15] = np.inf, np.nan, -np.inf
    with pytest.raises(blocks.TensorError, match=r"1 of 96 weights are NaN and 2 infinite, the first at \[3, 5\]"):
        blocks.require_finite(weights, blocks.amax(weights))
