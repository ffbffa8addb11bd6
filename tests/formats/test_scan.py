"""One pass over codes says what ml_dtypes and plain numpy say of them, with and without numba."""

from __future__ import annotations

import importlib.util

import ml_dtypes
import numpy as np
import pytest

from publisher.formats import scan
from publisher.formats.blocks import TensorError

DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
}
FAST = [False, True] if importlib.util.find_spec("numba") else [False]


@pytest.mark.parametrize("size", [1, 7, 65_535, 65_536, 200_001])
def test_extremes_and_counts(size: int) -> None:
    codes = np.random.default_rng(size).integers(3, 250, size, np.uint8)
    assert scan.extremes(codes) == (codes.min(), codes.max())
    assert scan.histogram(codes).tolist() == np.bincount(codes, minlength=256).tolist()


def test_numba_is_found_where_it_is_installed() -> None:
    assert scan.accelerated() == (len(FAST) == 2)


def blocks(width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Payload (n, width) with blocks of every peak, zeros of both signs among them, and scales (n,)."""
    rng = np.random.default_rng(seed)
    limit = rng.integers(0, 8, 3000)
    magnitudes = rng.integers(0, 8, (3000, width * 2)) % (limit + 1)[:, None]
    codes = (magnitudes | rng.integers(0, 2, magnitudes.shape) << 3).astype(np.uint8)
    return codes[:, ::2] | codes[:, 1::2] << 4, rng.integers(0, 256, 3000, np.uint8)


@pytest.mark.parametrize("fast", FAST)
@pytest.mark.parametrize("width", [8, 16], ids=["nvfp4", "mxfp4"])
def test_packed_blocks_are_counted_as_their_unpacked_codes(width: int, fast: bool) -> None:
    payload, scales = blocks(width)
    unpacked = np.stack([payload & 15, payload >> 4], axis=2).reshape(len(payload), -1)
    peaks = (unpacked & 7).max(axis=1)
    expected = np.zeros((256, 8), np.int64)
    np.add.at(expected, (scales, peaks), 1)
    counts = scan.BlockCounts()
    for part in (slice(0, 1), slice(1, 1500), slice(1500, 3000)):
        counts.add(payload[part].ravel(), scales[part], fast=fast)
    assert counts.peaks.tolist() == expected.tolist()
    assert counts.bytes.tolist() == np.bincount(payload.ravel(), minlength=256).tolist()
    assert counts.codes.tolist() == np.bincount(unpacked.ravel(), minlength=16).tolist()
    assert scan.block_peaks(payload.ravel(), len(payload)).tolist() == peaks.tolist()


def test_bytes_that_begin_anywhere_are_counted() -> None:
    payload, scales = blocks(8)
    shifted = np.concatenate([np.zeros(3, np.uint8), payload.ravel()])[3:]
    counts = scan.BlockCounts()
    counts.add(shifted, scales)
    assert counts.bytes.sum() == payload.size


@pytest.mark.parametrize(("size", "count"), [(0, 0), (8, 0), (12, 1), (24, 2), (0, 3)])
def test_payloads_that_are_no_blocks_are_refused(size: int, count: int) -> None:
    with pytest.raises(TensorError, match="no blocks"):
        scan.BlockCounts().add(np.zeros(size, np.uint8), np.zeros(count, np.uint8))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_pattern_is_finite_or_not_as_ml_dtypes_says(dtype: str) -> None:
    kind = np.dtype(DTYPES[dtype])
    rng = np.random.default_rng(0)
    if kind.itemsize <= 2:
        patterns = np.arange(1 << (8 * kind.itemsize), dtype=f"u{kind.itemsize}")
    else:
        edges = np.array([0, np.inf, -np.inf, np.nan, -np.nan, np.finfo(kind).max, np.finfo(kind).min], kind)
        patterns = np.concatenate(
            [edges.view(f"u{kind.itemsize}"), rng.integers(0, 1 << 31, 2000, f"u{kind.itemsize}")]
        )
    with np.errstate(invalid="ignore"):
        expected = ~np.isfinite(patterns.view(kind).astype(np.float64))
    assert scan.nonfinite(patterns.view(np.uint8), dtype).tolist() == np.flatnonzero(expected).tolist()
    for pattern, bad in zip(patterns, expected, strict=True):
        raw = np.array([patterns[0], pattern]).view(np.uint8)
        assert scan.has_nonfinite(raw, dtype) == bool(bad)


def test_nothing_is_finite() -> None:
    assert not scan.has_nonfinite(np.empty(0, np.uint8), "BF16")
