"""One window by itself: sixteen losses as the reference has them, and near ones within what the bounds allow."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba", reason="numba, the extra `fast`, is not installed")

from publisher.formats import sweep
from publisher.native.kernels import search, windows
from publisher.native.kernels.machine import machine_code


@machine_code
def exact(magnitudes, steps, first, losses):
    windows.exact_window(magnitudes, steps, first, losses)


@machine_code
def near(magnitudes, reciprocals, squares, penalties, first, margin, out):
    return windows.near_window(magnitudes, reciprocals, squares, penalties, first, margin, out)


def test_a_windows_losses() -> None:
    random = np.random.default_rng(0)
    for scale in (1e-3, 1.0, 3e4):
        magnitudes = np.abs(random.standard_normal(16) * scale).astype(np.float32)
        largest = magnitudes.max() * np.float32(1.3)
        found, length = search.candidates(float(largest)), np.linalg.norm(magnitudes.astype(np.float64))
        expected = sweep.losses(magnitudes[None], sweep.candidate_steps(largest))[0, 0]
        for first in (1, 40, 97, 111):
            margin = np.float32(1e-6 * length)
            losses, nearly = np.empty(16, np.float32), np.full(200, np.nan, np.float32)
            exact(magnitudes, found.steps, first, losses)
            assert np.array_equal(losses, expected[first - 1 : first + 15])
            within = near(magnitudes, found.reciprocals, found.squares, found.penalties, first, margin, nearly)
            roots = np.sqrt(nearly[first : first + 16].astype(np.float64))
            assert np.abs(roots - np.sqrt(losses.astype(np.float64))).max() <= 32 * 2.0**-24 * length
            assert within & 1 << int(roots.argmin())
    assert np.isinf(search.candidates(1.0).penalties[127:143]).all()
