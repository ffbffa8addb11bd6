"""Four-over-six against modelopt 0.47: its calibrator, its arithmetic of scales and its packing, on the CPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from publisher.formats import fouroversix, nvfp4
from publisher.formats.blocks import TensorError
from publisher.formats.makers import Sample, judge

pytest.importorskip("modelopt", reason="the modelopt extra is not installed")

from modelopt.torch.quantization.calib.mse import MseCalibrator
from modelopt.torch.quantization.qtensor.nvfp4_tensor import NVFP4QTensor
from modelopt.torch.quantization.tensor_quant import scaled_e4m3_impl

LEVELS = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
PRESET = {"step_size": 0.5, "start_multiplier": 1.0, "stop_multiplier": 1.5}  # nvfp4_four_over_six.yaml


def nearest(scaled: torch.Tensor) -> torch.Tensor:
    """`fp4_round_magnitude`: a tie goes to the even code."""
    code = torch.zeros_like(scaled, dtype=torch.int64)
    for above, (limit, stays) in enumerate(
        ((0.25, True), (0.75, False), (1.25, True), (1.75, False), (2.5, True), (3.5, False), (5.0, True)), 1
    ):
        code[(scaled > limit) if stays else (scaled >= limit)] = above
    return LEVELS[code]


def modelopts(weight: torch.Tensor, largest: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Payload, block scales and global scale: calibrated as the preset says, then exported."""
    blocks = weight.reshape(-1, 16)

    def fake(x: torch.Tensor, amax: torch.Tensor) -> torch.Tensor:
        """`compute_fp4_scales` and the Triton kernel behind it, which needs a GPU."""
        scale = scaled_e4m3_impl(amax.float() / 6.0, largest.float() * (448.0 / 256.0) / 6.0).view(-1, 1)
        safe = torch.where(scale == 0, torch.ones_like(scale), scale)
        made = nearest(x.abs() / safe) * safe
        return torch.where(scale == 0, torch.zeros_like(made), torch.where(x >= 0, made, -made))

    calibrator = MseCalibrator(blocks.abs().amax(1).float(), axis=0, quant_func=fake, **PRESET)
    calibrator.collect(blocks)
    quantizer: Any = SimpleNamespace(
        block_sizes={-1: 16, "type": "static", "scale_bits": (4, 3), "four_over_six": True},
        global_amax=largest,
        _amax=calibrator.compute_amax(),
    )
    scales, scale_2 = NVFP4QTensor.get_weights_scaling_factor_from_quantizer(quantizer, weight)
    packed, _, _ = NVFP4QTensor.quantize(weight.clone(), 16, scales, scale_2)
    return packed._quantized_data, scales.view(torch.uint8), scale_2


def weights(kind: str) -> torch.Tensor:
    random = torch.Generator().manual_seed(3)
    shape = (32, 256)
    if kind == "normal":
        return (torch.randn(shape, generator=random) * 0.02).bfloat16().float()
    if kind == "int4":
        scales = torch.rand((32, 8), generator=random).repeat_interleave(32, 1)
        return (torch.randint(-8, 8, shape, generator=random) * scales).bfloat16().float()
    if kind == "fives":  # between 4 and 6, where the choice matters
        return torch.randint(-12, 13, shape, generator=random) * 0.5 * 2.0 ** torch.randint(-6, 3, (32, 1)).float()
    values = torch.randn(shape, generator=random) * 10.0 ** torch.randint(
        -6, 3, (32, 16), generator=random
    ).float().repeat_interleave(16, 1)
    values[5] = 0
    return values


@pytest.mark.parametrize("kind", ["normal", "int4", "spread"])
def test_what_modelopt_stores_is_stored(kind: str) -> None:
    weight = weights(kind)
    payload, scales, scale_2 = modelopts(weight, weight.abs().max())
    made = fouroversix.quantize(weight.numpy())
    assert made.global_scale.tobytes() == scale_2.numpy().tobytes()
    assert np.array_equal(made.block_scales, scales.numpy())
    assert np.array_equal(made.payload, payload.numpy())


def test_where_both_err_alike_the_library_decides_by_its_order_of_addition() -> None:
    """On a grid of halves many losses are equal but for rounding: whatever differs must be such a tie."""
    weight = weights("fives")
    _, scales, _ = modelopts(weight, weight.abs().max())
    codes, steps = fouroversix.candidates(weight.abs().reshape(32, -1, 16).amax(2).numpy(), float(weight.abs().max()))
    losses = fouroversix.losses(weight.numpy(), steps)
    mine = fouroversix.block_scale_codes(weight.numpy(), float(weight.abs().max()))
    other = mine != scales.numpy()
    assert ((codes[..., 0] == scales.numpy()) | (codes[..., 1] == scales.numpy())).all()
    assert np.allclose(losses[other][:, 0], losses[other][:, 1], rtol=1e-6)
    assert other.mean() < 0.02


def test_a_fused_group_shares_its_scale() -> None:
    weight = weights("normal")
    payload, scales, scale_2 = modelopts(weight, torch.tensor(0.5))
    made = fouroversix.quantize(weight.numpy(), global_amax=0.5)
    assert np.array_equal(made.block_scales, scales.numpy())
    assert np.array_equal(made.payload, payload.numpy())
    assert float(scale_2) == made.global_scale == np.float32(0.5) / np.float32(1536)


@given(st.integers(0, 2**32 - 1))
def test_no_block_errs_more_than_with_six(seed: int) -> None:
    rows = (np.random.default_rng(seed).standard_normal((4, 64)) * 0.02).astype(np.float32)
    largest = np.abs(rows).max()
    codes, steps = fouroversix.candidates(np.abs(rows.reshape(4, -1, 16)).max(axis=2), largest)
    chosen = fouroversix.block_scale_codes(rows, largest)
    losses = fouroversix.losses(rows, steps)
    picked = np.where(chosen == codes[..., 1], losses[..., 1], losses[..., 0])
    assert (picked <= losses[..., 0]).all()
    assert chosen.max() <= 0x7C  # 384, half as much again as the largest block's 256


def test_it_errs_less_than_max_and_is_recognized() -> None:
    rows = weights("normal").numpy()
    made, plain = fouroversix.quantize(rows), nvfp4.quantize(rows)
    errors = [np.linalg.norm(one.dequantize() - rows) for one in (made, plain)]
    assert errors[0] < 0.95 * errors[1]
    sample = Sample(
        format="nvfp4",
        weights=rows,
        payload=made.payload,
        scales=made.block_scales,
        global_scale=made.global_scale,
        direction="multiply",
    )
    assert (judge(sample).maker, judge(sample).wrong) == ("four-over-six", 0)


def test_zeros_are_zeros() -> None:
    made = fouroversix.quantize(np.zeros((2, 32), np.float32))
    assert not made.payload.any()
    assert made.global_scale == np.float32(1) / np.float32(1536)
    assert (made.block_scales == 0x7E).all()


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(TensorError, match="NaN"):
        fouroversix.quantize(np.full((1, 16), np.nan, np.float32))
