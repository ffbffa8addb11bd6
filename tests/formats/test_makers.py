"""Which arithmetic made a block: the producers' own code makes them, and every one must be told from the others."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from publisher.formats import blocks, floats, makers, mxfp4, nvfp4
from publisher.formats.makers import Sample

SHAPE = (16, 512)


def weights(kind: str = "normal") -> np.ndarray:
    random = np.random.default_rng(3)
    if kind == "grid":  # what an INT4 source holds
        steps = random.integers(-8, 8, SHAPE).astype(np.float32)
        scale = random.uniform(0.001, 0.01, (SHAPE[0], SHAPE[1] // 32)).astype(np.float32)
        return floats.round_to_bf16(steps * floats.round_to_bf16(scale).repeat(32, axis=1))
    values = random.standard_t(4, SHAPE) if kind == "heavy" else random.standard_normal(SHAPE)
    return floats.round_to_bf16((values * 0.02).astype(np.float32))


def packed(codes: np.ndarray) -> np.ndarray:
    return (codes[:, 1::2] << 4 | codes[:, ::2]).astype(np.uint8)


def rounded(values: np.ndarray) -> np.ndarray:
    return np.clip(values, -6, 6).astype(ml_dtypes.float4_e2m1fn).view(np.uint8) & 0xF


def nv(source: np.ndarray, ratios: np.ndarray, scale: np.float32, divisors: np.ndarray | None = None) -> Sample:
    """A sample with these block scales, its codes rounded by ml_dtypes under them or under other divisors."""
    stored = np.clip(ratios, 2**-9, 448).astype(ml_dtypes.float8_e4m3fn)
    steps = stored.astype(np.float32) * scale if divisors is None else divisors
    codes = rounded((source.reshape(SHAPE[0], -1, 16) / steps[..., None]).reshape(SHAPE))
    return Sample(
        format="nvfp4",
        weights=source,
        payload=packed(codes),
        scales=stored.view(np.uint8),
        global_scale=scale,
        direction="multiply",
    )


def amax(source: np.ndarray, block: int = 16) -> np.ndarray:
    return abs(source.reshape(SHAPE[0], -1, block)).max(axis=2)


@pytest.mark.parametrize("kind", ["normal", "heavy", "grid"])
@pytest.mark.engine
def test_modelopt_and_compressed_tensors_are_recognised(kind: str) -> None:
    import torch
    from compressed_tensors.compressors.nvfp4 import NVFP4PackedCompressor
    from compressed_tensors.quantization import preset_name_to_scheme
    from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
    from modelopt.torch.quantization.qtensor import NVFP4QTensor

    source = weights(kind)
    theirs = torch.from_numpy(source.copy()).bfloat16()
    tensor, scales, scale = NVFP4QTensor.quantize(theirs.clone(), 16)
    sample = Sample(
        format="nvfp4",
        weights=source,
        payload=tensor._quantized_data.numpy(),
        scales=scales.view(torch.uint8).numpy(),
        global_scale=np.float32(scale.item()),
        direction="multiply",
    )
    verdict = makers.judge(sample)
    assert (verdict.maker, verdict.wrong, verdict.blocks) == ("modelopt max", 0, source.size // 16)

    scheme = preset_name_to_scheme("NVFP4A16", ["Linear"])
    gparam = generate_gparam(theirs.min(), theirs.max())
    grouped = theirs.unflatten(-1, (-1, 16))
    scales, _ = calculate_qparams(grouped.amin(-1), grouped.amax(-1), scheme.weights, global_scale=gparam)
    made = NVFP4PackedCompressor.compress(
        {"weight": theirs, "weight_scale": scales, "weight_global_scale": gparam}, scheme
    )
    sample = Sample(
        format="nvfp4",
        weights=source,
        payload=made["weight_packed"].numpy(),
        scales=made["weight_scale"].view(torch.uint8).numpy(),
        global_scale=np.float32(made["weight_global_scale"].item()),
        direction="divide",
    )
    verdict = makers.judge(sample)
    assert verdict.maker.startswith("compressed-tensors")
    assert verdict.wrong == 0


@pytest.mark.parametrize(("mode", "name"), [("EVEN", "even"), ("FLOOR", "floor"), ("CEIL", "ceil"), ("RCEIL", "ceil6")])
@pytest.mark.engine
def test_the_four_mx_modes_of_torchao_are_told_apart(mode: str, name: str) -> None:
    import torch
    from torchao.prototype.mx_formats import mx_tensor

    source = weights("heavy")
    scales, payload = mx_tensor.to_mx(
        torch.from_numpy(source.copy()).bfloat16(), torch.float4_e2m1fn_x2, 32, mx_tensor.ScaleCalculationMode[mode]
    )
    sample = Sample(
        format="mxfp4",
        weights=source,
        payload=payload.view(torch.uint8).numpy(),
        scales=scales.view(torch.uint8).numpy(),
    )
    verdict = makers.judge(sample)
    assert (verdict.maker, verdict.wrong) == (name, 0)


@pytest.mark.engine
def test_modelopts_ties_towards_zero_are_not_wrong() -> None:
    import torch
    from modelopt.torch.quantization.qtensor import MXFP4QTensor

    source = weights("grid")
    tensor, scales = MXFP4QTensor.quantize(torch.from_numpy(source.copy()).bfloat16(), 32)
    made = scales.numpy().reshape(SHAPE[0], -1)
    verdict = makers.judge(Sample(format="mxfp4", weights=source, payload=tensor._quantized_data.numpy(), scales=made))
    assert (verdict.maker, verdict.wrong) == ("ceil6", 0)


def test_four_over_six_is_recognised() -> None:
    source = weights()
    scale = np.float32(abs(source).max() / (6 * 256))
    six, four = amax(source) / (6 * scale), amax(source) / (4 * scale)
    pick = np.random.default_rng(1).random(six.shape) < 0.4
    verdict = makers.judge(nv(source, np.where(pick, four, six), scale))
    assert (verdict.maker, verdict.wrong) == ("four-over-six", 0)


def sweep(source: np.ndarray, scale: np.float32) -> np.ndarray:
    """The best of all positive E4M3 scales of each block, by brute force in float64."""
    grid = np.arange(1, 127, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    groups = source.reshape(SHAPE[0], -1, 16)
    best, least = np.zeros(groups.shape[:2]), np.full(groups.shape[:2], np.inf)
    for value in grid:
        step = np.float32(value * scale)
        made = np.clip(groups / step, -6, 6).astype(ml_dtypes.float4_e2m1fn).astype(np.float64) * step
        error = ((made - groups) ** 2).sum(axis=2)
        best, least = np.where(error < least, value, best), np.minimum(error, least)
    return best


def test_an_mse_sweep_is_recognised() -> None:
    source = weights()
    scale = np.float32(abs(source).max() / 2688)
    verdict = makers.judge(nv(source, sweep(source, scale), scale))
    assert (verdict.maker, verdict.wrong) == ("mse", 0)


def test_scales_of_no_rule_are_the_producers_own() -> None:
    source = weights()
    scale = np.float32(abs(source).max() / 2688)
    factors = np.random.default_rng(2).uniform(0.5, 0.8, amax(source).shape)
    verdict = makers.judge(nv(source, amax(source) / (6 * scale) * factors, scale))
    assert (verdict.maker, verdict.wrong) == (makers.OWN, 0)


def test_codes_of_the_scale_before_rounding_are_recognised() -> None:
    source = weights()
    scale = np.float32(abs(source).max() / 2688)
    verdict = makers.judge(nv(source, amax(source) / (6 * scale), scale, amax(source) / np.float32(6)))
    assert verdict.maker == "modelopt max"
    assert verdict.wrong_codes > verdict.blocks // 10
    assert verdict.unrounded == verdict.wrong_codes


def test_moved_codes_and_scales_are_counted_by_block() -> None:
    source = weights()
    made = nvfp4.quantize(source)
    payload, scales = made.payload.copy(), made.block_scales.copy()
    payload[3, 5] ^= 0x04  # block 0 of row 3
    scales[7, 9] -= 8  # half the scale: the codes are still those of the right one
    verdict = makers.judge(
        Sample(
            format="nvfp4",
            weights=source,
            payload=payload,
            scales=scales,
            global_scale=made.global_scale,
            direction="multiply",
        )
    )
    assert (verdict.maker, verdict.wrong, verdict.unrounded) == ("modelopt max", 2, 1)


@pytest.mark.parametrize("code", [0x00, 0x7E, 0x38, 0x20, 0x01])
def test_the_scale_of_a_zero_block_is_nobodys_business(code: int) -> None:
    source = weights()
    source[2, 16:32] = 0
    made = nvfp4.quantize(source)
    made.block_scales[2, 1] = code
    verdict = makers.judge(
        Sample(
            format="nvfp4",
            weights=source,
            payload=made.payload,
            scales=made.block_scales,
            global_scale=made.global_scale,
            direction="multiply",
        )
    )
    assert (verdict.wrong, verdict.blocks) == (0, source.size // 16 - 1)


def broken(**changes: Any) -> Sample:
    source = weights()
    made = nvfp4.quantize(source)
    given = {
        "weights": source,
        "payload": made.payload,
        "scales": made.block_scales,
        "global_scale": made.global_scale,
    }
    return Sample(format="nvfp4", direction="multiply", **{**given, **changes})


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf, 1e-45])
def test_a_useless_global_scale_has_no_verdict_or_a_harmless_one(scale: float) -> None:
    verdict = makers.judge(broken(global_scale=np.float32(scale)))
    assert verdict.blocks in (0, weights().size // 16)


def test_nan_weights_and_nan_scales_are_left_out() -> None:
    source = weights()
    source[0, 0], source[1, 0] = np.nan, np.inf
    scales = nvfp4.quantize(weights()).block_scales.copy()
    scales[2, 0] = 0x7F
    verdict = makers.judge(broken(weights=source, scales=scales))
    assert verdict.blocks == source.size // 16 - 3


def test_mx_scales_of_255_are_left_out() -> None:
    source = weights()
    made = mxfp4.quantize(source)
    made.block_scales[0, 0] = 255
    verdict = makers.judge(Sample(format="mxfp4", weights=source, payload=made.payload, scales=made.block_scales))
    assert (verdict.maker, verdict.wrong, verdict.blocks) == ("even", 0, source.size // 32 - 1)


def test_block_maxima_are_those_of_the_formats() -> None:
    assert np.array_equal(amax(weights()), blocks.block_amax(weights(), 16))
