"""The published Kimi checkpoints as headers alone: every tensor with its real shape, not one byte of data.

`Virtual` hands out headers and JSON files from memory; sizes are those that the real files would have.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

SIZES = {"BF16": 2, "F32": 4, "U8": 1, "F8_E4M3": 1, "I32": 4}
HIDDEN, WIDTH, DENSE, LAYERS, EXPERTS, VOCABULARY = 7168, 2048, 18432, 61, 384, 163840
Entry = tuple[str, tuple[int, ...]]


class Virtual:
    """Files that are headers and small texts; data that nobody wrote cannot be read."""

    def __init__(self, shards: Mapping[str, dict[str, Entry]], texts: Mapping[str, bytes]) -> None:
        self.label = "virtual"
        self.heads: dict[str, bytes] = {}
        found = {name: len(data) for name, data in texts.items()}
        for shard, tensors in shards.items():
            at, header = 0, {}
            for name, (dtype, shape) in tensors.items():
                size = math.prod(shape) * SIZES[dtype]
                header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
                at += size
            body = json.dumps(header).encode()
            body += b" " * (-len(body) % 8)
            self.heads[shard] = struct.pack("<Q", len(body)) + body
            found[shard] = len(self.heads[shard]) + at
        self.texts = dict(texts)
        self.sizes = dict(sorted(found.items()))

    def read(self, path: str, begin: int = 0, end: int | None = None) -> bytes:
        return (self.texts.get(path) or self.heads.get(path, b""))[begin:end]

    def local(self, path: str) -> Path | None:
        return None


def linears() -> Iterator[tuple[str, int, int]]:
    """Name, rows and columns of every linear layer of the language model."""
    for layer in range(LAYERS):
        at = f"language_model.model.layers.{layer}"
        yield f"{at}.self_attn.q_a_proj", 1536, HIDDEN
        yield f"{at}.self_attn.q_b_proj", 64 * 192, 1536
        yield f"{at}.self_attn.kv_a_proj_with_mqa", 576, HIDDEN
        yield f"{at}.self_attn.kv_b_proj", 64 * 256, 512
        yield f"{at}.self_attn.o_proj", HIDDEN, 64 * 128
        if layer == 0:
            yield from _mlp(f"{at}.mlp", DENSE)
            continue
        yield f"{at}.mlp.gate", EXPERTS, HIDDEN
        yield from _mlp(f"{at}.mlp.shared_experts", WIDTH)
        for expert in range(EXPERTS):
            yield from _mlp(f"{at}.mlp.experts.{expert}", WIDTH)


def _mlp(at: str, width: int) -> Iterator[tuple[str, int, int]]:
    yield f"{at}.gate_proj", width, HIDDEN
    yield f"{at}.up_proj", width, HIDDEN
    yield f"{at}.down_proj", HIDDEN, width


def tensors(form: str, quantized: tuple[str, ...]) -> dict[str, Entry]:
    """Every tensor of a checkpoint in which the linear layers whose names hold one of `quantized` are packed.

    Args:
        form: modelopt, quark or compressed-tensors.
        quantized: parts of names.
    """
    found: dict[str, Entry] = {
        "language_model.model.embed_tokens.weight": ("BF16", (VOCABULARY, HIDDEN)),
        "language_model.lm_head.weight": ("BF16", (VOCABULARY, HIDDEN)),
        "language_model.model.norm.weight": ("BF16", (HIDDEN,)),
        "mm_projector.proj.0.weight": ("BF16", (4608, 4608)),
        "mm_projector.proj.2.weight": ("BF16", (HIDDEN, 4608)),
    }
    for block in range(27):
        at = f"vision_tower.encoder.blocks.{block}"
        found[f"{at}.wqkv.weight"] = ("BF16", (3456, 1152))
        found[f"{at}.wo.weight"] = ("BF16", (1152, 1152))
        found[f"{at}.mlp.fc0.weight"] = ("BF16", (4304, 1152))
        found[f"{at}.mlp.fc1.weight"] = ("BF16", (1152, 4304))
    for name, rows, columns in linears():
        if not any(part in name for part in quantized):
            found[f"{name}.weight"] = ("BF16", (rows, columns))
        elif form == "quark":
            found[f"{name}.weight"] = ("U8", (rows, columns // 2))
            found[f"{name}.weight_scale"] = ("U8", (rows, columns // 32))
        else:
            compressed = form == "compressed-tensors"
            found[f"{name}.weight{'_packed' if compressed else ''}"] = ("U8", (rows, columns // 2))
            found[f"{name}.weight_scale"] = ("F8_E4M3", (rows, columns // 16))
            found[f"{name}.weight_{'global_scale' if compressed else 'scale_2'}"] = ("F32", ())
            found[f"{name}.input_{'global_scale' if compressed else 'scale'}"] = ("F32", ())
    return found


def config(quantization: dict[str, Any], **text: Any) -> dict[str, Any]:
    """config.json of the Kimi wrapper; `text` changes keys of the language model."""
    return {
        "architectures": ["KimiK25ForConditionalGeneration"],
        "model_type": "kimi_k25",
        "auto_map": {"AutoConfig": "configuration_kimi.KimiConfig"},
        "text_config": {
            "architectures": ["DeepseekV3ForCausalLM"],
            "hidden_size": HIDDEN,
            "num_hidden_layers": LAYERS,
            "first_k_dense_replace": 1,
            "n_routed_experts": EXPERTS,
            "n_shared_experts": 1,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": WIDTH,
            "intermediate_size": DENSE,
            "kv_lora_rank": 512,
            "q_lora_rank": 1536,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
            "num_attention_heads": 64,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 262144,
            "rope_scaling": {"type": "yarn", "factor": 64.0, "original_max_position_embeddings": 4096},
            **text,
        },
        "vision_config": {"hidden_size": 1152},
        "quantization_config": quantization,
    }


def files(stored: Mapping[str, Entry], document: dict[str, Any], card: str, shards: int = 119) -> Virtual:
    """The repository: shards of about as many tensors each, the configuration, a licence and the card."""
    names = list(stored)
    cut = [names[i * len(names) // shards : (i + 1) * len(names) // shards] for i in range(shards)]
    parts = {
        f"model-{number:05d}-of-{shards:05d}.safetensors": {name: stored[name] for name in part}
        for number, part in enumerate(cut, 1)
    }
    texts = {"config.json": json.dumps(document).encode(), "LICENSE": b"Modified MIT License\n"}
    return Virtual(parts, texts | {"README.md": card.encode()})
