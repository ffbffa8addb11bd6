"""A batch settles a block only when its winner is the full sweep's, and leaves alone what its bounds do not reach."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba", reason="numba, the extra `fast`, is not installed")

from publisher.formats import nvfp4, sweep
from publisher.native.kernels import batches, search
from publisher.native.kernels.machine import machine_code
from tests.native.kernels.test_search import KINDS, blocks


@machine_code
def settle(weights, batch, peaks, steps, codes, lowest, margin):
    return batches.settle(weights, batch, peaks, steps, codes, lowest, margin)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:overflow")
def test_what_is_settled_is_right_and_what_is_not_is_left_as_it_was(kind: str) -> None:
    values = blocks(kind, np.random.default_rng(8)).astype(np.float32)[:512]
    peaks = np.abs(values).max(axis=1)
    largest = np.float32(min(float(peaks.max()), 3e38))
    found = search.candidates(float(largest))
    begun = nvfp4.block_scale_codes(peaks.copy(), nvfp4.global_scale(largest))
    codes, settled = begun.copy(), np.zeros(len(begun), bool)
    for batch in range(len(values) // batches.BATCH):
        left = settle(values.reshape(-1), batch, peaks, found.grid, codes, found.lowest, search._MARGIN)
        settled[batch * 16 : batch * 16 + 16] = [not left >> lane & 1 for lane in range(16)]
    expected = sweep.block_scale_codes(values, largest)[:, 0]
    assert np.array_equal(codes[settled], expected[settled])
    assert np.array_equal(codes[~settled], begun[~settled])
    if kind == "normal":
        assert settled.mean() > 0.95
    if kind == "beyond the bounds":
        assert settled.mean() < 0.5


def test_a_peak_of_zero_or_below_the_lowest_is_never_settled() -> None:
    values = np.zeros((16, 16), np.float32)
    values[8:] = 1e-3
    peaks = np.abs(values).max(axis=1)
    found = search.candidates(1.0)
    codes = np.full(16, 100, np.uint8)
    assert settle(values.reshape(-1), 0, peaks, found.grid, codes, np.float32(1.0), search._MARGIN) == 0xFFFF
    assert (codes == 100).all()
