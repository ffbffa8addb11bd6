"""Checkpoints shaped like Kimi K2.6: its names and shapes, as many layers and experts as asked for.

Written from the safetensors README alone, not by the product's writer. `sparse` files have their full length and no
data, so a checkpoint of 590 GB takes the room of its headers. Sizes are those of the published config.json: hidden
7168, experts 2048 wide, dense layer 18432, 64 heads, latent ranks 1536 and 512, vocabulary 163840, one dense layer,
then 60 with 384 experts; MoonViT with 27 blocks of 1152.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BITS = {"BF16": 2, "F32": 4, "I32": 4, "U8": 1, "F8_E4M3": 1}
HEAD, LAYERS = "language_model.", "language_model.model.layers"
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class Sizes:
    """What varies: sparse layers, experts of each, and a divisor of every width for quick looks."""

    layers: int = 60
    experts: int = 384
    shrink: int = 1

    @property
    def hidden(self) -> int:
        """Width of the residual stream."""
        return 7168 // self.shrink

    @property
    def expert(self) -> int:
        """Width of an expert."""
        return 2048 // self.shrink


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a header."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * BITS[self.dtype]


def source(sizes: Sizes) -> Iterator[Entry]:
    """The BF16 model, layer by layer; routing biases are F32."""
    h, s = sizes.hidden, sizes.shrink
    yield Entry(f"{HEAD}model.embed_tokens.weight", "BF16", (163840 // s, h))
    for layer in range(sizes.layers + 1):
        at = f"{LAYERS}.{layer}"
        yield from _attention(at, h, s)
        if layer == 0:
            yield from _mlp(f"{at}.mlp", 18432 // s, h)
            continue
        yield Entry(f"{at}.mlp.gate.weight", "BF16", (sizes.experts, h))
        yield Entry(f"{at}.mlp.gate.e_score_correction_bias", "F32", (sizes.experts,))
        yield from _mlp(f"{at}.mlp.shared_experts", sizes.expert, h)
        for expert in range(sizes.experts):
            yield from _mlp(f"{at}.mlp.experts.{expert}", sizes.expert, h)
    yield Entry(f"{HEAD}model.norm.weight", "BF16", (h,))
    yield Entry(f"{HEAD}lm_head.weight", "BF16", (163840 // s, h))
    yield from _vision(h, s)


def _attention(at: str, h: int, s: int) -> Iterator[Entry]:
    shapes: Mapping[str, tuple[int, ...]] = {
        "input_layernorm": (h,),
        "post_attention_layernorm": (h,),
        "self_attn.q_a_proj": (1536 // s, h),
        "self_attn.q_a_layernorm": (1536 // s,),
        "self_attn.q_b_proj": (12288 // s, 1536 // s),
        "self_attn.kv_a_proj_with_mqa": (576 // s, h),
        "self_attn.kv_a_layernorm": (512 // s,),
        "self_attn.kv_b_proj": (16384 // s, 512 // s),
        "self_attn.o_proj": (h, 8192 // s),
    }
    for name, shape in shapes.items():
        yield Entry(f"{at}.{name}.weight", "BF16", shape)


def _mlp(at: str, width: int, h: int) -> Iterator[Entry]:
    for name in ("gate_proj", "up_proj"):
        yield Entry(f"{at}.{name}.weight", "BF16", (width, h))
    yield Entry(f"{at}.down_proj.weight", "BF16", (h, width))


def _vision(h: int, s: int) -> Iterator[Entry]:
    w, inner = 1152 // s, 4304 // s
    yield Entry("vision_tower.patch_embed.proj.weight", "BF16", (w, 3, 14, 14))
    yield Entry("vision_tower.patch_embed.proj.bias", "BF16", (w,))
    yield Entry("vision_tower.patch_embed.pos_emb.weight", "BF16", (64, 64, w))
    for block in range(27):
        at = f"vision_tower.encoder.blocks.{block}"
        linears = {"wqkv": (3 * w, w), "wo": (w, w), "mlp.fc0": (inner, w), "mlp.fc1": (w, inner)}
        for name, shape in {"norm0": (w,), "norm1": (w,), **linears}.items():
            yield Entry(f"{at}.{name}.weight", "BF16", shape)
            yield Entry(f"{at}.{name}.bias", "BF16", shape[:1])
    shapes = {"pre_norm": (w,), "proj.0": (4 * w, 4 * w), "proj.2": (h, 4 * w)}
    for name, shape in {"../encoder.final_layernorm": (w,), **shapes}.items():
        at = "vision_tower.encoder.final_layernorm" if name.startswith("..") else f"mm_projector.{name}"
        yield Entry(f"{at}.weight", "BF16", shape)
        yield Entry(f"{at}.bias", "BF16", shape[:1])


def is_quantized(name: str) -> bool:
    """The published NVFP4 recipe: every expert, the shared ones and the dense layer's MLP included."""
    return ".mlp." in name and name.startswith(LAYERS) and name.endswith("_proj.weight")


def quantized(entries: Iterable[Entry], form: str) -> Iterator[Entry]:
    """The same model in modelopt's NVFP4 layout (W4A4) or in Quark's MXFP4 layout."""
    for entry in entries:
        if not is_quantized(entry.name):
            yield entry
            continue
        rows, columns = entry.shape
        yield Entry(entry.name, "U8", (rows, columns // 2))
        if form == "mxfp4":
            yield Entry(f"{entry.name}_scale", "U8", (rows, columns // 32))
            continue
        yield Entry(f"{entry.name}_scale", "F8_E4M3", (rows, columns // 16))
        yield Entry(f"{entry.name}_scale_2", "F32", ())
        yield Entry(f"{entry.name.removesuffix('weight')}input_scale", "F32", ())


def config(sizes: Sizes, form: str | None = None) -> dict[str, Any]:
    """config.json, with the declaration of a format."""
    text = {
        "model_type": "kimi_k2",
        "hidden_size": sizes.hidden,
        "intermediate_size": 18432 // sizes.shrink,
        "moe_intermediate_size": sizes.expert,
        "n_routed_experts": sizes.experts,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
        "moe_layer_freq": 1,
        "num_hidden_layers": sizes.layers + 1,
        "num_attention_heads": 64,
        "q_lora_rank": 1536 // sizes.shrink,
        "kv_lora_rank": 512 // sizes.shrink,
        "v_head_dim": 128,
        "vocab_size": 163840 // sizes.shrink,
    }
    whole: dict[str, Any] = {
        "architectures": ["KimiK25ForConditionalGeneration"],
        "model_type": "kimi_k25",
        "text_config": text,
        "torch_dtype": "bfloat16",
    }
    if form:
        whole["quantization_config"] = _declaration(form, sizes)
    return whole


def _declaration(form: str, sizes: Sizes) -> dict[str, Any]:
    routers = [f"{LAYERS}.{layer}.mlp.gate" for layer in range(1, sizes.layers + 1)]
    ignore = [*(f"{LAYERS}.{layer}.self_attn*" for layer in range(sizes.layers + 1)), *routers]
    ignore += [f"{HEAD}lm_head", "vision_tower*", "mm_projector*"]
    if form == "nvfp4":
        spec = {"dynamic": False, "num_bits": 4, "type": "float", "group_size": 16}
        groups = {"group_0": {"weights": spec, "input_activations": spec, "targets": ["Linear"]}}
        producer = {"name": "modelopt", "version": "0.47.0"}
        return {
            "config_groups": groups,
            "ignore": ignore,
            "quant_algo": "NVFP4",
            "producer": producer,
            "quant_method": "modelopt",
        }
    spec = {
        "dtype": "fp4",
        "qscheme": "per_group",
        "ch_axis": -1,
        "group_size": 32,
        "symmetric": None,
        "scale_type": "float",
        "scale_format": "e8m0",
        "scale_calculation_mode": "even",
        "round_method": "half_even",
        "observer_cls": "PerBlockMXObserver",
    }
    parts = ("self_attn", r"mlp\.gate", "lm_head", "vision_tower", "mm_projector")
    tensors = {"weight": {**spec, "is_dynamic": False}, "input_tensors": {**spec, "is_dynamic": True}}
    return {
        "quant_method": "quark",
        "version": "0.13",
        "global_quant_config": {**tensors, "output_tensors": None, "bias": None},
        "exclude": [rf"re:^(.*\.)?{part}(\..*)?$" for part in parts],
        "layer_type_quant_config": {},
        "layer_quant_config": {},
        "kv_cache_quant_config": {},
        "export": {"pack_method": "reorder", "weight_format": "real_quantized", "kv_cache_group": []},
    }


# --- writing -------------------------------------------------------------------------------------------------------

Fill = Callable[[Entry], bytes | None]


def write(folder: Path, entries: Iterable[Entry], configuration: Mapping[str, Any], shards: int, fill: Fill) -> int:
    """Write a checkpoint of about equal shards.

    Args:
        folder: new.
        entries: the tensors, in order.
        configuration: config.json.
        shards: how many files.
        fill: a tensor's bytes, or None for a hole.

    Returns:
        Number of tensors.
    """
    folder.mkdir(parents=True)
    everything = list(entries)
    total = sum(entry.size for entry in everything)
    weight_map: dict[str, str] = {}
    parts: list[list[Entry]] = [[] for _ in range(shards)]
    position = 0
    for entry in everything:
        parts[min(position * shards // total, shards - 1)].append(entry)
        position += entry.size
    parts = [part for part in parts if part]
    for number, part in enumerate(parts, 1):
        name = f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        _write_shard(folder / name, part, fill)
        weight_map |= dict.fromkeys((entry.name for entry in part), name)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(configuration))
    declared = configuration.get("quantization_config", {})
    if declared.get("quant_method") == "modelopt":  # modelopt declares in two files
        body = {"quant_algo": declared["quant_algo"], "group_size": 16, "exclude_modules": declared["ignore"]}
        both = {"producer": declared["producer"], "quantization": {**body, "kv_cache_quant_algo": None}}
        (folder / "hf_quant_config.json").write_text(json.dumps(both))
    return len(everything)


def _write_shard(path: Path, part: list[Entry], fill: Fill) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for entry in part:
        offsets = [position, position + entry.size]
        header[entry.name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": offsets}
        position += entry.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for entry in part:
            data = fill(entry)
            if data is None:
                file.seek(entry.size, os.SEEK_CUR)
            else:
                file.write(data)
        file.truncate(8 + len(text) + position)
