"""The machine code of pruning against the numpy reference, bit by bit, whatever kind the weights are of."""

from __future__ import annotations

import numpy as np
import pytest

from publisher.formats import sparse
from publisher.native import kernels

if not kernels.accelerated():
    pytest.skip("numba, the extra `fast`, is not installed", allow_module_level=True)

from publisher.native.kernels import pairs


def values(kind: str) -> np.ndarray:
    rng = np.random.default_rng(6)
    rows = rng.standard_normal((64, 48)).astype(np.float32)
    if kind == "ties":
        rows = rng.integers(-2, 3, rows.shape).astype(np.float32)
    elif kind == "signs":
        rows = np.where(rng.random(rows.shape) < 0.5, np.float32(-0.0), np.float32(-1))
    elif kind == "extremes":
        rows *= np.float32(10) ** rng.integers(-38, 30, (64, 1)).astype(np.float32)
    return rows


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["normal", "ties", "signs", "extremes"])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_bits_are_those_of_the_reference(dtype: str, kind: str, weighted: bool) -> None:
    rows = values(kind)
    if dtype == "F16":
        bits = np.clip(rows, -6e4, 6e4).astype(np.float16).view(np.int16).copy()
        rows = bits.view(np.float16).astype(np.float32)
    elif dtype == "BF16":
        bits = (rows.view(np.uint32) >> 16).astype(np.uint16)
        rows = (bits.astype(np.uint32) << 16).view(np.float32)
    else:
        bits = rows.copy()
    before = bits.copy()
    factors = np.random.default_rng(2).integers(0, 3, 48).astype(np.float32) if weighted else None
    with np.errstate(over="ignore"):
        products = None if factors is None else (rows * factors).reshape(-1)
    lost = pairs.drop(bits.reshape(-1), products)
    kept = np.repeat(sparse.kept_pairs(sparse.pair_scores(rows, factors)).reshape(64, -1), 2, axis=1)
    assert np.array_equal(bits.view(np.uint8), np.where(kept, before, before.dtype.type(0)).view(np.uint8))
    dropped = np.where(kept, 0, rows.astype(np.float64))
    assert lost == pytest.approx(float((dropped**2).sum()), rel=1e-12)
