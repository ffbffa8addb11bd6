"""ATOM's reading beyond single entries: rewritten patterns, parents, unanchored regexes."""

from __future__ import annotations

from publisher.matching import Atom

FUSED = {"gate_up_proj": ["gate_proj", "up_proj"], "fused_qkv_a_proj": ["q_a_proj", "kv_a_proj_with_mqa"]}


def test_a_members_name_becomes_the_fused_one_inside_the_pattern() -> None:
    matcher = Atom(["model.layers.0.mlp.gate_proj", r"re:.*shared_experts\.up_proj"], FUSED)
    assert matcher("model.layers.0.mlp.gate_up_proj")
    assert matcher("model.layers.3.mlp.shared_experts.gate_up_proj")
    assert not matcher("model.layers.1.mlp.gate_up_proj")


def test_the_models_own_texts_are_replaced_anywhere() -> None:
    replaced = {"language_model.model.": "model.", "language_model.lm_head": "lm_head"}
    matcher = Atom(["language_model.model.layers.0.mlp*", "language_model.lm_head"], FUSED, replaced=replaced)
    assert matcher("model.layers.0.mlp.down_proj")
    assert matcher("lm_head")


def test_a_glob_also_means_what_lies_below() -> None:
    assert Atom(["*.mlp"], FUSED)("model.layers.0.mlp.down_proj")
    assert Atom(["model.?ayers"], FUSED)("model.layers.3")


def test_an_entry_below_a_moe_module_leaves_it_out_where_children_are_asked() -> None:
    entry = "model.layers.1.mlp.experts.0.down_proj"
    assert Atom([entry], FUSED, children=True)("model.layers.1.mlp.experts")
    assert not Atom([entry], FUSED)("model.layers.1.mlp.experts")
