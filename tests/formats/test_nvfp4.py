"""NVFP4: golden bytes of the producers, what each does with odd tensors, and the laws of the format."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from publisher.formats import TensorError, blocks, e2m1, e4m3, floats, nvfp4

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "fp4-vectors.json").read_text())
MODELOPT = nvfp4.POLICIES["modelopt"]
WEIGHTS = hnp.arrays(np.float32, (3, 32), elements=st.floats(-1e4, 1e4, width=32))


def test_golden_ties() -> None:
    """A scale of 1 in both levels leaves the elements as they are."""
    golden = VECTORS["ties"]
    values = np.array([[float(value) for value in golden["values"]]], np.float32)
    payload, scales = nvfp4.encode_rows(values, np.float32(1), MODELOPT)
    assert scales.tobytes() == b"\x38"
    assert "".join(f"{code:x}" for code in e2m1.unpack(payload)[0]) == golden["modelopt_codes"]
    payload, _ = nvfp4.encode_rows(values, np.float32(1), nvfp4.POLICIES["compressed-tensors"])
    assert payload.tobytes().hex() == golden["compressed_tensors_packed"]


@pytest.mark.parametrize("name", ["modelopt", "compressed-tensors-bf16"])
def test_golden_zero_and_underflowing_blocks(name: str) -> None:
    golden = VECTORS["zero_and_tiny_blocks"]
    weights = np.zeros((1, 48), np.float32)
    weights[0, ::16] = golden["blocks"]
    ours = nvfp4.quantize(floats.round_to_bf16(weights), policy=nvfp4.POLICIES[name])
    assert ours.global_scale == golden[name]["global_scale"]
    assert ours.block_scales.tobytes().hex() == golden[name]["block_scales"]
    assert ours.payload.tobytes().hex() == golden[name]["packed"]


@pytest.mark.parametrize("name", ["native", "modelopt", "compressed-tensors", "compressed-tensors-bf16"])
def test_golden_random_weights(name: str) -> None:
    golden = VECTORS["random"]
    weights = floats.decode(bytes.fromhex(golden["weights_bf16"]), "BF16", tuple(golden["shape"]))
    ours = nvfp4.quantize(weights, policy=nvfp4.POLICIES[name])
    assert ours.block_scales.tobytes().hex() == golden["block_scales"]
    assert ours.payload.tobytes().hex() == golden["packed"]
    expected = golden["global_scale"]["modelopt" if name == "native" else name]
    if isinstance(expected, str):
        assert ours.global_scale.tobytes().hex() == expected
    else:
        assert ours.global_scale == np.float32(expected)


@pytest.mark.parametrize(
    ("name", "scale", "codes", "byte"),
    [("native", 1 / 2688, 0x38, 0x00), ("modelopt", 0.0, 0xFF, 0x77), ("compressed-tensors", 1.0, 0x20, 0x00)],
)
def test_an_all_zero_tensor(name: str, scale: float, codes: int, byte: int) -> None:
    ours = nvfp4.quantize(np.zeros((2, 32), np.float32), policy=nvfp4.POLICIES[name])
    assert ours.global_scale == np.float32(scale)
    assert set((ours.block_scales | (0x80 if codes == 0xFF else 0)).flat) == {codes}  # a NaN's sign is the processor's
    assert set(ours.payload.flat) == {byte}
    weights = ours.dequantize()
    assert np.isnan(weights).all() if name == "modelopt" else not weights.any()


def test_a_zero_member_of_a_fused_group_takes_the_groups_scale() -> None:
    ours = nvfp4.quantize(np.zeros((1, 16), np.float32), global_amax=2688.0)
    assert (ours.global_scale, ours.block_scales.tolist(), ours.payload.any()) == (1.0, [[0x38]], False)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_numbers(bad: float) -> None:
    weights = np.ones((1, 32), np.float32)
    weights[0, 3] = bad
    for name in ("native", "compressed-tensors"):
        with pytest.raises(TensorError, match=r"the first at \[0, 3\]"):
            nvfp4.quantize(weights, policy=nvfp4.POLICIES[name])
    theirs = nvfp4.quantize(weights, policy=MODELOPT)
    assert np.isnan(e4m3.decode(theirs.block_scales))[0, 0]
    assert not np.isfinite(theirs.global_scale)


def test_a_scale_below_the_normal_range_is_raised_only_by_native() -> None:
    weights = np.full((1, 16), 1e-36, np.float32)
    ours, theirs = nvfp4.quantize(weights), nvfp4.quantize(weights, policy=MODELOPT)
    assert ours.global_scale == np.finfo(np.float32).tiny
    assert 0 < theirs.global_scale < np.finfo(np.float32).tiny
    np.testing.assert_allclose(ours.dequantize(), weights, rtol=0.25)


def test_a_group_maximum_below_the_tensors_own_is_refused() -> None:
    with pytest.raises(TensorError, match=r"largest magnitude 1\.0 is below this matrix's own 2\.0"):
        nvfp4.quantize(np.full((1, 16), 2, np.float32), global_amax=1.0)


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_a_group_maximum_that_is_no_number_is_refused(bad: float) -> None:
    with pytest.raises(TensorError):
        nvfp4.quantize(np.zeros((1, 16), np.float32), global_amax=bad)


@pytest.mark.parametrize(
    ("payload", "scales", "said"),
    [
        (np.zeros((2, 8), np.uint8), np.zeros((2, 2), np.uint8), r"\(2, 2\).*must be \(2, 1\)"),
        (np.zeros((2, 8), np.uint8), np.zeros((128, 4), np.uint8), r"must be \(2, 1\)"),
        (np.zeros((2, 12), np.uint8), np.zeros((2, 1), np.uint8), "24 is not divisible"),
        (np.zeros((2, 8), np.int8), np.zeros((2, 1), np.uint8), "payload is int8"),
        (np.zeros((2, 8), np.uint8), np.zeros((2, 1), np.float32), "block scale tensor is float32"),
    ],
)
def test_bytes_that_do_not_belong_together_are_refused(payload: np.ndarray, scales: np.ndarray, said: str) -> None:
    with pytest.raises(TensorError, match=said):
        nvfp4.dequantize(payload, scales, 1.0)


def test_every_pair_of_codes_dequantizes_to_the_product() -> None:
    payload = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    scales = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 32, axis=1)
    ours = nvfp4.dequantize(payload, scales, 0.5)
    expected = (
        e2m1.decode(e2m1.unpack(payload)) * e4m3.decode(np.arange(256, dtype=np.uint8))[:, None] * np.float32(0.5)
    )
    np.testing.assert_array_equal(ours, expected)
    np.testing.assert_array_equal(nvfp4.dequantize(payload, scales, 2.0, direction="divide"), expected)


def test_runs_of_rows_do_not_change_a_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = np.random.default_rng(1).standard_normal((37, 64)).astype(np.float32)
    whole = nvfp4.quantize(weights)
    monkeypatch.setattr(blocks, "CHUNK_ELEMENTS", 128)
    parts = nvfp4.quantize(np.asfortranarray(weights))
    assert whole.payload.tobytes() == parts.payload.tobytes()
    assert whole.block_scales.tobytes() == parts.block_scales.tobytes()
    np.testing.assert_array_equal(whole.dequantize(), parts.dequantize())


def test_expected_error_on_normal_weights() -> None:
    weights = np.random.default_rng(2).standard_normal((256, 2048)).astype(np.float32)
    error = nvfp4.quantize(weights).dequantize() - weights
    assert np.linalg.norm(error) / np.linalg.norm(weights) == pytest.approx(0.0951, abs=0.001)


@given(WEIGHTS)
def test_the_block_with_the_largest_weight_has_scale_448(weights: np.ndarray) -> None:
    if blocks.amax(weights) < 1e-30:
        return
    ours = nvfp4.quantize(weights)
    assert ours.block_scales.max() == 0x7E
    assert not (ours.block_scales & 0x80).any()
    block_codes = (e2m1.unpack(ours.payload) & 7).reshape(3, 2, 16).max(axis=2)
    # a ratio that underflows float32 altogether counts as 1, so blocks of subnormal weights are apart
    full = (ours.block_scales >= 0x08) & (blocks.block_amax(weights, 16) > 1e-30)
    assert (block_codes[full] == 7).all()


@given(WEIGHTS)
def test_the_error_of_a_weight_is_bounded_by_its_blocks_scale(weights: np.ndarray) -> None:
    ours = nvfp4.quantize(weights)
    steps = e4m3.decode(ours.block_scales).astype(np.float64) * ours.global_scale
    error = np.abs(ours.dequantize().astype(np.float64) - weights).reshape(3, 2, 16).max(axis=2)
    maxima = blocks.block_amax(weights, 16)
    clipped = np.maximum(maxima - 6 * steps, 0)  # the scale errs by up to a sixteenth
    assert (error <= np.maximum(steps, clipped) * (1 + 1e-5)).all()


@given(WEIGHTS)
def test_dequantized_weights_quantize_to_themselves(weights: np.ndarray) -> None:
    """With the scales kept, every code is a fixed point; only the sign of zeros may go."""
    first = nvfp4.quantize(weights)
    values = first.dequantize()
    steps = e4m3.decode(first.block_scales) * first.global_scale
    again = e2m1.encode((values.reshape(3, 2, 16) / steps[:, :, None]).reshape(3, 32), signs="sign-bit")
    np.testing.assert_array_equal(e2m1.pack(again), first.payload)


@given(WEIGHTS, st.sampled_from(["native", "modelopt", "compressed-tensors"]))
def test_negated_weights_give_negated_values(weights: np.ndarray, name: str) -> None:
    if not weights.any():
        return
    policy = nvfp4.POLICIES[name]
    ours, mirrored = nvfp4.quantize(weights, policy=policy), nvfp4.quantize(-weights, policy=policy)
    np.testing.assert_array_equal(ours.dequantize(), -mirrored.dequantize())


@given(WEIGHTS, st.integers(-20, 20))
def test_a_power_of_two_scales_through(weights: np.ndarray, exponent: int) -> None:
    if blocks.amax(weights) < 1e-20 or (np.abs(weights[weights != 0]) < 1e-20).any():
        return
    ours = nvfp4.quantize(weights)
    scaled = nvfp4.quantize(np.ldexp(weights, exponent).astype(np.float32))
    assert scaled.payload.tobytes() == ours.payload.tobytes()
    assert scaled.block_scales.tobytes() == ours.block_scales.tobytes()
    assert scaled.global_scale == np.ldexp(ours.global_scale, exponent)


def test_temporaries_do_not_grow_with_the_matrix() -> None:
    def overhead(rows: int) -> int:
        weights = np.ones((rows, 1024), np.float32)
        tracemalloc.start()
        result = nvfp4.quantize(weights)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak - result.payload.nbytes - result.block_scales.nbytes

    small, large = overhead(1024), overhead(8192)
    assert large < small * 1.1
    assert large < 24 * 4 * blocks.CHUNK_ELEMENTS
