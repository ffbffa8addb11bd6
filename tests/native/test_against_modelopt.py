"""modelopt 0.47 itself, byte for byte: its exporter on tiny models, its arithmetic on every tie, its sweep of scales.

The sweep is CUDA only; its documented algorithm is written out in `tests/builders/sweeps.py`, and the calibrator that
runs it is modelopt's own, with that round trip in the place of the kernel.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from publisher.checkpoint.modules import fused_groups
from publisher.native import kernels
from publisher.native.kernels import quantizers
from tests.builders import adversarial, sweeps

mtq = pytest.importorskip("modelopt.torch.quantization", reason="the modelopt extra is not installed")
transformers = pytest.importorskip("transformers", reason="the modelopt extra is not installed")

pytestmark = [pytest.mark.engine, pytest.mark.slow]
Write = Callable[..., Path]
Run = Callable[..., tuple[int, list[dict[str, Any]], str]]


def llama() -> Any:
    config = transformers.LlamaConfig(
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=128,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    return transformers.LlamaForCausalLM(config)


def qwen3_moe() -> Any:
    config = transformers.Qwen3MoeConfig(
        hidden_size=64,
        intermediate_size=96,
        moe_intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        num_experts=4,
        num_experts_per_tok=2,
        vocab_size=128,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    return transformers.Qwen3MoeForCausalLM(config)


def deepseek_v3() -> Any:
    config = transformers.DeepseekV3Config(
        hidden_size=64,
        intermediate_size=96,
        moe_intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        q_lora_rank=32,
        kv_lora_rank=32,
        qk_rope_head_dim=16,
        qk_nope_head_dim=16,
        v_head_dim=16,
        n_routed_experts=4,
        n_shared_experts=1,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=1,
        vocab_size=128,
        max_position_embeddings=64,
    )
    return transformers.DeepseekV3ForCausalLM(config)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


@pytest.mark.parametrize("make", [llama, qwen3_moe, deepseek_v3], ids=lambda make: make.__name__)
@pytest.mark.parametrize("preset", ["NVFP4_DEFAULT_CFG", "W4A16_NVFP4_CFG"])
def test_payload_and_scales_equal_those_of_modelopts_export(
    job: Write, tmp_path: Path, run_program: Run, make: Callable[[], Any], preset: str
) -> None:
    from modelopt.torch.export import export_hf_checkpoint

    if not hasattr(mtq, preset):
        pytest.fail(f"modelopt has no preset {preset}")
    torch.manual_seed(11)
    model = make().to(torch.bfloat16).eval()
    for parameter in model.parameters():  # magnitudes that differ between fused members
        parameter.data.mul_(float(torch.rand(()) * 8 + 0.5))
    model.save_pretrained(tmp_path / "source", max_shard_size="60KB")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "source", dtype=torch.bfloat16)
    tokens = torch.randint(0, 128, (4, 32))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = mtq.quantize(model, getattr(mtq, preset), lambda module: module(tokens))
        with torch.inference_mode():
            export_hf_checkpoint(quantized, export_dir=tmp_path / "modelopt")
    theirs = tensors(tmp_path / "modelopt")

    names = sorted(name.removesuffix("_scale_2").removesuffix(".weight") for name in theirs if name.endswith("scale_2"))
    assert len(names) >= 14
    path = job(tmp_path / "run/job.json", tmp_path / "source", names, groups=fused_groups(names), shard_size=20_000)
    code, events, stderr = run_program(path)
    assert code == 0, (events[-1], stderr)
    ours = tensors(tmp_path / "run/checkpoint")
    for name in names:
        for suffix in ("weight", "weight_scale", "weight_scale_2"):
            mine, other = ours[f"{name}.{suffix}"], theirs[f"{name}.{suffix}"]
            assert (mine.dtype, mine.shape) == (other.dtype, other.shape), f"{name}.{suffix}"
            assert torch.equal(mine.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8)), (
                f"{name}.{suffix}"
            )
    for name in theirs.keys() - {key for key in theirs if "scale" in key} - {f"{name}.weight" for name in names}:
        assert torch.equal(ours[name], theirs[name]), name


# --- the arithmetic ------------------------------------------------------------------------------------------------

SLICE = Path(__file__).parents[1] / "released/sources/slice"  # the corner of two layers of a real model
SMALLEST = 2.0**-126 * 2688  # of a smaller largest weight the global scale would be subnormal; native raises it


@pytest.fixture(params=["torch", "numba", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Where and by which kernel."""
    if request.param == "gpu":
        if not torch.cuda.is_available():
            pytest.skip("torch sees no GPU")
        return torch.device("cuda")
    if request.param == "numba" and not kernels.accelerated():
        pytest.skip("numba, the extra `fast`, is not installed")
    monkeypatch.setattr(quantizers, "COMPILED_FROM", 0 if request.param == "numba" else 1 << 60)
    return torch.device("cpu")


def weight(case: str) -> Tensor:
    return torch.from_numpy(adversarial.CASES[case](16).view("int16").copy()).view(torch.bfloat16)


def same(ours: Tensor, theirs: Tensor) -> None:
    one, other = (tensor.cpu().contiguous().view(torch.uint8) for tensor in (ours, theirs))
    differing = (one != other).nonzero()
    assert not len(differing), f"{len(differing):,} of {one.numel():,} bytes differ, first at {differing[0].tolist()}"


def real() -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors(SLICE).items() if name.endswith("_proj.weight")}


def equal_to_modelopt(values: Tensor, device: torch.device) -> None:
    from modelopt.torch.quantization.qtensor import NVFP4QTensor

    made, theirs, second = NVFP4QTensor.quantize(values.clone(), 16)
    there = values.to(device)
    amax = kernels.block_amax(there, 16)
    scale_2 = kernels.global_scale(kernels.largest(amax))
    assert float(scale_2) == float(second)
    payload, scales = kernels.quantize_nvfp4(there, amax, scale_2)
    same(scales, theirs)
    same(payload, made._quantized_data)


@pytest.mark.parametrize("case", adversarial.CASES)
def test_adversarial_weights(case: str, device: torch.device) -> None:
    values = weight(case)
    if values.abs().max() < SMALLEST:
        values = values.float() * 2.0**120  # exact; what is too small in BF16 is met in float32
    equal_to_modelopt(values, device)


def test_real_weights(device: torch.device) -> None:
    assert len(real()) == 14
    for values in real().values():
        equal_to_modelopt(values, device)


def test_the_demo_model_where_it_is_made(device: torch.device) -> None:
    folder = Path(__file__).parents[2] / "demo-output/source"
    if not folder.exists():
        pytest.skip("demo-output/source is not there; `make demo` makes it")
    for name, values in list(tensors(folder).items())[::40]:
        if name.endswith("_proj.weight"):
            equal_to_modelopt(values, device)


# --- the sweep -----------------------------------------------------------------------------------------------------


def few(case: str) -> Tensor:
    """Some rows throughout a case: trying 126 scales in plain torch takes its time."""
    values = weight(case)
    chosen = values[:: max(len(values) // 24, 1)]
    return chosen.clone()


def swept(values: Tensor, device: torch.device) -> Tensor:
    there = values.to(device)
    amax = kernels.block_amax(there, 16)
    largest = kernels.largest(amax)
    payload, scales = kernels.quantize_nvfp4_mse(there, amax, largest, kernels.global_scale(largest))
    assert payload.shape == (values.shape[0], values.shape[1] // 2)
    return scales.cpu()


@pytest.mark.parametrize("case", [case for case in adversarial.CASES if case not in ("subnormal", "tiny")])
def test_the_sweep_as_documented(case: str, device: torch.device) -> None:
    values = few(case)
    same(swept(values, device), sweeps.swept_scales(values, values.abs().amax().float()))


def test_the_sweep_of_real_weights(device: torch.device) -> None:
    for name, values in real().items():
        if "down_proj" in name or "k_proj" in name:
            same(swept(values, device), sweeps.swept_scales(values, values.abs().amax().float()))


@pytest.mark.parametrize("case", ["ordinary", "heavy tails", "all equal", "every tie", "zeros"])
def test_modelopts_calibrator_chooses_the_same(case: str, device: torch.device) -> None:
    """Its own candidates, loop and choice; it adds sixteen errors in another order, which may decide a near tie."""
    from modelopt.torch.quantization.calib.mse import NVFP4MSECalibrator
    from modelopt.torch.quantization.qtensor.nvfp4_tensor import _cast_per_block_scale_to_fp8

    values = few(case)
    largest, blocks = values.abs().amax().float(), values.float().view(-1, 16)

    def round_trip(x: Tensor, amax: Tensor) -> Tensor:
        step = (amax / 6.0).view(-1, 1)
        step = torch.where(step == 0, torch.ones(()), step)
        return sweeps.rounded(x.abs() / step) * step * x.sign()

    first = blocks.abs().amax(-1, keepdim=True)
    calibrator = NVFP4MSECalibrator(amax=first, global_amax=largest, axis=0, quant_func=round_trip)
    calibrator.collect(blocks)
    theirs = _cast_per_block_scale_to_fp8(calibrator.compute_amax() / 6.0, largest / 6.0).view(torch.uint8).view(-1)
    ours = swept(values, device).view(torch.uint8).view(-1)
    losses = sweeps.losses(values, largest).view(126, -1)
    one, other = (losses.gather(0, codes.long()[None] - 1)[0] for codes in (ours, theirs))
    assert (one <= other).all(), "no candidate of theirs is better"
    near = (other - one) <= 1e-5 * other
    assert near.all(), "where the choice differs, the errors are equal but for the order of addition"
    assert (ours != theirs).float().mean() < 0.01
