"""SGLang's readings beyond single entries: MLA projections, single parts, dotted suffixes."""

from __future__ import annotations

import pytest

from publisher.matching import PartlyFused, SglangCompressed, SglangModelopt, SglangQuark

FUSED = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}
TAILS = ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj")


def test_mla_projections_are_compared_by_their_last_part_in_any_layer() -> None:
    matcher = SglangModelopt(["model.layers.3.self_attn.kv_b_proj"], FUSED, tails=TAILS)
    assert matcher("model.layers.9.self_attn.kv_b_proj")
    assert not matcher("model.layers.9.self_attn.o_proj")


def test_a_question_mark_is_a_regexs_and_a_single_part_is_enough() -> None:
    assert SglangModelopt(["g?ate"], FUSED)("model.layers.0.mlp.ate")
    assert SglangModelopt(["sel*"], FUSED)("model.layers.0.self_attn.o_proj")
    assert not SglangModelopt(["sel*"], FUSED)("model.layers.0.mlp.itself")


def test_a_compressed_tensors_entry_may_be_the_end_of_a_name() -> None:
    matcher = SglangCompressed(["mlp.down_proj", "re:model.layers.2.*"], FUSED)
    assert matcher("model.layers.0.mlp.down_proj")
    assert matcher("model.layers.2.self_attn.qkv_proj")
    assert not matcher("model.layers.0.mlp.up_proj")
    assert not matcher("model.layers.0.amlp.down_proj")


def test_a_name_with_the_wrapper_does_not_match_one_without() -> None:
    """Kimi's language model is built without `language_model.`, and its compressed-tensors list is not renamed."""
    assert not SglangCompressed(["language_model.model.layers.1.mlp.down_proj"], FUSED)("model.layers.1.mlp.down_proj")
    assert SglangCompressed([r"re:.*layers\.1\.mlp\..*"], FUSED)("model.layers.1.mlp.down_proj")


@pytest.mark.parametrize("kind", [SglangCompressed, SglangQuark])
def test_some_members_of_a_fused_layer_are_refused(kind: type[SglangCompressed] | type[SglangQuark]) -> None:
    with pytest.raises(PartlyFused, match="q_proj"):
        kind(["a.q_proj"], FUSED)("a.qkv_proj")
    assert kind(["a.q_proj", "a.k_proj", "a.v_proj"], FUSED)("a.qkv_proj")


def test_a_quark_entry_for_one_expert_takes_the_layer() -> None:
    assert SglangQuark(["model.layers.1.mlp.experts.3.up_proj"], FUSED)("model.layers.1.mlp.experts")
