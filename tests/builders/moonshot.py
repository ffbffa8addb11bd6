"""A tiny Kimi K2.6 made by transformers' own class, with its vision tower, stored under the names Moonshot publishes.

BF16, or with the routed experts in INT4 as compressed-tensors' own compressor packs them. transformers 5.23 writes some
names otherwise than it was given them (`layers` becomes `blocks`); they are put back here, and `load` proves that its
class reads them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.builders.terms import KIMI

VOCABULARY, LAYERS, EXPERTS = 256, 3, 4
MODULES = {"experts": (LAYERS - 1) * EXPERTS * 3, "every mlp": (LAYERS - 1) * (EXPERTS + 1) * 3 + 3}
TEXT = {
    "model_type": "kimi_k2",
    "hidden_size": 128,
    "intermediate_size": 192,
    "moe_intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "n_routed_experts": EXPERTS,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": 64,
    "kv_lora_rank": 64,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 256,
    "num_nextn_predict_layers": 0,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
VISION = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "pos_emb_height": 4,
    "pos_emb_width": 4,
    "pos_emb_time": 2,
}
TOKENS = {"image_token_id": 250, "video_token_id": 251, "vision_start_token_id": 252, "vision_end_token_id": 253}
CARD = """---
license: other
license_name: modified-mit
base_model: []
---
# Kimi K2.6, tiny
"""
EXPERT = re.compile(r"\.mlp\.experts\.\d+\.\w+_proj\.weight$")


def model() -> Any:
    """Random weights whose members of a fused layer differ in size."""
    from transformers.models.kimi_k25 import Kimi_K25Config
    from transformers.models.kimi_k25.modeling_kimi_k25 import Kimi_K25ForConditionalGeneration

    torch.manual_seed(26)
    config = Kimi_K25Config(
        text_config=dict(TEXT),
        vision_config=dict(VISION),
        projection_hidden_size=48,
        tie_word_embeddings=False,
        **TOKENS,
    )
    made: Any = Kimi_K25ForConditionalGeneration(config).to(torch.bfloat16).eval()
    for parameter in made.parameters():
        parameter.data.mul_(float(torch.rand(()) * 2 + 0.5))
    for layer in made.model.language_model.layers[1:]:
        layer.mlp.gate.e_score_correction_bias = torch.randn(EXPERTS) * 0.01
    return made


def published(made: Any) -> dict[str, Tensor]:
    """The model's tensors under Moonshot's names, as its class converts them on saving."""
    from transformers.core_model_loading import revert_weight_conversion

    found = {}
    for name, tensor in revert_weight_conversion(made, made.state_dict()).items():
        name = name.replace("language_model.model.blocks.", "language_model.model.layers.")
        name = name.removeprefix("model.").replace("vision_tower.encoder.patch_embed", "vision_tower.patch_embed")
        bias = name.endswith("e_score_correction_bias")
        found[name] = (tensor.float() if bias else tensor).contiguous().clone()
    return dict(sorted(found.items()))


def packed(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The routed experts in INT4, groups of 32, by compressed-tensors' compressor; and what that library decodes."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    args = QuantizationArgs(num_bits=4, type="int", strategy="group", group_size=32, symmetric=True)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    library: Any = BaseCompressor.load_from_registry("pack-quantized")
    stored, meant = dict(tensors), dict(tensors)
    for name in [name for name in tensors if EXPERT.search(name)]:
        weight, module = stored.pop(name), name.removesuffix("weight")
        scale = (weight.view(weight.shape[0], -1, 32).abs().amax(-1) / 7.5).bfloat16()
        parts = library.compress({"weight": weight, "weight_scale": scale}, scheme)
        stored |= {f"{module}{part}": tensor for part, tensor in parts.items()}
        meant[name] = library.decompress(dict(parts), scheme)["weight"]
    return dict(sorted(stored.items())), meant


PACKED = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "quantization_status": "compressed",
    "kv_cache_scheme": None,
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "input_activations": None,
            "output_activations": None,
            "weights": {
                "num_bits": 4,
                "type": "int",
                "strategy": "group",
                "group_size": 32,
                "symmetric": True,
                "dynamic": False,
                "observer": "minmax",
            },
        }
    },
    "ignore": ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", "re:.*mlp\\.(gate|up|gate_up|down)_proj.*"],
}


def write(folder: Path, *, int4: bool = False, shards: int = 3) -> Path:
    """A repository: shards, index, configuration, tokenizer, licence and card."""
    folder.mkdir(parents=True)
    tensors = published(model())
    if int4:
        tensors, _ = packed(tensors)
    names, weight_map = list(tensors), {}
    for number in range(1, shards + 1):
        file = f"model-{number:05d}-of-{shards:05d}.safetensors"
        part = names[(number - 1) * len(names) // shards : number * len(names) // shards]
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    text = {**TEXT, "architectures": ["DeepseekV3ForCausalLM"]} | ({"quantization_config": PACKED} if int4 else {})
    config = {
        "architectures": ["KimiK25ForConditionalGeneration"],
        "model_type": "kimi_k25",
        "text_config": text,
        "vision_config": VISION,
        "projection_hidden_size": 48,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
        **TOKENS,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    _beside(folder)
    return folder


def _beside(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({f"t{n}": n for n in range(VOCABULARY)}, unk_token="t0"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="t0", eos_token="t2").save_pretrained(folder)
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}\n")
    (folder / "generation_config.json").write_text('{"eos_token_id": 2, "max_length": 256}\n')
    (folder / "LICENSE").write_text(KIMI)
    (folder / "README.md").write_text(CARD.replace("base_model: []\n", ""))


def load(folder: Path) -> Any:
    """The folder as transformers' class reads it; every parameter has a value from there."""
    from transformers.models.kimi_k25.modeling_kimi_k25 import Kimi_K25ForConditionalGeneration

    made, told = Kimi_K25ForConditionalGeneration.from_pretrained(
        folder, dtype=torch.bfloat16, output_loading_info=True
    )
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    return made.eval()
