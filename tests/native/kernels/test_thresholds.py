"""Boundaries against the reference arithmetic: every 16-bit weight under every scale code, float32 on both sides."""

from __future__ import annotations

import numpy as np
import pytest

from publisher.formats import e2m1, e4m3, e8m0, nvfp4
from publisher.native.kernels import thresholds

SCALES = [2.0**-126, 3.3e-7, 1e-4, 5.9604645e-5, 1.0, 1e30, 1.2e35]


def values(kind: str) -> np.ndarray:
    """Every finite magnitude of a 16-bit kind, ascending."""
    if kind == "BF16":
        return (np.arange(0x7F80, dtype=np.uint32) << 16).view(np.float32)
    return np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)


def codes(bits: np.ndarray, below: np.ndarray) -> np.ndarray:
    above = bits[:, None].astype(np.int64) > below[None, :]
    return above[:, 1:].sum(axis=1) | above[:, 0] << 3


@pytest.mark.parametrize("kind", ["BF16", "F16"])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.filterwarnings("ignore:overflow")
def test_nvfp4_codes_of_every_16_bit_weight(kind: thresholds.Kind, scale: float) -> None:
    scales, steps = thresholds.nvfp4_rules(scale, kind)
    magnitudes = values(kind)
    bits = np.arange(len(magnitudes))
    assert np.array_equal(scales.table[bits], nvfp4.block_scale_codes(magnitudes.copy(), np.float32(scale)))
    for code in range(1, e4m3.MAX_CODE + 1):
        step = e4m3.DECODE[code] * np.float32(scale)
        assert np.array_equal(codes(bits, steps.below[code]), e2m1.encode(-magnitudes / step)), code


@pytest.mark.parametrize("kind", ["BF16", "F16"])
@pytest.mark.parametrize("mode", e8m0.MODES)
@pytest.mark.filterwarnings("ignore:overflow")
def test_mxfp4_codes_of_every_16_bit_weight(kind: thresholds.Kind, mode: e8m0.Mode) -> None:
    scales, steps = thresholds.mxfp4_rules(mode, kind)
    magnitudes = values(kind)
    bits = np.arange(len(magnitudes))
    assert np.array_equal(scales.table[bits], e8m0.encode(magnitudes, mode))
    for code in range(0, e8m0.NAN_CODE, 3):
        expected = e2m1.encode(-magnitudes / e8m0.DECODE[code], signs="nonzero")
        assert np.array_equal(codes(bits, steps.below[code]), expected), code


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.filterwarnings("ignore:overflow", "ignore:divide")
def test_float32_on_both_sides_of_every_boundary(scale: float) -> None:
    scales, steps = thresholds.nvfp4_rules(scale, "F32")
    for code in range(1, e4m3.MAX_CODE + 1):
        bits = (steps.below[code][:, None] + np.arange(-3, 5)[None, :]).reshape(-1)
        bits = np.unique(np.clip(bits, 0, 0x7F7FFFFF)).astype(np.int32)
        step = e4m3.DECODE[code] * np.float32(scale)
        assert np.array_equal(codes(bits, steps.below[code]), e2m1.encode(-bits.view(np.float32) / step)), code
    bits = np.unique(np.clip((scales.starts[:, None] + np.arange(-3, 4)[None, :]), 0, 0x7F7FFFFF)).astype(np.int32)
    found = scales.codes[np.searchsorted(scales.starts, bits, side="right")]
    assert np.array_equal(found, nvfp4.block_scale_codes(bits.view(np.float32).copy(), np.float32(scale)))


@pytest.mark.parametrize("mode", e8m0.MODES)
def test_float32_maxima_on_both_sides_of_every_mx_scale(mode: e8m0.Mode) -> None:
    scales, _ = thresholds.mxfp4_rules(mode, "F32")
    bits = np.unique(np.clip(scales.starts[:, None] + np.arange(-3, 4)[None, :], 0, 0x7F7FFFFF)).astype(np.int32)
    found = scales.codes[np.searchsorted(scales.starts, bits, side="right")]
    assert np.array_equal(found, e8m0.encode(bits.view(np.float32), mode))


def test_a_step_is_counted_in_halves() -> None:
    _, steps = thresholds.nvfp4_rules(1.0, "BF16")
    assert steps.halves[0x38] == 0.5
    assert steps.halves[0x7E] == 224.0
