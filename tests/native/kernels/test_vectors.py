"""The vector code by itself: largest bits of runs, at the edges of their types."""

from __future__ import annotations

import numpy as np
import pytest

numba = pytest.importorskip("numba", reason="numba, the extra `fast`, is not installed")


@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.float32])
def test_the_largest_bits_of_every_sixteen(kind: type) -> None:
    from publisher.native.kernels import compiled

    width = np.dtype(kind).itemsize
    bits = np.random.default_rng(0).integers(0, 256, (33, 64 * width), np.uint8).view(f"<u{width}")
    bits[0, :3] = (1 << (8 * width - 1)) - 1, 0, 1 << (8 * width - 1)  # largest NaN, zero, minus zero
    bits[1] = 1 << (8 * width - 1)
    magnitudes = bits & ((1 << (8 * width - 1)) - 1)
    for block in (16, 32):
        found = np.empty((33, 64 // block), kind)
        compiled.block_amax(bits.view(kind), block, found)
        assert np.array_equal(found.view(bits.dtype), magnitudes.reshape(33, -1, block).max(axis=2))
