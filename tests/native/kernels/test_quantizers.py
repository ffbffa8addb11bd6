"""Either kernel of the CPU against the numpy reference and known bytes; torch's on a GPU against that on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from publisher import formats
from publisher.formats import sweep
from publisher.native import kernels
from publisher.native.kernels import portable, quantizers

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
TIES = [0.0, -0.0, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 6.0, -0.25, -0.75, -1.25, -1.75, -2.5, -3.5]


@pytest.fixture(params=["torch", "numba"], autouse=True)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test runs with both kernels, whatever the size of its matrices."""
    if request.param == "numba" and not kernels.accelerated():
        pytest.skip("numba, the extra `fast`, is not installed")
    monkeypatch.setattr(quantizers, "COMPILED_FROM", 0 if request.param == "numba" else 1 << 60)
    name: str = request.param
    return name


def weights(kind: str, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Matrices that exercise one thing each; finite in every dtype."""
    random = torch.Generator().manual_seed(seed)
    shape = (37, 320)
    if kind == "normal":
        values = torch.randn(shape, generator=random) * 0.02
    elif kind == "ties":
        values = torch.tensor(TIES).repeat(37, 20) * 2.0 ** torch.randint(-20, 8, (37, 1), generator=random)
    elif kind == "grid":
        values = (
            torch.randint(-56, 57, shape, generator=random) / 8 * 2.0 ** torch.randint(-9, 9, (37, 1), generator=random)
        )
    elif kind == "spread":
        values = torch.randn(shape, generator=random) * 10.0 ** torch.randint(
            -38, 38, (37, 10), generator=random
        ).repeat_interleave(32, 1)
    elif kind == "bits":
        values = torch.randint(-(2**31), 2**31, shape, generator=random).to(torch.int32).view(torch.float32)
    elif kind == "tiny":
        values = torch.randint(-9, 10, shape, generator=random).float() * 2.0**-149
    else:
        values = torch.zeros(shape)
        values[3, 5] = -0.0
    return torch.nan_to_num(torch.nan_to_num(values).to(dtype), nan=0.0, posinf=3.0, neginf=-3.0)


KINDS = ("normal", "ties", "grid", "spread", "bits", "tiny", "zero")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_nvfp4_gives_the_reference_bytes(kind: str, dtype: torch.dtype) -> None:
    weight = weights(kind, dtype)
    amax = kernels.block_amax(weight, 16)
    scale_2 = kernels.global_scale(kernels.largest(amax))
    payload, scales = kernels.quantize_nvfp4(weight, amax, scale_2)
    expected = formats.nvfp4.quantize(weight.float().numpy())
    assert scale_2.numpy().tobytes() == expected.global_scale.tobytes()
    assert np.array_equal(scales.view(torch.uint8).numpy(), expected.block_scales)
    assert np.array_equal(payload.numpy(), expected.payload)


@pytest.mark.parametrize("mode", formats.e8m0.MODES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_mxfp4_gives_the_reference_bytes(kind: str, dtype: torch.dtype, mode: formats.e8m0.Mode) -> None:
    weight = weights(kind, dtype)
    payload, scales = kernels.quantize_mxfp4(weight, kernels.block_amax(weight, 32), mode)
    expected = formats.mxfp4.quantize(weight.float().numpy(), mode=mode)
    assert np.array_equal(scales.numpy(), expected.block_scales)
    assert np.array_equal(payload.numpy(), expected.payload)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_compressed_tensors_arithmetic_gives_its_reference_bytes(kind: str, dtype: torch.dtype) -> None:
    weight, name = weights(kind, dtype), "compressed-tensors"
    amax = kernels.block_amax(weight, 16)
    scale = kernels.global_scale(kernels.largest(amax), name)
    payload, scales = kernels.quantize_nvfp4(weight, amax, scale, producer=name)
    expected = formats.nvfp4.quantize(weight.float().numpy(), policy=formats.nvfp4.POLICIES[name])
    assert scale.numpy().tobytes() == expected.global_scale.tobytes()
    assert np.array_equal(scales.view(torch.uint8).numpy(), expected.block_scales)
    assert np.array_equal(payload.numpy(), expected.payload)
    payload, scales = kernels.quantize_mxfp4(weight, kernels.block_amax(weight, 32), "even", producer=name)
    expected_mx = formats.mxfp4.quantize(weight.float().numpy(), policy=formats.mxfp4.POLICIES[name])
    assert np.array_equal(scales.numpy(), expected_mx.block_scales)
    assert np.array_equal(payload.numpy(), expected_mx.payload)


def test_every_bf16_value_beside_every_scale_boundary() -> None:
    """All 65,024 finite BF16 magnitudes and signs as a block's only weight and as its companion."""
    bits = torch.arange(0x10000, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    finite = bits[torch.isfinite(bits)]
    weight = torch.zeros((finite.numel(), 32), dtype=torch.bfloat16)
    weight[:, 0] = finite
    weight[:, 1] = finite / 3
    weight[:, 17] = finite / 5
    amax = kernels.block_amax(weight, 16)
    for scale in (2.0**-126, 1e-4, 0.37, 1e30):
        payload, scales = kernels.quantize_nvfp4(weight, amax, torch.tensor(scale))
        expected = formats.nvfp4.encode_rows(weight.float().numpy(), np.float32(scale))
        assert np.array_equal(scales.view(torch.uint8).numpy(), expected[1])
        assert np.array_equal(payload.numpy(), expected[0])
    for name in ("modelopt", "compressed-tensors"):
        policy = formats.nvfp4.POLICIES[name]
        for scale in (2.0**-100, 1e-4, 0.37, 1e4, 1e30):
            payload, scales = kernels.quantize_nvfp4(weight, amax, torch.tensor(scale), producer=name)
            expected = formats.nvfp4.encode_rows(weight.float().numpy(), np.float32(scale), policy)
            assert np.array_equal(scales.view(torch.uint8).numpy(), expected[1])
            assert np.array_equal(payload.numpy(), expected[0])
    for mode in formats.e8m0.MODES:
        payload, scales = kernels.quantize_mxfp4(weight, kernels.block_amax(weight, 32), mode)
        expected = formats.mxfp4.quantize(weight.float().numpy(), mode=mode)
        assert np.array_equal(scales.numpy(), expected.block_scales)
        assert np.array_equal(payload.numpy(), expected.payload)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_mse_gives_the_reference_bytes(kind: str, dtype: torch.dtype) -> None:
    weight = weights(kind, dtype)
    amax = kernels.block_amax(weight, 16)
    largest = kernels.largest(amax)
    meter = kernels.ErrorMeter.on(weight.device)
    expected = sweep.quantize(weight.float().clone().numpy())
    before = weight.clone()
    payload, scales = kernels.quantize_nvfp4_mse(weight, amax, largest, kernels.global_scale(largest), meter)
    assert torch.equal(weight, before)
    assert np.array_equal(scales.view(torch.uint8).numpy(), expected.block_scales)
    assert np.array_equal(payload.numpy(), expected.payload)


def test_mse_errs_less_than_max() -> None:
    weight = weights("normal", torch.bfloat16)
    amax = kernels.block_amax(weight, 16)
    largest = kernels.largest(amax)
    plain, best = kernels.ErrorMeter.on(weight.device), kernels.ErrorMeter.on(weight.device)
    kernels.quantize_nvfp4(weight, amax, kernels.global_scale(largest), plain)
    kernels.quantize_nvfp4_mse(weight, amax, largest, kernels.global_scale(largest), best)
    assert float(best.error) < 0.95 * float(plain.error)


def test_golden_codes_of_all_ties() -> None:
    """Codes that modelopt 0.47's `_cast_fp4` gives for these sixteen, at scale one (block amax 6, global 2688)."""
    weight = torch.zeros((1, 32), dtype=torch.bfloat16)
    weight[0, :16] = torch.tensor(TIES)
    weight[0, 16] = 2688.0
    amax = kernels.block_amax(weight, 16)
    payload, scales = kernels.quantize_nvfp4(weight, amax, kernels.global_scale(kernels.largest(amax)))
    assert scales.view(torch.uint8).tolist() == [[0x38, 0x7E]]
    assert payload[0, :8].numpy().tobytes().hex() == "0020426476a8caec"


def test_golden_mx_scales_of_the_even_mode() -> None:
    """Block maxima and the codes Quark 0.11.2 and compressed-tensors store for them."""
    expected = {6.0: 127, 6.5: 127, 7.0: 128, 4.0: 127, 3.5: 127, 3.484375: 126, 3.0: 126, 1.75: 126, 1.0: 125, 0.0: 0}
    amax = torch.tensor(list(expected))
    assert kernels.e8m0_codes(amax, "even").tolist() == list(expected.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_a_fused_group_shares_its_scale(dtype: torch.dtype) -> None:
    small, large = weights("normal", dtype, 1), weights("normal", dtype, 2) * 7
    amaxes = [kernels.block_amax(weight, 16) for weight in (small, large)]
    scale_2 = kernels.global_scale(torch.stack([kernels.largest(amax) for amax in amaxes]).amax())
    payload, scales = kernels.quantize_nvfp4(small, amaxes[0], scale_2)
    expected = formats.nvfp4.quantize(small.float().numpy(), global_amax=large.float().abs().max().item())
    assert np.array_equal(payload.numpy(), expected.payload)
    assert np.array_equal(scales.view(torch.uint8).numpy(), expected.block_scales)


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = weights("normal", torch.bfloat16)
    amax = kernels.block_amax(weight, 16)
    whole = kernels.quantize_nvfp4(weight, amax, torch.tensor(1e-4))
    monkeypatch.setattr(portable, "_CPU_CHUNK", 700)
    monkeypatch.setattr(quantizers, "_CHUNK", 700)
    pieces = kernels.quantize_nvfp4(weight, kernels.block_amax(weight, 16), torch.tensor(1e-4))
    assert torch.equal(whole[0], pieces[0])
    assert torch.equal(whole[1].view(torch.uint8), pieces[1].view(torch.uint8))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_not_finite_shows_in_the_maximum(dtype: torch.dtype, value: float) -> None:
    weight = weights("normal", dtype)
    weight[20, 77] = value
    assert not torch.isfinite(kernels.largest(kernels.block_amax(weight, 16)))
    assert kernels.count_not_finite(weight) == 1


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("form", ["nvfp4", "mxfp4"])
def test_the_meter_measures_the_error(form: str, dtype: torch.dtype) -> None:
    weight = weights("normal", dtype)
    meter = kernels.ErrorMeter.on(weight.device)
    exact = weight.double().numpy()
    if form == "nvfp4":
        amax = kernels.block_amax(weight, 16)
        scale = kernels.global_scale(kernels.largest(amax))
        payload, scales = kernels.quantize_nvfp4(weight, amax, scale, meter)
        stored = formats.nvfp4.dequantize(payload.numpy(), scales.view(torch.uint8).numpy(), float(scale))
    else:
        payload, scales = kernels.quantize_mxfp4(weight, kernels.block_amax(weight, 32), "even", meter)
        stored = formats.mxfp4.dequantize(payload.numpy(), scales.numpy())
    assert float(meter.error) == pytest.approx(np.square(stored - exact).sum(), rel=1e-5)
    assert float(meter.weight) == pytest.approx(np.square(exact).sum(), rel=1e-5)


def test_weights_that_are_a_view_of_others(kernel: str) -> None:
    wide = weights("normal", torch.bfloat16)
    view = wide[:, :64]
    amax = kernels.block_amax(view, 16)
    payload, _ = kernels.quantize_nvfp4(view, amax, kernels.global_scale(kernels.largest(amax)))
    assert np.array_equal(payload.numpy(), formats.nvfp4.quantize(view.float().numpy()).payload)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch.cuda.is_available() is false: no CUDA or ROCm device")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_gpu_and_cpu_give_the_same_bytes(kind: str, dtype: torch.dtype) -> None:
    weight = weights(kind, dtype)
    other = weight.cuda()
    amax, amax_gpu = kernels.block_amax(weight, 16), kernels.block_amax(other, 16)
    scale_2 = kernels.global_scale(kernels.largest(amax_gpu))
    assert torch.equal(scale_2, kernels.global_scale(kernels.largest(amax)))
    pairs = [(kernels.quantize_nvfp4(weight, amax, scale_2), kernels.quantize_nvfp4(other, amax_gpu, scale_2))]
    amax, amax_gpu = kernels.block_amax(weight, 32), kernels.block_amax(other, 32)
    for mode in formats.e8m0.MODES:
        pairs.append((kernels.quantize_mxfp4(weight, amax, mode), kernels.quantize_mxfp4(other, amax_gpu, mode)))
    for on_cpu, on_gpu in pairs:
        assert torch.equal(on_cpu[0], on_gpu[0].cpu())
        assert torch.equal(on_cpu[1].view(torch.uint8), on_gpu[1].view(torch.uint8).cpu())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch.cuda.is_available() is false: no CUDA or ROCm device")
def test_gpu_chunks_and_the_meter() -> None:
    weight = torch.randn((9000, 8192), generator=torch.Generator().manual_seed(3)).bfloat16()
    results = []
    for place in (weight, weight.cuda()):
        meter = kernels.ErrorMeter.on(place.device)
        amax = kernels.block_amax(place, 16)
        payload, scales = kernels.quantize_nvfp4(place, amax, kernels.global_scale(kernels.largest(amax)), meter)
        results.append((payload.cpu(), scales.view(torch.uint8).cpu(), float((meter.error / meter.weight).sqrt())))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert results[0][2] == pytest.approx(results[1][2], rel=1e-4)


def test_chunks_go_to_threads_in_inference_mode_too() -> None:
    weight = (torch.randn(512, 2048, generator=torch.Generator().manual_seed(3)) * 0.02).bfloat16()
    with torch.inference_mode():
        inside = kernels.quantize_mxfp4(weight.clone(), kernels.block_amax(weight, 32), "even")
    outside = kernels.quantize_mxfp4(weight, kernels.block_amax(weight, 32), "even")
    assert all(torch.equal(one, other) for one, other in zip(inside, outside, strict=True))
