"""vLLM's readings beyond single entries: split stars, fused layers, MoE modules, towers."""

from __future__ import annotations

import pytest

from publisher.matching import PartlyFused, VllmExactOrRegex, VllmModelopt
from publisher.matching.vllm import split_stars

FUSED = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}
ATTENTION = "model.layers.3.self_attn"


def test_vllm_splits_a_star_where_the_model_has_a_mapper() -> None:
    entries = [f"{ATTENTION}*"]
    for mapped in (False, True):
        matcher = VllmModelopt(entries, FUSED, mapped=mapped)
        assert matcher(f"{ATTENTION}.qkv_proj")
        assert not matcher("model.layers.31.self_attn.qkv_proj")
    assert VllmModelopt(["a.gat*"], FUSED, mapped=True)("model.a.gate")
    assert not VllmModelopt(["a.gat*"], FUSED, mapped=False)("model.a.gate")
    assert list(split_stars(["x*", "x.*", "*", "x"])) == ["x", "x.*", "x.*", "*", "x"]


def test_all_members_or_the_fused_name_leave_a_layer_out() -> None:
    names = [f"{ATTENTION}.{part}" for part in ("q_proj", "k_proj", "v_proj")]
    for entries in (names, [*names[:1], f"{ATTENTION}.qkv_proj"]):
        assert VllmModelopt(entries, FUSED)(f"{ATTENTION}.qkv_proj")
        assert VllmExactOrRegex(entries, FUSED, moe_children=True)(f"{ATTENTION}.qkv_proj")


def test_vision_towers_are_never_quantized() -> None:
    assert VllmModelopt([], FUSED, always=["vision_tower"])("vision_tower.encoder.blocks.0.wqkv")


def test_a_compressed_moe_module_is_what_expert_0_is() -> None:
    moe = "model.layers.1.mlp.experts"
    first = [f"{moe}.0.{part}" for part in ("gate_proj", "up_proj", "down_proj")]
    assert VllmExactOrRegex(first, FUSED, moe_children=False)(moe)
    assert not VllmExactOrRegex([f"{moe}.1.down_proj"], FUSED, moe_children=False)(moe)
    with pytest.raises(PartlyFused):
        VllmExactOrRegex(first[:1], FUSED, moe_children=False)(moe)


def test_a_quark_entry_below_a_moe_module_takes_all_of_it() -> None:
    moe = "model.layers.1.mlp.experts"
    matcher = VllmExactOrRegex([f"{moe}.7.up_proj"], FUSED, moe_children=True)
    assert matcher(moe)
    assert not matcher("model.layers.2.mlp.experts")
