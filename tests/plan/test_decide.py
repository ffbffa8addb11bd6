"""Plans of whole models: a dense one, a mixture of experts at full size, and what real configurations give."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.plan.decide import make_plan
from tests.builders import sources
from tests.builders.tiny import kimi as kimi_tiny
from tests.builders.tiny import mixture


def test_a_dense_tied_model(headers: Any, shapes: Any, recipe: Any) -> None:
    plan = make_plan(recipe(keep=["lm_head"]), headers(shapes("llama", layers=12)), commit="c0ffee")
    assert plan.problems == ()
    assert [d.module.rpartition(".")[2] for d in plan.quantized[:3]] == ["down_proj", "gate_proj", "up_proj"]
    assert len(plan.quantized) == 36
    assert len(plan.kept) == 12 * 4 + 1
    # The head has no tensor, but engines build one; modelopt 0.47 lists it too.
    assert plan.exclude[:4] == (
        "lm_head",
        "model.embed_tokens",
        "model.layers.0.self_attn*",
        "model.layers.1.self_attn*",
    )
    assert plan.exclude[-1] == "model.layers.11.self_attn*"
    assert len(plan.exclude) == 14
    assert plan.source_commit == "c0ffee"
    assert any("lm_head" in warning and "matches nothing" in warning for warning in plan.warnings)


def test_modules_that_share_a_global_scale_carry_their_fused_layer(headers: Any, shapes: Any, recipe: Any) -> None:
    plan = make_plan(recipe(quantize=["model.layers.*"]), headers(shapes("llama", layers=1)))
    groups = {d.module.rpartition(".")[2]: d.group for d in plan.quantized}
    base = "model.layers.0"
    assert groups == {
        "q_proj": f"{base}.self_attn.qkv_proj",
        "k_proj": f"{base}.self_attn.qkv_proj",
        "v_proj": f"{base}.self_attn.qkv_proj",
        "o_proj": None,
        "gate_proj": f"{base}.mlp.gate_up_proj",
        "up_proj": f"{base}.mlp.gate_up_proj",
        "down_proj": None,
    }


def test_sizes_are_those_of_the_tensors_that_will_be_written(headers: Any, shapes: Any, recipe: Any) -> None:
    checkpoint = headers(shapes("llama", layers=2, hidden=64, inner=96))
    weights = 2 * 3 * 64 * 96
    untouched = checkpoint.tensor_bytes - 2 * weights
    nvfp4 = make_plan(recipe(), checkpoint)
    assert nvfp4.bytes_before == checkpoint.tensor_bytes
    assert nvfp4.bytes_after == untouched + weights // 2 + weights // 16 + 4 * 6
    mxfp4 = make_plan(recipe(format="mxfp4"), checkpoint)
    assert mxfp4.bytes_after == untouched + weights // 2 + weights // 32
    calibrated = make_plan(recipe(engine="modelopt", calibration={"data": "c"}, kv_cache="fp8"), checkpoint)
    assert calibrated.bytes_after == nvfp4.bytes_after + 4 * 6 + 2 * 8
    assert sum(item.bytes_after for item in nvfp4.classes) == nvfp4.bytes_after - 5 * 2 * 64


@pytest.mark.parametrize("number_format", ["nvfp4", "mxfp4"])
def test_a_kimi_k2_of_full_size(headers: Any, shapes: Any, recipe: Any, number_format: str) -> None:
    checkpoint = headers(
        shapes("kimi"), {"model_type": "kimi_k25", "architectures": ["KimiK25ForConditionalGeneration"]}
    )
    started = time.perf_counter()
    plan = make_plan(recipe(format=number_format, quantize=["*.mlp.experts.*"]), checkpoint)
    assert time.perf_counter() - started < 60  # linear: about two seconds; quadratic would be hours
    assert plan.problems == ()
    assert len(plan.quantized) == 60 * 384 * 3 == 69_120
    assert len(plan.exclude) < 250
    # Published K2.x FP4 checkpoints are 590 to 595 GB (NVFP4) and about 32 GB less in MXFP4.
    low, high = {"nvfp4": (590e9, 600e9), "mxfp4": (558e9, 568e9)}[number_format]
    assert low < plan.bytes_after < high
    assert plan.disk_needed >= plan.bytes_after
    assert plan.memory_needed < 8 << 30  # streams: bounded by the largest fused group, not by the model
    assert plan.shards >= plan.bytes_after // 5_000_000_000
    experts = next(item for item in plan.classes if item.pattern.endswith("experts.*.up_proj"))
    assert (experts.modules, experts.shape, experts.action) == (23_040, (2048, 7168), "quantize")


def test_twice_the_experts_take_about_twice_the_time(headers: Any, shapes: Any, recipe: Any) -> None:
    def seconds(experts: int) -> float:
        checkpoint = headers(shapes("kimi", layers=31, experts=experts, vision=0))
        started = time.perf_counter()
        make_plan(recipe(quantize=["*.mlp.experts.*"]), checkpoint)
        return time.perf_counter() - started

    assert seconds(192) < 10 * seconds(48)  # four times the tensors; quadratic would be sixteen


def test_the_same_input_gives_the_same_plan(headers: Any, shapes: Any, recipe: Any) -> None:
    tensors = shapes("llama", layers=2)
    first = make_plan(recipe(), headers(tensors))
    assert make_plan(recipe(), headers(dict(reversed(tensors.items())))).digest == first.digest
    assert make_plan(recipe(keep=["*.down_proj"]), headers(tensors)).digest != first.digest


def test_a_checkpoint_on_disk(folder: Callable[..., Any], shapes: Any, recipe: Any) -> None:
    tensors = shapes("llama", layers=2, head=True)
    names = list(tensors)
    first = {name: tensors[name] for name in names[:9]}
    second = {name: tensors[name] for name in names[9:]}
    shards = {"model-00001-of-00002.safetensors": first, "model-00002-of-00002.safetensors": second}
    index = [(name, shard) for shard, held in shards.items() for name in held]
    plan = make_plan(recipe(shard_size=50_000), folder(shards, index=index))
    assert plan.problems == ()
    assert plan.source_label.endswith("/source")
    assert plan.shards >= plan.bytes_after / 50_000
    assert "lm_head" in plan.exclude


@pytest.mark.slow
def test_models_as_transformers_saves_them(tmp_path: Path, recipe: Any) -> None:
    """Names and configurations come from transformers itself: a dense, a Qwen MoE and a DeepSeek model."""
    import torch
    from transformers import AutoModelForCausalLM as Auto
    from transformers import DeepseekV3Config, LlamaConfig, Qwen3MoeConfig

    common = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 64,
    }
    moe = {"moe_intermediate_size": 32, "num_experts_per_tok": 2}
    mla = {"q_lora_rank": 32, "kv_lora_rank": 32, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 16}
    deepseek = {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "head_dim": 16}
    cases = [
        (LlamaConfig(**common), ["*.mlp.*_proj"], 6),
        (Qwen3MoeConfig(**common, **moe, num_experts=4, head_dim=16), ["*.mlp.experts.*"], 24),
        (DeepseekV3Config(**{**common, "num_key_value_heads": 4}, **moe, **mla, **deepseek), ["*.mlp.*_proj"], 18),
    ]
    for number, (config, patterns, expected) in enumerate(cases):
        folder = tmp_path / str(number)
        Auto.from_config(config).to(torch.bfloat16).save_pretrained(folder)
        for number_format in ("nvfp4", "mxfp4"):
            plan = make_plan(recipe(quantize=patterns, format=number_format), open_checkpoint(folder))
            assert plan.problems == (), config.model_type
            assert len(plan.quantized) == expected, config.model_type
            assert not any(d.module.endswith(".gate") for d in plan.quantized)


@pytest.mark.parametrize("kind", ["int4", "fp8"])
def test_a_source_in_int4_or_fp8_is_planned_as_the_matrices_it_stands_for(
    kind: str, tmp_path: Path, recipe: Any
) -> None:
    stored, meant = sources.int4(kimi_tiny()) if kind == "int4" else sources.fp8(mixture())
    meant.config = {key: value for key, value in meant.config.items() if key != "quantization_config"}
    change = {"quantize": ["*.mlp.*_proj"], "keep": ["*.layers.2.*"]}
    ours = make_plan(recipe(**change), open_checkpoint(stored.write(tmp_path / "a")))
    theirs = make_plan(recipe(**change), open_checkpoint(meant.write(tmp_path / "b")))
    assert ours.problems == ()
    assert ours.decisions == theirs.decisions
    assert (ours.bytes_after, ours.exclude) == (theirs.bytes_after, theirs.exclude)
    assert ours.bytes_before == sum(len(tensor.data) for tensor in stored.tensors.values())
    assert [(c.pattern, c.shape, c.bytes_after) for c in ours.classes] == [
        (c.pattern, c.shape, c.bytes_after) for c in theirs.classes
    ]
    told = "\n".join(ours.warnings)
    assert f"weights to quantize are stored in {kind.upper()} and decoded to BF16" in told
    assert f"kept weights are stored in {kind.upper()}, which cannot stay" in told
    assert "model.layers.*.mlp.experts.*.up_proj (4)" in told


def test_modelopt_is_not_asked_to_read_them(tmp_path: Path, recipe: Any) -> None:
    checkpoint = open_checkpoint(sources.fp8(mixture())[0].write(tmp_path))
    plan = make_plan(recipe(engine="modelopt", calibration={"data": "text"}), checkpoint)
    assert any("stored in FP8, which engine modelopt does not decode; use engine native" in p for p in plan.problems)


@pytest.mark.parametrize(("form", "layout"), [("nvfp4", "compressed-tensors"), ("mxfp4", "quark")])
def test_a_kimi_k2_as_published_in_int4(headers: Any, shapes: Any, recipe: Any, form: str, layout: str) -> None:
    """Headers with routed experts packed: no tensor is read, not even the stored shapes, and sizes are those of BF16.

    At full size `test_published` counts them.
    """
    plain = shapes("kimi", layers=4, experts=96)
    tensors: dict[str, Any] = {}
    for name, (dtype, shape) in plain.items():
        if ".mlp.experts." in name:
            module = name.removesuffix(".weight")
            tensors[f"{module}.weight_packed"] = ("I32", (shape[0], shape[1] // 8))
            tensors[f"{module}.weight_scale"] = ("BF16", (shape[0], shape[1] // 32))
            tensors[f"{module}.weight_shape"] = ("I32", (2,))
        else:
            tensors[name] = (dtype, shape)
    config = {"model_type": "kimi_k25", "architectures": ["KimiK25ForConditionalGeneration"]}
    asked = recipe(format=form, layout=layout, quantize=["*.mlp.experts.*"])
    plan, meant = make_plan(asked, headers(tensors, config)), make_plan(asked, headers(plain, config))
    assert plan.problems == meant.problems == ()
    assert len(plan.quantized) == 3 * 96 * 3
    assert plan.decisions == meant.decisions
    assert (plan.bytes_after, plan.exclude) == (meant.bytes_after, meant.exclude)
    assert plan.bytes_before < 0.5 * meant.bytes_before
