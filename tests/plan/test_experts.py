"""Experts in one tensor per layer: what they become in a plan, with sizes, and what no loader reads."""

from __future__ import annotations

from typing import Any

import pytest

from publisher.plan.decide import make_plan
from publisher.plan.model import QUANTIZE

EXPERTS, HIDDEN, INNER = 4, 64, 96
QWEN = {"model_type": "qwen3_vl_moe", "architectures": ["Qwen3VLMoeForConditionalGeneration"]}
GPT_OSS = {
    "model_type": "gpt_oss",
    "architectures": ["GptOssForCausalLM"],
    "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]},
}


def fused(shapes: Any, *, turned: bool = False, **layers: Any) -> dict[str, Any]:
    both, down = (EXPERTS, 2 * INNER, HIDDEN), (EXPERTS, HIDDEN, INNER)
    if turned:
        both, down = (both[0], both[2], both[1]), (down[0], down[2], down[1])
    found = dict(shapes("llama", **layers))
    for layer in range(2):
        base = f"model.layers.{layer}.mlp"
        for name in [name for name in found if name.startswith(f"{base}.")]:
            del found[name]
        found[f"{base}.experts.gate_up_proj"] = ("BF16", both)
        found[f"{base}.experts.down_proj"] = ("BF16", down)
        found[f"{base}.gate.weight"] = ("BF16", (EXPERTS, HIDDEN))
    return found


def gpt_oss(shapes: Any, layers: int = 2) -> dict[str, Any]:
    found = dict(shapes("llama", layers=layers, head=True))
    for layer in range(layers):
        base = f"model.layers.{layer}.mlp"
        for name in [name for name in found if name.startswith(f"{base}.")]:
            del found[name]
        for projection, rows, columns in (("gate_up_proj", 2 * INNER, HIDDEN), ("down_proj", HIDDEN, INNER)):
            stack = f"{base}.experts.{projection}"
            found[f"{stack}_blocks"] = ("U8", (EXPERTS, rows, columns // 32, 16))
            found[f"{stack}_scales"] = ("U8", (EXPERTS, rows, columns // 32))
            found[f"{stack}_bias"] = ("BF16", (EXPERTS, rows))
        found[f"{base}.router.weight"] = ("BF16", (EXPERTS, HIDDEN))
        found[f"{base}.router.bias"] = ("BF16", (EXPERTS,))
    return found


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("pattern", ["*.experts.*", "*.mlp.experts", "*.experts.*_proj", "*.experts.gate_up_proj"])
def test_a_stack_becomes_experts_of_their_own(
    turned: bool, pattern: str, headers: Any, shapes: Any, recipe: Any
) -> None:
    both = [pattern] if "gate_up" not in pattern else [pattern, "*.experts.down_proj"]
    plan = make_plan(recipe(quantize=both), headers(fused(shapes, turned=turned), QWEN))
    assert plan.problems == ()
    names = [decision.module for decision in plan.quantized]
    parts = ("down_proj", "gate_proj", "up_proj")
    assert names == [f"model.layers.{n}.mlp.experts.{e}.{p}" for n in range(2) for e in range(EXPERTS) for p in parts]
    groups = {decision.group for decision in plan.quantized if not decision.module.endswith("down_proj")}
    assert groups == {f"model.layers.{n}.mlp.experts.{e}.gate_up_proj" for n in range(2) for e in range(EXPERTS)}
    rows = {row.pattern: row for row in plan.classes if row.action == QUANTIZE}
    gate = rows["model.layers.*.mlp.experts.*.gate_proj"]
    assert (gate.modules, gate.shape, gate.bytes_before) == (8, (INNER, HIDDEN), 8 * INNER * HIDDEN * 2)
    assert gate.bytes_after == 8 * (INNER * HIDDEN * 9 // 16 + 4)
    other = sum(row.bytes_before - row.bytes_after for row in rows.values())
    assert plan.bytes_before - plan.bytes_after == other
    assert plan.memory_needed < 530 << 20  # one expert's pair at a time, not the stack


def test_a_stack_that_nobody_asks_for_is_copied(headers: Any, shapes: Any, recipe: Any) -> None:
    plan = make_plan(recipe(quantize=["*.self_attn.*"]), headers(fused(shapes), QWEN))
    assert plan.problems == ()
    kept = {decision.module for decision in plan.kept}
    assert {"model.layers.0.mlp.experts", "model.layers.1.mlp.experts"} <= kept
    assert any("mlp" in entry for entry in plan.exclude)


def test_some_experts_of_a_stack_cannot_stay(headers: Any, shapes: Any, recipe: Any) -> None:
    plan = make_plan(recipe(quantize=["*.experts.*"], keep=["*.experts.3.*"]), headers(fused(shapes), QWEN))
    assert any("9 expert projections of a layer would be quantized and 3 kept" in text for text in plan.problems)


def test_only_engine_native_takes_a_stack_apart(headers: Any, shapes: Any, recipe: Any) -> None:
    asked = recipe(quantize=["*.experts.*"], engine="modelopt", activations="none")
    text = " ".join(make_plan(asked, headers(fused(shapes), QWEN)).problems)
    assert "lie in one tensor per layer, which engine modelopt does not split; use engine native" in text


def test_shapes_that_do_not_tell_are_a_problem_with_the_reason(headers: Any, shapes: Any, recipe: Any) -> None:
    tensors = fused(shapes)
    tensors["model.layers.1.mlp.experts.down_proj"] = ("BF16", (EXPERTS, 40, 40))
    plan = make_plan(recipe(quantize=["*.experts.*"]), headers(tensors, QWEN))
    assert plan.problems == (
        "model.layers.*.mlp.experts (1) hold all experts of a layer in one tensor and cannot be quantized: the source "
        "has no weight of this name",
    )


def test_stacks_of_other_names_are_a_problem(headers: Any, shapes: Any, recipe: Any) -> None:
    tensors = {**shapes("llama"), "model.layers.0.mlp.experts.w13": ("BF16", (4, 64, 64))}
    plan = make_plan(recipe(quantize=["*.experts*"]), headers(tensors, QWEN))
    assert "experts stored as w13 are not known here; split them into 2-D tensors" in " ".join(plan.problems)


def test_gpt_oss_in_mxfp4_is_repacked_expert_by_expert_in_quark_layout(headers: Any, shapes: Any, recipe: Any) -> None:
    plan = make_plan(recipe(quantize=["*.experts.*"], format="mxfp4"), headers(gpt_oss(shapes), GPT_OSS))
    assert plan.problems == ()
    parts = ("down_proj", "gate_up_proj")
    assert [decision.module for decision in plan.quantized] == [
        f"model.layers.{n}.mlp.experts.{e}.{p}" for n in range(2) for e in range(EXPERTS) for p in parts
    ]
    assert plan.bytes_after == plan.bytes_before
    assert "16 weights to quantize are stored in MXFP4 and take their codes over as they are" in plan.warnings


def test_gpt_oss_in_nvfp4_stays_in_stacks(headers: Any, shapes: Any, recipe: Any) -> None:
    plan = make_plan(recipe(quantize=["*.experts.*"]), headers(gpt_oss(shapes), GPT_OSS))
    assert plan.problems == ()
    names = [f"model.layers.{n}.mlp.experts.{p}" for n in range(2) for p in ("down_proj", "gate_up_proj")]
    assert [decision.module for decision in plan.quantized] == names
    weights = 2 * EXPERTS * (2 * INNER * HIDDEN + HIDDEN * INNER)
    assert plan.bytes_after - plan.bytes_before == weights // 32 + 4 * 4  # two E4M3 for each E8M0; four scalars
    rows = {row.pattern: row for row in plan.classes if row.action == QUANTIZE}
    assert rows["model.layers.*.mlp.experts.gate_up_proj"].shape == (EXPERTS, 2 * INNER, HIDDEN)
    assert any("wherever NVFP4's scales reach" in text for text in plan.warnings)
    assert "these experts are read by SGLang in modelopt layout, by no other engine that is known" in plan.warnings
    assert any("to read a stack of experts weight-only" in text for text in plan.warnings)


@pytest.mark.parametrize("form", ["nvfp4", "mxfp4"])
def test_gpt_oss_in_a_layout_nobody_reads_is_refused(form: str, headers: Any, shapes: Any, recipe: Any) -> None:
    asked = recipe(quantize=["*.experts.*"], format=form, layout="compressed-tensors")
    assert make_plan(asked, headers(gpt_oss(shapes), GPT_OSS)).problems[0] == (
        "model.layers.*.mlp.experts (2) hold all experts of a layer in one tensor and cannot be quantized: no serving "
        "engine is known to read gpt-oss's experts so; write mxfp4 in quark layout or nvfp4 in modelopt layout"
    )


def test_blocks_cannot_stay_beside_another_format(headers: Any, shapes: Any, recipe: Any) -> None:
    plan = make_plan(recipe(quantize=["*.self_attn.*"]), headers(gpt_oss(shapes), GPT_OSS))
    assert plan.problems == (
        "model.layers.*.mlp.experts (2) hold experts in MXFP4 blocks, which no engine reads beside another format; "
        "quantize them too, or nothing",
    )


def test_blocks_without_scales_are_a_problem(headers: Any, shapes: Any, recipe: Any) -> None:
    tensors = gpt_oss(shapes)
    del tensors["model.layers.0.mlp.experts.down_proj_scales"]
    plan = make_plan(recipe(quantize=["*.experts.*"]), headers(tensors, GPT_OSS))
    assert "cannot be quantized: its blocks have no down_proj_scales beside them" in plan.problems[0]


@pytest.mark.parametrize(("form", "mode", "usual"), [("mxfp4", "floor", "even"), ("nvfp4", "four-over-six", "max")])
def test_a_mode_that_would_choose_nothing_is_refused(
    form: str, mode: str, usual: str, headers: Any, shapes: Any, recipe: Any
) -> None:
    checkpoint = headers(gpt_oss(shapes), GPT_OSS)
    (text,) = make_plan(recipe(quantize=["*.experts.*"], format=form, mode=mode), checkpoint).problems
    assert f"`mode`: {mode} chooses scales" in text
    assert "mlp.experts" in text
    assert text.endswith(f"use {usual}")
    assert make_plan(recipe(quantize=["*.experts.*"], format=form, mode=usual), checkpoint).problems == ()


def test_a_mode_for_what_lies_beside_the_blocks_is_taken(headers: Any, shapes: Any, recipe: Any) -> None:
    asked = recipe(quantize=["*.experts.*", "*.self_attn.*"], mode="mse")
    assert make_plan(asked, headers(gpt_oss(shapes), GPT_OSS)).problems == ()
