"""Rows from config.json, checked against the configurations of real model families."""

from __future__ import annotations

from typing import Any

from publisher.card.architecture import architecture_rows, has_vision

# Numbers of moonshotai/Kimi-K2.6 as its published configuration has them.
KIMI: dict[str, Any] = {
    "architectures": ["KimiK25ForConditionalGeneration"],
    "model_type": "kimi_k25",
    "vision_config": {"hidden_size": 1152, "num_hidden_layers": 27},
    "text_config": {
        "num_hidden_layers": 61, "hidden_size": 7168, "num_attention_heads": 64, "num_key_value_heads": 64,
        "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
        "n_routed_experts": 384, "n_shared_experts": 1, "num_experts_per_tok": 8, "moe_intermediate_size": 2048,
        "vocab_size": 163840, "max_position_embeddings": 262144, "rope_scaling": {"type": "yarn", "factor": 64.0},
    },
}  # fmt: skip


def rows(config: dict[str, Any]) -> dict[str, str]:
    return {row.label: row.value.text for row in architecture_rows(config)}


def test_a_multimodal_mixture_of_experts() -> None:
    assert rows(KIMI) == {
        "Architecture": "KimiK25ForConditionalGeneration (kimi_k25)",
        "Input": "text, images",
        "Layers × hidden size": "61 × 7,168",
        "Attention": "MLA, 64 heads, KV rank 512, Q rank 1,536, no-position head 128, rotary head 64, value head 128",
        "Experts": "384 routed, 1 shared, 8 active per token, intermediate size 2,048",
        "Vocabulary": "163,840",
        "Context length": "262,144 tokens (RoPE scaling: yarn × 64)",
    }
    assert has_vision(KIMI)


def test_what_is_no_number_is_left_out() -> None:
    config = {
        "architectures": "LlamaForCausalLM", "num_hidden_layers": "12", "hidden_size": True, "vocab_size": -1,
        "max_position_embeddings": 10**30, "num_attention_heads": None, "n_routed_experts": [1], "rope_scaling": "x",
    }  # fmt: skip
    assert rows(config) == {}
    assert rows({}) == {}
    assert rows({"text_config": [], "max_position_embeddings": 8, "rope_scaling": {"type": 1, "factor": "a"}}) == {
        "Context length": "8 tokens"
    }
