"""modelopt 0.47 itself: its quantizer and its exporter on tiny random models, against ours, byte for byte."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from publisher.checkpoint.modules import fused_groups

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
