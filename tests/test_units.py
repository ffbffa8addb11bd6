"""Sizes and times as people read them, worked out by hand."""

from __future__ import annotations

import pytest

from publisher.units import format_bytes, format_count, format_duration


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (269_060_000, "269 MB"),
        (99_950_000, "100 MB"),
        (9_995_000, "10.0 MB"),
        (999_499_999, "999 MB"),
        (999_600_000, "1.00 GB"),
        (594_000_000_000, "594 GB"),
        (1_020_000_000_000, "1.02 TB"),
        (5 * 10**18, "5000 PB"),
    ],
)
def test_sizes_as_people_read_them(size: int, text: str) -> None:
    assert format_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s"), (0.4, "0 s"), (59.6, "1 min 00 s"), (190, "3 min 10 s"), (7500, "2 h 05 min")],
)
def test_times_as_people_say_them(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1 k"),
        (272_000_000, "272 M"),
        (30_500_000_000, "30.5 B"),
        (1_040_000_000_000, "1.04 T"),
    ],
)
def test_counts(number: int, text: str) -> None:
    assert format_count(number) == text
