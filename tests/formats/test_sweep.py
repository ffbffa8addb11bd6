"""The sweep for the smallest error against modelopt's own calibrator, its documented loop in torch, and known bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from publisher.formats import sweep

# BF16, torch's generator at zero: `(randn(2, 32) * 0.05).bfloat16()`
GOLDEN = (
    "67bd6cbd4dbcb2bc2e3d0e3d81bcd9bd843c81bd8f3c7c3cc43b7d3d653d4bbc8bbdaebde83c233df53c9fbd8cbcbe3d1a3df0bc0ebc163c8e3d"
    "a23d423d2dbdfbbccf3acabc4c3cb43cb83b033db53ca8bb223d6dbc2c3bd63cec3d96bda2bd0abd333d583d123c3dbca0bcdf3ca2bcb7bc183d"
    "9c3d2f3e9dbd7dbdba3de2bc"
)
LEVELS = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])


def nearest(scaled: torch.Tensor) -> torch.Tensor:
    """Values of E2M1 as modelopt's kernel nests its comparisons: a tie goes to the even code."""
    code = torch.zeros_like(scaled, dtype=torch.int64)
    for above, (limit, stays) in enumerate(
        ((0.25, True), (0.75, False), (1.25, True), (1.75, False), (2.5, True), (3.5, False), (5.0, True)), 1
    ):
        code[(scaled > limit) if stays else (scaled >= limit)] = above
    return LEVELS[code]


def documented(weight: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
    """`nvfp4_fp8_sweep.py`, line by line, with the sum taken in order."""
    found = torch.arange(0, 128, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    candidates = found[torch.isfinite(found) & (found > 0)] / 448.0
    magnitudes = weight.abs().view(-1, 16)
    best_loss, best = torch.full((len(magnitudes),), torch.inf), torch.zeros(len(magnitudes), dtype=torch.uint8)
    for index, share in enumerate(candidates):
        scale = share * largest / 6.0
        scale = torch.where(scale == 0.0, 1.0, scale)
        squares = (magnitudes - nearest(magnitudes / scale) * scale).square()
        loss = torch.zeros(len(magnitudes))
        for place in range(16):
            loss = loss + squares[:, place]
        better = loss < best_loss
        best_loss, best = torch.where(better, loss, best_loss), torch.where(better, index + 1, best).to(torch.uint8)
    return best.view(weight.shape[0], -1)


def weights(kind: str) -> torch.Tensor:
    random = torch.Generator().manual_seed(7)
    shape = (24, 256)
    if kind == "normal":
        return (torch.randn(shape, generator=random) * 0.02).bfloat16().float()
    if kind == "int4":
        scales = torch.rand((24, 8), generator=random).repeat_interleave(32, 1)
        return (torch.randint(-8, 8, shape, generator=random) * scales).bfloat16().float()
    if kind == "levels":
        return LEVELS[torch.randint(0, 8, shape, generator=random)] * 2.0 ** torch.randint(
            -9, 3, (24, 1), generator=random
        )
    values = torch.randn(shape, generator=random) * 10.0 ** torch.randint(
        -20, 18, (24, 16), generator=random
    ).repeat_interleave(16, 1)
    values[3] = 0
    return values


@pytest.mark.parametrize("kind", ["normal", "int4", "levels", "spread"])
@pytest.mark.parametrize("more", [1.0, 3.7])
def test_codes_are_those_of_the_documented_loop(kind: str, more: float) -> None:
    weight = weights(kind)
    largest = weight.abs().max() * more
    expected = documented(weight, largest)
    assert np.array_equal(sweep.block_scale_codes(weight.numpy(), np.float32(largest)), expected.numpy())


def test_codes_are_those_of_modelopts_calibrator_but_for_near_ties() -> None:
    mse = pytest.importorskip("modelopt.torch.quantization.calib.mse", reason="the modelopt extra is not installed")
    weight = weights("normal")
    blocks, largest = weight.view(-1, 16), weight.abs().max()

    def quantize(values: torch.Tensor, amax: torch.Tensor) -> torch.Tensor:
        scale = amax.view(-1, 1) / 6.0
        return nearest(values.abs() / scale) * scale * values.sign()

    calibrator = mse.NVFP4MSECalibrator(blocks.abs().amax(1, keepdim=True), largest, axis=0, quant_func=quantize)
    calibrator.collect(blocks)
    codes = sweep.block_scale_codes(weight.numpy(), np.float32(largest)).reshape(-1)
    theirs = calibrator.compute_amax().view(-1).numpy()
    ours = sweep.candidate_steps(np.float32(largest))[codes - 1] * np.float32(6)
    same = np.isclose(theirs, ours, rtol=1e-5)
    assert same.mean() > 0.99  # their sums have another order
    losses = sweep.losses(weight.numpy(), sweep.candidate_steps(np.float32(largest))).reshape(-1, 126)
    for block in np.flatnonzero(~same):
        other = np.abs(sweep.candidate_steps(np.float32(largest)) * 6 - theirs[block]).argmin()
        assert losses[block, other] == pytest.approx(losses[block].min(), rel=1e-5)


def test_known_bytes() -> None:
    bits = np.frombuffer(bytes.fromhex(GOLDEN), "<u2").astype(np.uint32) << 16
    tensor = sweep.quantize(bits.view(np.float32).reshape(2, 32))
    assert tensor.global_scale.tobytes().hex() == "55558538"
    assert tensor.block_scales.tobytes().hex() == "797a797e"
    assert tensor.payload.tobytes().hex() == "dda944fad2225195ed43e36ab41965c40b1b1223490a73ee3a1499923a75cda5"


def test_a_block_of_zeros_gets_the_first_candidate() -> None:
    weights = np.zeros((1, 48), np.float32)
    weights[0, 16], weights[0, 32] = 2688.0, 1e-3
    tensor = sweep.quantize(weights)
    assert tensor.block_scales.tolist() == [[0x01, 0x7E, 0x01]]
    assert tensor.payload.tobytes().hex() == "00" * 8 + "07" + "00" * 7 + "01" + "00" * 7
    assert sweep.quantize(np.zeros((1, 16), np.float32)).block_scales.tolist() == [[0x01]]


def test_what_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        sweep.quantize(np.full((1, 16), np.nan, np.float32))
