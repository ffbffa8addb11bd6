"""Which layers hold experts: transformers' own configurations and modelling code say the same."""

from __future__ import annotations

from typing import Any

import pytest

from publisher.subjects import sparse_layers

SIZES: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_hidden_layers": 6,
    "pad_token_id": 0,
}
EXPERTS = {"moe_intermediate_size": 16, "num_experts": 2, "num_experts_per_tok": 1}
ROUTED = {"moe_intermediate_size": 16, "n_routed_experts": 2, "num_experts_per_tok": 1, "n_group": 1, "topk_group": 1}
LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
ERNIE = {"moe_intermediate_size": 16, "moe_num_experts": 2, "moe_k": 1, "moe_num_shared_experts": 1}
MODELS: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 2},
    "gpt_oss": {"num_local_experts": 2},
    "deepseek_v3": {**ROUTED, **LATENT, "first_k_dense_replace": 2},
    "glm4_moe": {**ROUTED, "first_k_dense_replace": 1},
    "qwen3_moe": {**EXPERTS, "decoder_sparse_step": 2, "mlp_only_layers": [3]},
    "ernie4_5_moe": {**ERNIE, "moe_layer_start_index": 1, "moe_layer_end_index": 4, "moe_layer_interval": 2},
    "lfm2_moe": {**EXPERTS, "num_dense_layers": 2, "layer_types": ["full_attention"] * 6},
    "llama4_text": {"num_local_experts": 2, "intermediate_size_mlp": 16, "interleave_moe_layer_step": 2},
}


@pytest.mark.parametrize("name", MODELS)
def test_layers_that_transformers_gives_experts(name: str) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(name, **SIZES, **MODELS[name])
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    layers = enumerate(model.model.layers)
    routed = [n for n, layer in layers if any(part.endswith("experts") for part, _ in layer.named_modules())]
    shared = [n for n in routed if not _routes(model.model.layers[n])]
    assert sparse_layers(config.to_dict()) == [n for n in routed if n not in shared]


def _routes(layer: Any) -> bool:
    return any(part.rpartition(".")[2] == "experts" for part, _ in layer.named_modules())


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ({"hybrid_override_pattern": "ME*E"}, [1, 3]),
        ({"moe_layers_enum": "2,3"}, [2, 3]),
        ({"moe_layer_freq": [0, 1, 1, 0]}, [1, 2]),
        ({"moe_layer_start_index": 1, "moe_layer_end_index": -1}, [1, 2, 3]),
        ({"mlp_layer_types": ["dense", "sparse", "sparse", "dense"]}, [1, 2]),
        ({"moe_layers": [3, 99, -1]}, [3]),
    ],
)
def test_further_spellings(text: dict[str, Any], layers: list[int]) -> None:
    assert sparse_layers({"num_hidden_layers": 4, **text}) == layers


@pytest.mark.parametrize(
    "text",
    [
        {},
        {"model_type": "unheard_of"},
        {"num_hidden_layers": "4", "model_type": "mixtral"},
        {"num_hidden_layers": 10**9, "model_type": "mixtral"},
        {"moe_layer_freq": 0},
        {"decoder_sparse_step": -1},
        {"model_type": ["mixtral"]},
        {"moe_layers": [], "hybrid_override_pattern": 7},
    ],
)
def test_what_does_not_say_is_not_judged(text: dict[str, Any]) -> None:
    assert sparse_layers({"num_hidden_layers": 4, **text}) is None
