"""Printed figures and what their rounding allows, against Python's own rounding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.claims.figures import Interval, figure, interval


@given(st.floats(0, 1e6, allow_nan=False), st.integers(0, 4))
def test_a_value_lies_in_the_interval_of_its_own_rounding(value: float, decimals: int) -> None:
    assert value in interval(f"{value:.{decimals}f}")


@given(st.floats(0, 100), st.floats(0, 100), st.integers(1, 3))
def test_a_rounded_difference_of_rounded_figures_is_never_wrong(a: float, b: float, decimals: int) -> None:
    mine, theirs = interval(f"{a:.{decimals}f}"), interval(f"{b:.{decimals}f}")
    printed = figure(f"{a - b:+.{decimals}f}")
    assert printed is not None
    assert printed.value.meets(mine - theirs)


@pytest.mark.parametrize(
    ("number", "about", "inside", "outside"),
    [
        ("590", False, 590.4, 591),
        ("590", True, 594, 597),
        ("1", True, 1.04, 1.6),
        ("69,120", False, 69120, 69121),
        ("95.76", False, 95.7581, 95.77),
        ("551", True, 556, 558),
    ],
)
def test_what_a_printed_number_may_stand_for(number: str, about: bool, inside: float, outside: float) -> None:
    assert inside in interval(number, about=about)
    assert outside not in interval(number, about=about)


@pytest.mark.parametrize(
    ("cell", "value", "unit", "spread"),
    [
        ("91.36% ± 0.77", 91.36, "%", 0.77),
        ("0.9355 ± 0.0049", 0.9355, "", 0.0049),
        ("\u22120.15 pp", -0.15, "pp", None),
        ("+1.06 points", 1.06, "pp", None),
        ("1,234", 1234, "", None),
    ],
)
def test_cells_with_a_figure(cell: str, value: float, unit: str, spread: float | None) -> None:
    found = figure(cell)
    assert found is not None
    assert value in found.value
    assert found.unit == unit
    assert (found.spread is None) == (spread is None)
    assert spread is None or (found.spread is not None and spread in found.spread)


@pytest.mark.parametrize("cell", ["", "acc, 5-shot", "0\u201329", "c71d239d", "12 of 30", "FP8", "1 \u00d7 2", "7B"])
def test_cells_without_one(cell: str) -> None:
    assert figure(cell) is None


def test_a_quotient_by_what_may_be_zero_is_none() -> None:
    assert Interval(1, 2).over(Interval(0, 1)) is None
    assert Interval(-3, 1).size == Interval(0, 3)
