"""MXFP4 to NVFP4 against modelopt's own cast, and the values against each other where nothing may be lost."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from publisher.formats import mxfp4, nvfp4, recast
from publisher.formats.blocks import TensorError


def matrix(low: int, high: int, seed: int = 1, rows: int = 24, columns: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Random codes, and scales from `low` to `high`, both of them there; the first bytes are every pair of codes."""
    generator = np.random.default_rng(seed)
    payload = generator.integers(0, 256, (rows, columns // 2), np.uint8)
    payload.reshape(-1)[:256] = np.arange(256)
    scales = generator.integers(low, high + 1, (rows, columns // 32), np.uint8)
    scales[0, 0], scales[-1, -1] = low, high
    return payload, scales


def values(made: recast.Recast, exponent: int) -> np.ndarray:
    return nvfp4.dequantize(made.payload, made.block_scales, np.ldexp(1.0, exponent))


@pytest.mark.parametrize("high", [120, 127, 200, 254])
def test_eighteen_exponents_are_cast_without_loss(high: int) -> None:
    payload, scales = matrix(high - 17, high)
    exponent = recast.global_exponent(recast.top_exponent(scales))
    assert exponent == high - 127 - 8
    made = recast.recast(payload, scales, exponent)
    assert made.rounded == 0
    assert made.error == 0
    np.testing.assert_array_equal(made.payload, payload)
    meant = mxfp4.dequantize(payload, scales)
    np.testing.assert_array_equal(values(made, exponent), meant)
    if high < 200:  # beyond, the squares leave float64's comparison with float32 data meaningless
        assert made.weight == pytest.approx(float((meant.astype(np.float64) ** 2).sum()), rel=1e-12)


@pytest.mark.parametrize(("low", "high"), [(105, 122), (100, 127), (1, 127), (118, 118)])
def test_bytes_are_those_of_modelopt(low: int, high: int) -> None:
    from modelopt.torch.export.shard_cast_utils import mxfp4_kmax, quantize_mxfp4_to_nvfp4_lossless

    payload, scales = matrix(low, high)
    packed, theirs = torch.from_numpy(payload), torch.from_numpy(scales)
    k_max = mxfp4_kmax(theirs)
    codes, block_scales, scale_2, blocks, lossless = quantize_mxfp4_to_nvfp4_lossless(packed, theirs, k_max, "cpu")
    exponent = recast.global_exponent(recast.top_exponent(scales))
    made = recast.recast(payload, scales, exponent)
    assert float(scale_2) == 2.0**exponent
    kept = np.repeat(scales >= high - 17, 2, axis=1)
    np.testing.assert_array_equal(made.block_scales[kept], block_scales.view(torch.uint8).numpy()[kept])
    whole = np.repeat(kept, 8, axis=1)
    zeros = (payload & 0x77) != payload  # they write a negative zero as they read it, or not: it is zero all the same
    np.testing.assert_array_equal(made.payload[whole & ~zeros], codes.numpy()[whole & ~zeros])
    theirs_values = nvfp4.dequantize(codes.numpy(), block_scales.view(torch.uint8).numpy(), np.float32(scale_2))
    inside = np.repeat(whole, 2, axis=1)
    np.testing.assert_array_equal(values(made, exponent)[inside], theirs_values[inside])
    assert made.rounded <= blocks - lossless


def test_blocks_below_are_rounded_and_counted_where_a_value_changes() -> None:
    payload, scales = matrix(100, 127, columns=256)
    exponent = recast.global_exponent(recast.top_exponent(scales))
    made = recast.recast(payload, scales, exponent)
    meant, got = mxfp4.dequantize(payload, scales), values(made, exponent)
    changed = (meant != got).reshape(*scales.shape, 32).any(axis=2)
    assert made.rounded == int(changed.sum()) > 0
    assert not changed[scales >= 110].any()
    assert made.error == pytest.approx(float(((meant.astype(np.float64) - got) ** 2).sum()), rel=1e-9)
    step = 2.0 ** (exponent - 9)
    assert abs(meant - got).max() <= step  # half of the widest gap between codes, at the smallest scale


def test_a_block_one_below_that_needs_no_finer_step_is_not_rounded() -> None:
    payload, scales = np.full((1, 32), 0x44, np.uint8), np.array([[127, 109]], np.uint8)  # 2.0 everywhere
    made = recast.recast(payload, scales, recast.global_exponent(0))
    assert made.rounded == 0
    np.testing.assert_array_equal(values(made, -8), mxfp4.dequantize(payload, scales))
    np.testing.assert_array_equal(made.payload[0, 16:], np.full(16, 0x22, np.uint8))  # 1.0 under twice the scale


def test_zero_blocks_do_not_count_whatever_their_scale() -> None:
    payload, scales = np.zeros((2, 32), np.uint8), np.array([[0, 127], [3, 0]], np.uint8)
    payload[0, 16:] = 0x8F
    made = recast.recast(payload, scales, recast.global_exponent(recast.top_exponent(scales)))
    assert made.rounded == 0
    np.testing.assert_array_equal(values(made, -8), mxfp4.dequantize(payload, scales))
    assert recast.top_exponent(np.zeros((3, 4), np.uint8)) is None
    assert recast.global_exponent(None) == -8


def test_scales_near_the_smallest_keep_a_normal_global_scale() -> None:
    payload, scales = matrix(1, 5)
    exponent = recast.global_exponent(recast.top_exponent(scales))
    assert exponent == -126
    made = recast.recast(payload, scales, exponent)
    assert made.rounded == 0
    np.testing.assert_array_equal(values(made, exponent), mxfp4.dequantize(payload, scales))


def test_nan_scales_and_blocks_out_of_reach_are_refused() -> None:
    payload, scales = matrix(120, 127)
    scales[3, 2] = 255
    with pytest.raises(TensorError, match=r"1 of 96 block scales are NaN \(255\)"):
        recast.top_exponent(scales)
    scales[3, 2] = 130
    with pytest.raises(TensorError, match=r"needs the scale 2\*\*11; E4M3 reaches 2\*\*8"):
        recast.recast(payload, scales, -8)
    with pytest.raises(TensorError, match="shape"):
        recast.recast(payload, scales[:, :2], 0)
