"""Of two steps the one with the smaller loss, block by block, as numpy finds it; the first where both are equal."""

from __future__ import annotations

import numpy as np
import pytest

from publisher.formats import fouroversix
from publisher.native import kernels

if not kernels.accelerated():
    pytest.skip("numba, the extra `fast`, is not installed", allow_module_level=True)

from publisher.native.kernels import alternatives


def test_the_smaller_loss_wins_and_a_tie_goes_to_the_first() -> None:
    rng = np.random.default_rng(2)
    rows = rng.standard_normal((1, 64 * 16)).astype(np.float32)
    rows[0, :16] = 0  # any step does
    steps = rng.random((64, 2)).astype(np.float32)
    steps[1] = steps[1, 0]
    steps[2, 0] = 0
    codes = np.stack([np.full(64, 1), np.full(64, 2)], axis=1).astype(np.uint8)
    out = np.zeros(64, np.uint8)
    alternatives.better_codes(rows.reshape(-1), np.arange(64, dtype=np.uint16), codes, steps, out)
    losses = fouroversix.losses(rows, steps[None])[0]
    assert np.array_equal(out, np.where(losses[:, 1] < losses[:, 0], 2, 1))
    assert out[:2].tolist() == [1, 1]
    assert set(out.tolist()) == {1, 2}
    turned = np.zeros(64, np.uint8)
    rows_of = np.arange(64, dtype=np.uint16)[::-1].copy()
    alternatives.better_codes(rows.reshape(-1), rows_of, codes[::-1], steps[::-1], turned)
    assert np.array_equal(turned, out), "blocks find their own row of the tables"
