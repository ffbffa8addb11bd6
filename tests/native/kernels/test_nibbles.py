"""Sixteen weights at a time: every nibble under every kind of scale, every FP8 code, against ml_dtypes."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

pytest.importorskip("numba", reason="numba, the extra `fast`, is not installed")

from publisher.native.kernels import nibbles
from publisher.native.kernels.machine import machine_code


@machine_code
def int4(words, scales, out, count, runs):
    nibbles.decode_sixteens(words, scales, out, count, runs)


@machine_code
def fp8(codes, out, begin, count, scale):
    nibbles.decode_e4m3(codes, out, begin, count, scale)


@pytest.mark.filterwarnings("ignore:overflow")
def test_every_nibble_under_every_kind_of_scale() -> None:
    random = np.random.default_rng(0)
    scales = np.concatenate([random.standard_normal(500), [0, -0.0, 1e-45, 1e-39, 3.4e38, -3e38, 2.0**-133]])
    scales = scales.astype(np.float32)
    word = sum(nibble << 4 * nibble for nibble in range(8)), sum((nibble + 8) << 4 * nibble for nibble in range(8))
    words = np.tile(np.array(word, np.uint32), len(scales))
    out = np.empty(16 * len(scales), np.uint16)
    int4(words, scales, out, len(scales), 1)
    exact = np.arange(-8, 8, dtype=np.float32)[None, :] * scales[:, None]
    assert np.array_equal(out.reshape(-1, 16), exact.astype(ml_dtypes.bfloat16).view(np.uint16))


def test_every_fp8_code_from_a_place_on() -> None:
    codes = np.tile(np.arange(256, dtype=np.uint8), 2)
    for scale in (1.0, -0.37, 1e-30):
        out = np.full(512, 7, np.uint16)
        fp8(codes, out, 16, 16, np.float32(scale))
        exact = codes[16:272].view(ml_dtypes.float8_e4m3fn).astype(np.float32) * np.float32(scale)
        expected = exact.astype(ml_dtypes.bfloat16)
        got, sound = out[16:272], ~np.isnan(exact)
        assert np.array_equal(got[sound], expected.view(np.uint16)[sound])
        assert np.isnan(got[~sound].view(ml_dtypes.bfloat16)).all()
        assert (out[:16] == 7).all()
        assert (out[272:] == 7).all()
