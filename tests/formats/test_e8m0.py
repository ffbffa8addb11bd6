"""E8M0 codes against ml_dtypes, exact arithmetic, and codes measured on the producers."""

from __future__ import annotations

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.formats import TensorError, e8m0

MEASURED = {  # amax: (even: Quark 0.11.2 and 0.13, compressed-tensors 0.20; ceil6: modelopt 0.47)
    6.0: (127, 127), 6.5: (127, 128), 7.0: (128, 128), 4.0: (127, 127), 3.5: (127, 127), 3.49: (126, 127),
    3.0: (126, 126), 1.75: (126, 126), 1.0: (125, 125), 0.0: (0, 0),
}  # fmt: skip


def one(amax: float, mode: e8m0.Mode) -> int:
    return int(e8m0.encode(np.array([amax], np.float32), mode)[0])


def exact(amax: float, mode: e8m0.Mode) -> int:
    """The definitions in rational arithmetic, no logarithm and no bit pattern."""
    a = Fraction(amax)
    if mode == "ceil6":
        exponent = floor_log2(a / 6)
        return max(exponent + (Fraction(2) ** exponent < a / 6) + 127, 0)
    exponent = floor_log2(a)
    power = Fraction(2) ** exponent
    if (mode == "even" and a >= power * Fraction(7, 4)) or (mode == "ceil" and a > power):
        exponent += 1
    return max(exponent - 2 + 127, 0)


def floor_log2(value: Fraction) -> int:
    exponent = 0
    while Fraction(2) ** exponent > value:
        exponent -= 1
    while Fraction(2) ** (exponent + 1) <= value:
        exponent += 1
    return exponent


def test_every_code_decodes_as_ml_dtypes_does() -> None:
    codes = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(e8m0.decode(codes), codes.view(ml_dtypes.float8_e8m0fnu).astype(np.float32))
    assert e8m0.decode(codes)[0] == np.float32(2.0**-127)


@pytest.mark.parametrize("amax", MEASURED)
def test_measured_codes(amax: float) -> None:
    assert (one(amax, "even"), one(amax, "ceil6")) == MEASURED[amax]


@pytest.mark.parametrize("mode", e8m0.MODES)
def test_every_power_of_two_and_its_mantissa_edges(mode: e8m0.Mode) -> None:
    for exponent in range(-126, 128):
        for mantissa in (1.0, 1 + 2**-7, 1.25, 1.5, 1.5 + 2**-7, 1.75 - 2**-7, 1.75, 2 - 2**-7):  # BF16 values
            amax = float(np.float32(math.ldexp(mantissa, exponent)))
            assert one(amax, mode) == exact(amax, mode), (mantissa, exponent)


@given(st.floats(2.0**-100, 2.0**100, width=32), st.sampled_from(["even", "floor", "ceil"]))
def test_bitwise_modes_are_exact_for_any_float32(amax: float, mode: e8m0.Mode) -> None:
    assert one(amax, mode) == exact(amax, mode)


@given(st.floats(2.0**-100, 2.0**100, width=32))
def test_the_largest_element_stays_where_the_mode_promises(amax: float) -> None:
    ratios = {mode: amax / float(e8m0.decode(np.array([one(amax, mode)], np.uint8))[0]) for mode in e8m0.MODES}
    assert 3.5 <= ratios["even"] < 7
    assert 4 <= ratios["floor"] < 8
    assert 2 < ratios["ceil"] <= 4
    assert 3 * (1 - 1e-5) < ratios["ceil6"] <= 6 * (1 + 1e-5)


def test_ceil6_rounds_its_logarithm_to_float32() -> None:
    just_above = np.nextafter(np.float32(6 * 2.0**60), np.float32(np.inf))
    assert one(float(just_above), "ceil6") == 187  # exact arithmetic says 188


def test_clamps_and_zero_codes() -> None:
    amax = np.array([0, 2.0**-149, 2.0**-126, 3.4e38], np.float32)
    assert e8m0.encode(amax, "even").tolist() == [0, 0, 0, 253]
    assert e8m0.encode(amax, "floor", lowest=1, zero=104).tolist() == [104, 1, 1, 252]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_a_maximum_that_is_none_is_refused(bad: float) -> None:
    with pytest.raises(TensorError, match="1 of 2 block maxima"):
        e8m0.encode(np.array([1, bad], np.float32), "even")


def test_an_unknown_mode_is_refused_with_the_known_ones() -> None:
    with pytest.raises(TensorError, match="even, floor, ceil, ceil6"):
        e8m0.encode(np.ones(1, np.float32), "nearest")  # type: ignore[arg-type]
