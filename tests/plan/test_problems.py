"""What a recipe asks of a source that cannot work is named, with numbers and the remedy, before any work."""

from __future__ import annotations

from typing import Any

import pytest

from publisher.plan.decide import make_plan


def problems(headers: Any, recipe: Any, tensors: dict[str, Any], config: Any = None, **change: Any) -> str:
    checkpoint = headers(tensors, config) if config else headers(tensors)
    return "\n".join(make_plan(recipe(**change), checkpoint).problems)


def test_inputs_that_are_no_multiple_of_the_block(headers: Any, shapes: Any, recipe: Any) -> None:
    tensors = shapes("llama", layers=3, hidden=64, inner=40)
    text = problems(headers, recipe, tensors)
    assert "model.layers.*.mlp.down_proj (3): 40 inputs are not a multiple of the 16" in text
    assert "up_proj" not in text
    assert problems(headers, recipe, shapes("llama", inner=48)) == ""
    assert "multiple of the 32" in problems(headers, recipe, shapes("llama", inner=48), format="mxfp4")


def test_a_matrix_without_rows(headers: Any, shapes: Any, recipe: Any) -> None:
    tensors = {**shapes("llama", layers=1), "model.layers.0.mlp.down_proj.weight": ("BF16", (0, 96))}
    text = problems(headers, recipe, tensors, quantize=["*.down_proj"])
    assert text.startswith("model.layers.*.mlp.down_proj (1) hold no weights at all")


def test_a_fused_layer_quantized_in_part(headers: Any, shapes: Any, recipe: Any) -> None:
    text = problems(headers, recipe, shapes("llama", layers=3), quantize=["*.q_proj", "*.k_proj"])
    assert "model.layers.*.self_attn.qkv_proj (3): k_proj, q_proj would be quantized but v_proj kept" in text


def test_experts_of_a_layer_quantized_in_part(headers: Any, shapes: Any, recipe: Any) -> None:
    tensors = shapes("kimi", layers=3, experts=4, vision=0)
    text = problems(headers, recipe, tensors, quantize=["*.mlp.experts.*"], keep=["*.experts.3.*"])
    assert "layers.*.mlp.experts (2): 9 expert projections of a layer would be quantized and 3 kept" in text
    assert problems(headers, recipe, tensors, quantize=["*.mlp.experts.*"], keep=["*.layers.2.*"]) == ""


@pytest.mark.parametrize("pattern", ["*.mpl.*_proj", "model.layers.9.*", "LM_HEAD"])
def test_a_pattern_that_matches_nothing(headers: Any, shapes: Any, recipe: Any, pattern: str) -> None:
    text = problems(headers, recipe, shapes("llama"), quantize=["*.mlp.*", pattern])
    assert f"the quantize pattern {pattern!r} matches none of the 15 weight matrices" in text


def test_nothing_to_quantize(headers: Any, shapes: Any, recipe: Any) -> None:
    assert "nothing would be quantized" in problems(headers, recipe, shapes("llama"), keep=["*"])


def test_a_router_that_is_named(headers: Any, shapes: Any, recipe: Any) -> None:
    tensors = shapes("kimi", layers=3, experts=4, vision=0)
    text = problems(headers, recipe, tensors, quantize=["*.mlp.experts.*", "*.mlp.gate"])
    assert "no serving engine loads a quantized router" in text
    assert "mlp.gate (2)" in text
    swept = problems(headers, recipe, tensors, quantize=["*.mlp.*"])
    assert swept == ""
    kept = problems(headers, recipe, tensors, quantize=["*.mlp.experts.*", "*.mlp.gate"], keep=["*.mlp.gate"])
    assert kept == ""


def test_a_tied_embedding_that_is_named(headers: Any, shapes: Any, recipe: Any) -> None:
    text = problems(headers, recipe, shapes("llama"), quantize=["*.mlp.*", "model.embed_tokens"])
    assert "model.embed_tokens is also the output head" in text


def test_a_dtype_this_version_does_not_read(headers: Any, shapes: Any, recipe: Any) -> None:
    tensors = shapes("llama", layers=1)
    tensors = {n: ("F64", shape) if "mlp" in n else (dtype, shape) for n, (dtype, shape) in tensors.items()}
    assert "are F64; this version reads BF16, F16, F32" in problems(headers, recipe, tensors)


def test_warnings(headers: Any, shapes: Any, recipe: Any) -> None:
    change = {"quantize": ["*.mlp.*", "lm_h*", "lm_head"], "keep": ["nothing.*"]}
    plan = make_plan(recipe(**change), headers(shapes("llama", head=True)))
    text = "\n".join(plan.warnings)
    assert "the keep pattern 'nothing.*' matches nothing" in text
    assert "lm_head (1) would be quantized as named" in text
    assert "weight-only (W4A16)" in text
    swept = make_plan(recipe(quantize=["*.mlp.*", "lm_h*"]), headers(shapes("llama", head=True)))
    assert "all that the quantize pattern 'lm_h*' matches is kept" in "\n".join(swept.warnings)


def mixed(headers: Any, recipe: Any, tensors: dict[str, Any], quantize: list[str], eight: list[str]) -> Any:
    also = [{"format": "fp8", "quantize": eight}]
    return make_plan(recipe(quantize=quantize, also=also, layout="compressed-tensors"), headers(tensors))


def test_two_formats_in_one_model(headers: Any, shapes: Any, recipe: Any) -> None:
    plan = mixed(headers, recipe, shapes("llama", inner=40), ["*_proj"], ["*.mlp.*", "*.self_attn.*"])
    assert "no module would be quantized to nvfp4, the recipe's format" in " ".join(plan.problems)
    plan = mixed(headers, recipe, shapes("llama", inner=40), ["*_proj"], ["*.mlp.*"])
    assert plan.problems == ()  # FP8 needs no blocks: 40 columns will do
    formats = {decision.module.split(".")[3]: decision.format for decision in plan.quantized}
    assert formats == {"mlp": "fp8", "self_attn": None}
    rows = {row.decided_by for row in plan.classes if row.action == "quantize"}
    assert rows == {"*_proj", "*.mlp.* (fp8)"}
    eight = sum(row.bytes_after for row in plan.classes if row.decided_by.endswith("(fp8)"))
    assert eight == 2 * (2 * (40 * 64 + 4 * 40) + 64 * 40 + 4 * 64)  # a scale for each output


def test_a_fused_layer_has_one_format(headers: Any, shapes: Any, recipe: Any) -> None:
    plan = mixed(headers, recipe, shapes("llama"), ["*_proj"], ["*.q_proj"])
    assert "model.layers.*.self_attn.qkv_proj (2) would get two formats" in " ".join(plan.problems)
    tensors = shapes("kimi", layers=3, experts=4, vision=0)
    plan = mixed(headers, recipe, tensors, ["*.mlp.experts.*"], ["*.experts.*.down_proj"])
    assert "mlp.experts (2) would get two formats" in " ".join(plan.problems)


def test_a_format_that_reaches_nothing_is_a_problem(headers: Any, shapes: Any, recipe: Any) -> None:
    text = " ".join(mixed(headers, recipe, shapes("llama"), ["*_proj"], ["*.nothing"]).problems)
    assert "the quantize pattern '*.nothing' matches none" in text
    assert "no module would be quantized to fp8; correct the patterns of `also`" in text
