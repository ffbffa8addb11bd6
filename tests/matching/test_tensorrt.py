"""TensorRT-LLM's readings beyond single entries: ancestors, fused layers, releases that knew no regexes."""

from __future__ import annotations

from publisher.matching import TensorrtNew, TensorrtOld

FUSED = {"qkv_proj": ["q_proj", "k_proj", "v_proj"]}


def test_an_ancestor_is_enough_for_new_releases_only() -> None:
    name = "model.layers.3.mlp.shared_experts.down_proj"
    for entry in ("model.layers.3", "*.mlp", "model.layers.3.mlp.*", r"re:model\.layers\.\d+\.mlp"):
        assert TensorrtNew([entry], FUSED)(name), entry
    for entry in ("model.layers.3", "*.mlp", r"re:model\.layers\.\d+\.mlp"):
        assert not TensorrtOld([entry], FUSED)(name), entry


def test_a_star_behind_a_dot_means_the_parent_too() -> None:
    assert TensorrtNew(["vision_tower.*"], FUSED)("vision_tower")
    assert not TensorrtOld(["vision_tower.*"], FUSED)("vision_tower")


def test_any_member_leaves_a_fused_layer_out() -> None:
    assert TensorrtNew(["a.k_proj"], FUSED)("a.qkv_proj")
    assert not TensorrtNew(["a.o_proj"], FUSED)("a.qkv_proj")


def test_a_regex_must_match_the_whole_name() -> None:
    assert not TensorrtNew(["re:self_attn"], FUSED)("model.self_attn.o_proj")
