"""Chunks: every row once, results in order, errors seen, modes passed on."""

from __future__ import annotations

import pytest
import torch

from publisher.native import threads


@pytest.mark.parametrize(("rows", "columns", "elements"), [(10, 7, 21), (1, 100, 10), (5, 3, 1), (4, 4, 1000)])
def test_chunks_hold_every_row_once(rows: int, columns: int, elements: int) -> None:
    chunks = threads.row_chunks(rows, columns, elements)
    assert [row for chunk in chunks for row in range(rows)[chunk]] == list(range(rows))
    assert all(chunk.stop - chunk.start == 1 or (chunk.stop - chunk.start) * columns <= elements for chunk in chunks)


def test_results_come_in_order() -> None:
    chunks = threads.row_chunks(100, 1, 1)
    assert threads.at_once(chunks, lambda rows: rows.start) == list(range(100))


def test_an_error_of_one_chunk_is_raised() -> None:
    def work(rows: slice) -> int:
        if rows.start == 7:
            raise ValueError("chunk seven")
        return rows.start

    with pytest.raises(ValueError, match="chunk seven"):
        threads.at_once(threads.row_chunks(20, 1, 1), work)


def test_threads_are_told_of_inference_mode() -> None:
    chunks = threads.row_chunks(4, 1, 1)
    with torch.inference_mode():
        assert all(threads.at_once(chunks, lambda rows: torch.is_inference_mode_enabled()))
    assert not any(threads.at_once(chunks, lambda rows: torch.is_inference_mode_enabled()))
