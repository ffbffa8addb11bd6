"""Which rows a sample takes, and sums that stay exact where float32 does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.subjects.sampled import RUNS, Sums, chunks, runs_of


@given(rows=st.integers(1, 5000), wanted=st.integers(1, 5000), count=st.integers(1, 8), name=st.text(max_size=30))
def test_runs_are_inside_apart_and_as_many_rows_as_wanted(rows: int, wanted: int, count: int, name: str) -> None:
    runs = runs_of(name, rows, wanted, count)
    assert sum(end - begin for begin, end in runs) <= min(rows, wanted)
    assert sum(end - begin for begin, end in runs) >= min(rows, wanted) - count
    flat = [edge for run in runs for edge in run]
    assert flat == sorted(flat)
    assert flat[0] >= 0
    assert flat[-1] <= rows
    assert all(begin < end for begin, end in runs)
    assert len(runs) <= max(count, 1)
    assert runs == runs_of(name, rows, wanted, count)


def test_two_names_take_two_samples() -> None:
    assert runs_of("a", 10_000, 16) != runs_of("b", 10_000, 16)
    assert len(runs_of("a", 10_000, 16)) == RUNS


@given(begin=st.integers(0, 100), size=st.integers(0, 300), columns=st.integers(1, 1 << 20))
def test_chunks_cover_the_rows_once(begin: int, size: int, columns: int) -> None:
    pieces = list(chunks(begin, begin + size, columns))
    assert [row for low, high in pieces for row in range(low, high)] == list(range(begin, begin + size))


@pytest.mark.parametrize("size", [1.0, 1e25, 1e-30])
def test_sums_are_those_of_float64(size: float) -> None:
    rng = np.random.default_rng(0)
    weights = (rng.normal(0, 1, (3, 64)) * size).astype(np.float32)
    values = (weights * 1.01).astype(np.float32)
    sums = Sums()
    for row in range(3):
        sums.add(weights[row : row + 1], values[row : row + 1].copy())
    exact, other = weights.astype(np.float64), values.astype(np.float64)
    assert sums.count == 192
    assert sums.norm == pytest.approx(float((exact**2).sum()), rel=1e-5)
    assert sums.own == pytest.approx(float((other**2).sum()), rel=1e-5)
    assert sums.product == pytest.approx(float((exact * other).sum()), rel=1e-5)
    assert sums.error == pytest.approx(float(((other - exact) ** 2).sum()), rel=1e-3)
    assert sums.amax == float(abs(weights).max())
