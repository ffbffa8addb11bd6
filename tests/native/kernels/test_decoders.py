"""INT4 and FP8 to BF16, bit for bit: against compressed-tensors, ml_dtypes and torch, with and without machine code."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from compressed_tensors.compressors.pack_quantized.base import pack_to_int32
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import dequantize

from publisher.native.kernels import decoders

COLUMNS = [32, 256, 7168]


@pytest.fixture(params=["compiled", "reference"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(decoders, "_FROM", 1 if request.param == "compiled" else 1 << 60)
    return str(request.param)


def bits(values: torch.Tensor) -> np.ndarray:
    return values.view(torch.int16).numpy().view(np.uint16)


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("group", [16, 32, 128])
def test_int4_is_what_compressed_tensors_decompresses(path: str, columns: int, group: int) -> None:
    if columns % group:
        group = columns
    generator = torch.Generator().manual_seed(columns + group)
    stored = torch.randint(-8, 8, (24, columns), generator=generator, dtype=torch.int8)
    scales = (torch.randn(24, columns // group, generator=generator) * 0.01).bfloat16()  # negative ones too
    scales[0, 0], scales[1, 0], scales[2, 0] = 0.0, 1e-40, 3e38
    arguments = QuantizationArgs(num_bits=4, type="int", symmetric=True, strategy="group", group_size=group)
    expected = dequantize(stored, scales, args=arguments, dtype=torch.bfloat16)
    words = pack_to_int32(stored, 4).numpy()
    out = np.empty((24, columns), np.uint16)
    decoders.int4_bits(words, scales.float().numpy(), columns, group, out)
    assert np.array_equal(out, bits(expected))


def test_int4_of_odd_widths_and_scales_that_are_not_finite(path: str) -> None:
    stored = torch.arange(-8, 8, dtype=torch.int8).repeat(2, 2)[:, :20].contiguous()
    scales = torch.tensor([[0.5, float("nan")], [float("inf"), 2.0]])
    out = np.empty((2, 20), np.uint16)
    decoders.int4_bits(pack_to_int32(stored, 4).numpy(), scales.numpy(), 20, 16, out)
    values = out.view(ml_dtypes.bfloat16).astype(np.float32)
    assert np.array_equal(values[0, :16], stored[0, :16].numpy() * 0.5)
    assert np.isnan(values[0, 16:]).all()
    assert np.isnan(values[1, 8])  # zero times infinity
    assert np.array_equal(values[1, 16:], stored[1, 16:].numpy() * 2.0)


@pytest.mark.parametrize("block", [(128, 128), (1, 10_000), (10_000, 10_000), (3, 48), (2, 20)])
@pytest.mark.parametrize("first", [0, 5])
def test_fp8_is_every_code_times_its_scale_rounded_once(path: str, block: tuple[int, int], first: int) -> None:
    random = np.random.default_rng(3)
    codes = random.integers(0, 256, (160, 272), dtype=np.uint8)
    codes[0, :256] = np.arange(256)
    tall, wide = block
    owners = (first + np.arange(160)) // tall - first // tall
    scales = random.normal(0, 0.3, (owners[-1] + 1, -(-272 // wide))).astype(np.float32)
    whole = scales[owners][:, np.arange(272) // wide]
    exact = codes.view(ml_dtypes.float8_e4m3fn).astype(np.float32) * whole
    out = np.empty((160, 272), np.uint16)
    decoders.fp8_bits(codes, scales, block, first, out)
    got, expected = out.view(ml_dtypes.bfloat16), exact.astype(ml_dtypes.bfloat16)
    assert np.array_equal(np.isnan(got), np.isnan(expected))
    finite = ~np.isnan(expected)
    assert np.array_equal(out[finite], expected.view(np.uint16)[finite])


def test_both_ways_give_the_same_bits_for_nan_and_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.tile(np.arange(256, dtype=np.uint8), (128, 1))
    found: list[Any] = []
    for least in (1, 1 << 60):
        monkeypatch.setattr(decoders, "_FROM", least)
        out = np.empty(codes.shape, np.uint16)
        decoders.fp8_bits(codes, np.full((1, 2), 3e37, np.float32), (128, 128), 0, out)
        found.append(out)
    assert np.array_equal(found[0], found[1])
    assert np.isinf(found[0].view(ml_dtypes.bfloat16).astype(np.float32)).any()
