"""Stored floats against ml_dtypes and torch."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from publisher.formats import TensorError, floats

ALL_16_BITS = np.arange(1 << 16, dtype="<u2")


@pytest.mark.parametrize(("dtype", "theirs"), [("BF16", ml_dtypes.bfloat16), ("F16", np.float16)])
def test_every_sixteen_bit_pattern_decodes(dtype: str, theirs: type) -> None:
    ours = floats.decode(ALL_16_BITS.tobytes(), dtype, (256, 256))
    np.testing.assert_array_equal(ours, ALL_16_BITS.view(theirs).astype(np.float32).reshape(256, 256))
    assert ours.dtype == np.float32


def test_float32_is_a_view_of_the_bytes() -> None:
    raw = np.array([1.5, -0.0], "<f4").tobytes()
    ours = floats.decode(memoryview(raw), "F32", (1, 2))
    assert ours.tobytes() == raw
    assert not ours.flags.writeable


def test_every_bf16_pattern_but_nan_payloads_comes_back() -> None:
    values = floats.decode(ALL_16_BITS.tobytes(), "BF16", (1 << 16,))
    number = ~np.isnan(values)
    np.testing.assert_array_equal(floats.to_bf16_bits(values)[number], ALL_16_BITS[number])
    assert set(floats.to_bf16_bits(values)[~number].tolist()) == {0x7FC0, 0xFFC0}


@given(hnp.arrays(np.uint32, 64))
def test_rounding_to_bf16_is_that_of_ml_dtypes(bits: np.ndarray) -> None:
    values = bits.view(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        theirs = values.astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(floats.round_to_bf16(values), theirs.astype(np.float32))
    number = ~np.isnan(values)
    assert np.frombuffer(floats.encode_bf16(values), "<u2")[number].tobytes() == theirs.view("<u2")[number].tobytes()


@given(st.binary(max_size=16), st.sampled_from(["BF16", "F16", "F32"]))
def test_a_wrong_byte_count_is_refused(raw: bytes, dtype: str) -> None:
    needed = 4 * (4 if dtype == "F32" else 2)
    if len(raw) == needed:
        return
    with pytest.raises(TensorError, match=f"{len(raw)} bytes cannot be {dtype}"):
        floats.decode(raw, dtype, (2, 2))


def test_other_dtypes_are_refused_by_name() -> None:
    with pytest.raises(TensorError, match=r"F8_E4M3.*BF16, F16, F32"):
        floats.decode(b"\0", "F8_E4M3", (1,))


def test_rounding_in_place_gives_the_bits_of_encoding() -> None:
    """Every upper half of a float32 with lower halves around the tie, NaN of both signs among them."""
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    values = (upper[:, None] + np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)).view(np.float32)
    bits = floats.round_to_bf16(values).view(np.uint32)
    assert np.array_equal(bits >> 16, floats.to_bf16_bits(values))
    assert not (bits & 0xFFFF).any()
