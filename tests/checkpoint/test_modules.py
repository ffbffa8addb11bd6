"""Roles and fused groups on the real names of published models."""

from __future__ import annotations

import pytest

from publisher.checkpoint import modules
from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.modules import class_of, fused_group_of, fused_groups, layer_of, module_table, role_of


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("model.layers.0.self_attn.q_proj", "attention"),
        ("model.layers.0.mlp.gate_proj", "mlp"),
        ("model.layers.3.mlp.gate", "router"),
        ("language_model.model.layers.3.mlp.experts.17.down_proj", "expert"),
        ("language_model.model.layers.3.mlp.shared_experts.up_proj", "shared_expert"),
        ("language_model.model.layers.3.mlp.gate", "router"),
        ("model.layers.0.block_sparse_moe.gate", "router"),
        ("model.layers.0.block_sparse_moe.experts.0.w1", "expert"),
        ("model.layers.0.mlp.router", "router"),
        ("model.layers.0.mlp.shared_expert_gate", "router"),
        ("language_model.lm_head", "head"),
        ("lm_head", "head"),
        ("model.embed_tokens", "embedding"),
        ("model.layers.0.input_layernorm", "norm"),
        ("model.layers.0.self_attn.q_a_layernorm", "norm"),
        ("model.norm", "norm"),
        ("vision_tower.encoder.blocks.0.mlp.fc0", "vision"),
        ("mm_projector.proj.0", "projector"),
        ("transformer.h.0.something", "other"),
    ],
)
def test_roles(name: str, role: str) -> None:
    assert role_of(name) == role


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("model.layers.0.self_attn.k_proj", "model.layers.0.self_attn.qkv_proj"),
        ("model.layers.0.self_attn.kv_a_proj_with_mqa", "model.layers.0.self_attn.fused_qkv_a_proj"),
        ("model.layers.0.mlp.experts.4.up_proj", "model.layers.0.mlp.experts.4.gate_up_proj"),
        ("model.layers.0.block_sparse_moe.experts.4.w3", "model.layers.0.block_sparse_moe.experts.4.w13"),
        ("model.layers.0.self_attn.o_proj", None),
        ("model.layers.0.mlp.down_proj", None),
        ("model.layers.0.self_attn.q_b_proj", None),
        ("model.layers.0.mlp.experts.4.w2", None),
    ],
)
def test_fused_group(name: str, group: str | None) -> None:
    assert fused_group_of(name) == group


def test_groups_hold_only_members_that_are_there() -> None:
    names = ["a.q_proj", "a.k_proj", "b.q_proj", "a.o_proj"]
    assert fused_groups(names) == {"a.qkv_proj": ("a.q_proj", "a.k_proj")}


def test_module_table_groups_by_all_but_the_last_part() -> None:
    names = ["model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight_scale", "lonely"]
    table = module_table(
        TensorRef(n, "U8" if n.endswith("weight") else "F8_E4M3", (4, 4), f"{i}.safetensors", 0, 16)
        for i, n in enumerate(names)
    )
    up = table["model.layers.0.mlp.up_proj"]
    assert set(up.tensors) == {"weight", "weight_scale"}
    assert up.quantized
    assert up.shards == {"0.safetensors", "1.safetensors"}
    assert table[""].tensors["lonely"].name == "lonely"
    assert table[""].weight is None
    assert up.kind == "model.layers.*.mlp.up_proj"


@pytest.mark.parametrize(
    "name", ["a.0.mlp.gate", "model.layers.3.ln_1", "h.1.experts.9.w1", "x.norm2", "0.q_proj", "*"]
)
def test_a_role_does_not_depend_on_numbers(name: str) -> None:
    table = module_table([TensorRef(f"{name}.weight", "BF16", (4, 4), "0.safetensors", 0, 32)])
    assert (table[name].kind, table[name].role) == (class_of(name), role_of(name))


def test_a_table_of_many_experts_matches_patterns_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(modules, "role_of", lambda kind: asked.append(kind) or "expert")
    names = [f"counted.layers.{n % 60}.mlp.experts.{n}.up_proj.weight" for n in range(1000)]
    table = module_table(TensorRef(name, "U8", (4, 4), "0.safetensors", 0, 16) for name in names)
    assert asked == ["counted.layers.*.mlp.experts.*.up_proj"]
    assert {module.role for module in table.values()} == {"expert"}


def test_classes_and_layers() -> None:
    assert class_of("model.layers.12.mlp.experts.383.up_proj") == "model.layers.*.mlp.experts.*.up_proj"
    assert class_of("mm_projector.proj.0") == "mm_projector.proj.*"
    assert class_of("model.layers.1.norm2") == "model.layers.*.norm2"
    assert layer_of("language_model.model.layers.12.mlp.gate") == 12
    assert layer_of("lm_head") is None
