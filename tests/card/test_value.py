"""Numbers as people read them."""

from __future__ import annotations

import pytest

from publisher.card import value


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (86_208, "86.21 K"), (134_515_008, "134.5 M"), (1_026_000_000_000, "1.026 T")],
)
def test_large_numbers_have_four_digits(number: int, text: str) -> None:
    assert value.large(number) == text


def test_sizes_have_both_units() -> None:
    assert value.size(590_600_000_000) == "590.6 GB (550.0 GiB)"
    assert value.size(512) == "512 bytes"


def test_shapes() -> None:
    assert value.shape((576, 1536)) == "576 × 1,536"
    assert value.shape(()) == "scalar"
