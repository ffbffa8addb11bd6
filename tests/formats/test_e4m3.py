"""E4M3 against ml_dtypes and torch, for all 256 codes, every tie and the overflow that casts disagree about."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from publisher.formats import TensorError, e4m3

CODES = np.arange(256, dtype=np.uint8)


def test_every_code_decodes_as_ml_dtypes_does() -> None:
    theirs = CODES.view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    ours = e4m3.decode(CODES)
    np.testing.assert_array_equal(ours, theirs)  # NaN equals NaN here
    np.testing.assert_array_equal(np.signbit(ours), np.signbit(theirs))
    assert np.isnan(ours).nonzero()[0].tolist() == [0x7F, 0xFF]


def test_every_code_decodes_as_torch_does() -> None:
    torch = pytest.importorskip("torch", reason="torch is an extra; install publisher with [native]")
    theirs = torch.from_numpy(CODES).view(torch.float8_e4m3fn).float().numpy()
    np.testing.assert_array_equal(e4m3.decode(CODES), theirs)


def test_every_code_encodes_back() -> None:
    np.testing.assert_array_equal(e4m3.encode(e4m3.decode(CODES), nan="code"), CODES)


def middles() -> np.ndarray:
    finite = e4m3.decode(np.arange(0x7F, dtype=np.uint8))
    middle = (finite[:-1] + finite[1:]) / np.float32(2)
    around = [middle, np.nextafter(middle, np.float32(np.inf)), np.nextafter(middle, np.float32(0))]
    return np.concatenate([sign * part for part in around for sign in (np.float32(1), np.float32(-1))])


def test_every_tie_and_its_neighbours_as_ml_dtypes() -> None:
    values = middles()
    np.testing.assert_array_equal(e4m3.encode(values), values.astype(ml_dtypes.float8_e4m3fn).view(np.uint8))


def test_every_tie_and_its_neighbours_as_torch() -> None:
    torch = pytest.importorskip("torch", reason="torch is an extra; install publisher with [native]")
    values = middles()
    theirs = torch.from_numpy(values).to(torch.float8_e4m3fn).view(torch.uint8).numpy()
    np.testing.assert_array_equal(e4m3.encode(values), theirs)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (2.0**-10, 0x00), (2.0**-9, 0x01), (1.5 * 2.0**-9, 0x02), (2.0**-6, 0x08), (0.0625, 0x18), (0.125, 0x20),
        (1, 0x38), (17, 0x58), (18, 0x59), (19, 0x5A), (432, 0x7E), (440, 0x7E), (448, 0x7E), (464, 0x7E), (480, 0x7E),
        (1e30, 0x7E), (np.inf, 0x7E), (-np.inf, 0xFE), (-0.0, 0x80), (-1, 0xB8),
    ],
)  # fmt: skip
def test_golden_codes(value: float, code: int) -> None:
    assert e4m3.encode(np.array([value], np.float32)).tolist() == [code]


def test_nan_is_refused_or_written_as_asked() -> None:
    values = np.array([1, np.nan, -np.nan], np.float32)
    values[1], values[2] = np.copysign(np.nan, 1), np.copysign(np.nan, -1)
    with pytest.raises(TensorError, match="2 of 3 scales are NaN"):
        e4m3.encode(values)
    assert e4m3.encode(values, nan="code").tolist() == [0x38, 0x7F, 0xFF]


@given(hnp.arrays(np.float32, 64, elements=st.floats(-448, 448, width=32)))
def test_any_float_in_range_rounds_as_ml_dtypes_rounds(values: np.ndarray) -> None:
    np.testing.assert_array_equal(e4m3.encode(values), values.astype(ml_dtypes.float8_e4m3fn).view(np.uint8))


@given(st.floats(2.0**-6, 448, width=32))
def test_a_normal_scale_errs_by_at_most_a_sixteenth(value: float) -> None:
    decoded = float(e4m3.decode(e4m3.encode(np.array([value], np.float32)))[0])
    assert abs(decoded - value) <= value / 16
