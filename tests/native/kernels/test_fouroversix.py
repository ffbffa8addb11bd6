"""Four-over-six in torch and in machine code: the bytes of the numpy reference for every kind of weight."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from publisher.formats import fouroversix as reference
from publisher.native import kernels
from publisher.native.kernels import quantizers
from tests.native.kernels.test_quantizers import DTYPES, KINDS, kernel, weights

__all__ = ["kernel"]  # a fixture: every test runs with both kernels


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_it_gives_the_reference_bytes(kind: str, dtype: torch.dtype) -> None:
    weight = weights(kind, dtype)
    amax = kernels.block_amax(weight, 16)
    meter = kernels.ErrorMeter.on(weight.device)
    payload, scales, scale_2 = kernels.quantize_nvfp4_four_over_six(weight, amax, kernels.largest(amax), meter)
    expected = reference.quantize(weight.float().numpy())
    assert scale_2.numpy().tobytes() == expected.global_scale.tobytes()
    assert np.array_equal(scales.view(torch.uint8).numpy(), expected.block_scales)
    assert np.array_equal(payload.numpy(), expected.payload)
    if kind == "normal":
        errors = expected.dequantize().astype(np.float64) - weight.double().numpy()
        assert float(meter.error) == pytest.approx(float((errors**2).sum()), rel=1e-5)


def test_a_group_shares_its_largest_weight() -> None:
    weight = weights("normal", torch.bfloat16)
    amax = kernels.block_amax(weight, 16)
    payload, scales, _ = kernels.quantize_nvfp4_four_over_six(weight, amax, torch.tensor(1.0))
    expected = reference.quantize(weight.float().numpy(), global_amax=1.0)
    assert np.array_equal(scales.view(torch.uint8).numpy(), expected.block_scales)
    assert np.array_equal(payload.numpy(), expected.payload)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch.cuda.is_available() is false: no CUDA or ROCm device")
def test_a_gpu_gives_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = weights("normal", torch.bfloat16)
    monkeypatch.setattr(quantizers, "COMPILED_FROM", 1 << 60)
    here = kernels.quantize_nvfp4_four_over_six(weight, kernels.block_amax(weight, 16), torch.tensor(1.0))
    there = kernels.quantize_nvfp4_four_over_six(
        weight.cuda(), kernels.block_amax(weight.cuda(), 16), torch.tensor(1.0)
    )
    for mine, theirs in zip(here, there, strict=True):
        assert torch.equal(mine.view(torch.uint8), theirs.cpu().view(torch.uint8))
