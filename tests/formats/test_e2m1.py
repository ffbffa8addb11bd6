"""E2M1 against ml_dtypes, for every code, every tie and both signs."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from publisher.formats import TensorError, e2m1

TIES = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0]
FLOATS = st.floats(width=32, allow_nan=False)


def reference_codes(values: np.ndarray) -> np.ndarray:
    """ml_dtypes' cast, which saturates only what rounds below 8; clip first."""
    return np.clip(values, -6, 6).astype(ml_dtypes.float4_e2m1fn).view(np.uint8) & 0xF


def test_every_code_decodes_as_ml_dtypes_does() -> None:
    codes = np.arange(16, dtype=np.uint8)
    theirs = codes.view(ml_dtypes.float4_e2m1fn).astype(np.float32)
    ours = e2m1.decode(codes)
    assert ours.tobytes() == theirs.tobytes()  # signed zeros included


def test_every_code_encodes_back() -> None:
    codes = np.arange(16, dtype=np.uint8)
    np.testing.assert_array_equal(e2m1.encode(e2m1.decode(codes), signs="sign-bit"), codes)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("step", [-1, 0, 1])
def test_every_tie_and_its_neighbours(sign: int, step: int) -> None:
    values = np.array(TIES, np.float32)
    if step:
        values = np.nextafter(values, np.float32(step * np.inf))
    values *= np.float32(sign)
    np.testing.assert_array_equal(e2m1.encode(values, signs="sign-bit"), reference_codes(values))


def test_ties_to_even_and_towards_zero() -> None:
    values = np.array(TIES, np.float32)
    assert e2m1.decode(e2m1.encode(values)).tolist() == [0, 1, 1, 2, 2, 4, 4]
    assert e2m1.decode(e2m1.encode(values, ties="down")).tolist() == [0, 0.5, 1, 1.5, 2, 3, 4]
    above = np.nextafter(values, np.float32(np.inf))
    assert e2m1.decode(e2m1.encode(above, ties="down")).tolist() == [0.5, 1, 1.5, 2, 3, 4, 6]


def test_saturation_and_nan() -> None:
    values = np.array([6, 7, 1e30, np.inf, -np.inf, np.nan], np.float32)
    assert e2m1.encode(values).tolist() == [7, 7, 7, 7, 15, 7]


@pytest.mark.parametrize(
    ("signs", "codes"),
    [
        ("negative", [0, 0, 0, 8, 9]),
        ("sign-bit", [0, 8, 0, 8, 9]),
        ("nonzero", [0, 0, 0, 0, 9]),
        ("not-positive", [8, 8, 0, 8, 9]),
    ],
)
def test_signs_of_zeros(signs: e2m1.Signs, codes: list[int]) -> None:
    values = np.array([0.0, -0.0, 1e-20, -1e-20, -0.5], np.float32)
    assert e2m1.encode(values, signs=signs).tolist() == codes


def test_the_even_element_is_the_low_nibble() -> None:
    assert e2m1.pack(np.array([[0x1, 0x2, 0xF, 0x0]], np.uint8)).tolist() == [[0x21, 0x0F]]
    assert e2m1.unpack(np.array([[0x21, 0x0F]], np.uint8)).tolist() == [[0x1, 0x2, 0xF, 0x0]]
    assert e2m1.decode_packed(np.array([0x21], np.uint8)).tolist() == [0.5, 1.0]


def test_all_bytes_unpack_pack_and_decode_alike() -> None:
    payload = np.arange(256, dtype=np.uint8).reshape(4, 64)
    np.testing.assert_array_equal(e2m1.pack(e2m1.unpack(payload)), payload)
    np.testing.assert_array_equal(e2m1.decode(e2m1.unpack(payload)), e2m1.decode_packed(payload))


def test_an_odd_number_of_codes_is_refused() -> None:
    with pytest.raises(TensorError, match="3 codes per row"):
        e2m1.pack(np.zeros((1, 3), np.uint8))


@given(hnp.arrays(np.float32, 64, elements=FLOATS))
def test_any_float_rounds_as_ml_dtypes_rounds(values: np.ndarray) -> None:
    np.testing.assert_array_equal(e2m1.encode(values, signs="sign-bit"), reference_codes(values))


@given(FLOATS, FLOATS)
def test_rounding_is_monotone(a: float, b: float) -> None:
    low, high = e2m1.decode(e2m1.encode(np.array(sorted([a, b]), np.float32)))
    assert low <= high
