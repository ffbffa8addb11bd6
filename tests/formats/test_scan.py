"""One pass over codes says what numpy says of them."""

from __future__ import annotations

import numpy as np
import pytest

from publisher.formats import scan


@pytest.mark.parametrize("size", [1, 7, 65_535, 65_536, 200_001])
def test_extremes_and_counts(size: int) -> None:
    codes = np.random.default_rng(size).integers(3, 250, size, np.uint8)
    assert scan.extremes(codes) == (codes.min(), codes.max())
    assert scan.histogram(codes).tolist() == np.bincount(codes, minlength=256).tolist()
