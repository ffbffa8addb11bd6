"""Which engine reads which list, and under which names it builds a model's modules."""

from __future__ import annotations

import pytest

from publisher.matching import READERS, reader

PLAIN = ["lm_head", "model.layers.0.mlp.down_proj"]
KIMI = ["language_model.lm_head", "language_model.model.layers.0.mlp.down_proj", "vision_tower.blocks.0.wqkv"]
QWEN = ["lm_head", "model.language_model.layers.0.mlp.down_proj", "model.visual.blocks.0.attn.qkv"]


def engines(layout: str, form: str, model_type: str, names: list[str]) -> list[str]:
    found = (reader(engine, layout, form, [], model_type, names) for engine in READERS)
    return [one.engine for one in found if one is not None]


@pytest.mark.parametrize(
    ("layout", "form", "expected"),
    [
        ("modelopt", "nvfp4", ["vllm", "sglang", "tensorrt-llm"]),
        ("modelopt", "mxfp4", []),
        ("quark", "mxfp4", ["vllm", "sglang", "atom"]),
        ("quark", "nvfp4", ["vllm"]),
        ("compressed-tensors", "nvfp4", ["vllm", "sglang", "tensorrt-llm"]),
        ("awq", "int4", []),
    ],
)
def test_engines_that_load_a_format_read_its_list(layout: str, form: str, expected: list[str]) -> None:
    assert engines(layout, form, "llama", PLAIN) == expected


def test_a_wrapper_nobody_knows_is_not_judged() -> None:
    assert engines("modelopt", "nvfp4", "unheard_of", KIMI) == []
    assert engines("modelopt", "nvfp4", "qwen3_vl", QWEN) == ["vllm"]
    assert engines("modelopt", "nvfp4", "llama", ["transformer.h.0.mlp"]) == []


@pytest.mark.parametrize(
    ("engine", "layout", "expected"),
    [
        ("vllm", "modelopt", "language_model.model.layers.0.mlp.down_proj"),
        ("sglang", "modelopt", "model.layers.0.mlp.down_proj"),
        ("sglang", "compressed-tensors", "model.layers.0.mlp.down_proj"),
        ("sglang", "quark", "language_model.model.layers.0.mlp.down_proj"),
        ("atom", "quark", "model.layers.0.mlp.down_proj"),
    ],
)
def test_kimis_language_model_has_a_name_of_its_own_in_each_engine(engine: str, layout: str, expected: str) -> None:
    form = "mxfp4" if layout == "quark" else "nvfp4"
    found = reader(engine, layout, form, [KIMI[1]], "kimi_k25", KIMI)
    assert found is not None
    assert found.internal(KIMI[1]) == expected
    # a literal name reaches the module everywhere but in SGLang's compressed-tensors reading
    assert found.matcher(expected) is ((engine, layout) != ("sglang", "compressed-tensors"))


def test_entries_are_renamed_as_modules_are() -> None:
    found = reader("vllm", "quark", "mxfp4", ["model.language_model.layers.0.mlp.down_proj"], "qwen3_vl", QWEN)
    assert found is not None
    assert found.matcher(found.internal(QWEN[1]))
    assert found.internal("lm_head") == "language_model.lm_head"
    regex = reader("vllm", "quark", "mxfp4", [r"re:model\.language_model\.layers\..*"], "qwen3_vl", QWEN)
    assert regex is not None
    assert not regex.matcher(regex.internal(QWEN[1]))  # a regex is not renamed


def test_only_vllm_asks_about_the_head_and_only_some_models_about_routers() -> None:
    asked = {engine: reader(engine, "modelopt", "nvfp4", [], "llama", PLAIN) for engine in ("vllm", "sglang")}
    assert {e: "head" in r.roles for e, r in asked.items() if r is not None} == {"vllm": True, "sglang": False}
    routed = reader("vllm", "modelopt", "nvfp4", [], "qwen3_moe", PLAIN)
    assert routed is not None
    assert "router" in routed.roles
