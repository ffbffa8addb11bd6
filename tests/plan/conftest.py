"""Small checkpoints written byte by byte, and header-only ones that never touch a disk."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from publisher.checkpoint.header import ShardHeader, TensorRef
from publisher.checkpoint.modules import module_table
from publisher.checkpoint.open import Checkpoint, open_checkpoint
from publisher.plan.model import Recipe
from publisher.plan.recipe import recipe_from_mapping

BYTES = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8, "U8": 1, "F8_E4M3": 1, "I32": 4}
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": True}
Tensors = Mapping[str, tuple[str, tuple[int, ...]]]


def shard_bytes(tensors: Tensors) -> bytes:
    """One safetensors file as its README describes it: length, JSON, zeros."""
    header, position = {}, 0
    for name, (dtype, shape) in tensors.items():
        size = math.prod(shape) * BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(position)


def llama(layers: int = 2, hidden: int = 64, inner: int = 96, *, head: bool = False) -> dict[str, Any]:
    """Tensors of a LlamaForCausalLM; tied unless `head`."""
    found: dict[str, Any] = {"model.embed_tokens.weight": ("BF16", (128, hidden))}
    for index in range(layers):
        base = f"model.layers.{index}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            rows = hidden if name in ("q_proj", "o_proj") else hidden // 2
            found[f"{base}.self_attn.{name}.weight"] = ("BF16", (rows, hidden))
        for name in ("gate_proj", "up_proj"):
            found[f"{base}.mlp.{name}.weight"] = ("BF16", (inner, hidden))
        found[f"{base}.mlp.down_proj.weight"] = ("BF16", (hidden, inner))
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"{base}.{name}.weight"] = ("BF16", (hidden,))
    found["model.norm.weight"] = ("BF16", (hidden,))
    if head:
        found["lm_head.weight"] = ("BF16", (128, hidden))
    return found


def kimi(layers: int = 61, experts: int = 384, *, prefix: str = "language_model.", vision: int = 27) -> dict[str, Any]:
    """Tensors as published Kimi K2.x headers name them: MLA, one dense layer, routed and shared experts, vision."""
    hidden, inner, dense = 7168, 2048, 18432
    found: dict[str, Any] = {
        f"{prefix}model.embed_tokens.weight": ("BF16", (163840, hidden)),
        f"{prefix}lm_head.weight": ("BF16", (163840, hidden)),
        f"{prefix}model.norm.weight": ("BF16", (hidden,)),
    }
    attention = {
        "q_a_proj": (1536, hidden),
        "q_b_proj": (12288, 1536),
        "kv_a_proj_with_mqa": (576, hidden),
        "kv_b_proj": (16384, 512),
        "o_proj": (hidden, 8192),
        "q_a_layernorm": (1536,),
        "kv_a_layernorm": (512,),
    }

    def mlp(base: str, width: int) -> None:
        found[f"{base}.gate_proj.weight"] = ("BF16", (width, hidden))
        found[f"{base}.up_proj.weight"] = ("BF16", (width, hidden))
        found[f"{base}.down_proj.weight"] = ("BF16", (hidden, width))

    for index in range(layers):
        base = f"{prefix}model.layers.{index}"
        for name, shape in attention.items():
            found[f"{base}.self_attn.{name}.weight"] = ("BF16", shape)
        found[f"{base}.input_layernorm.weight"] = ("BF16", (hidden,))
        found[f"{base}.post_attention_layernorm.weight"] = ("BF16", (hidden,))
        if index == 0:
            mlp(f"{base}.mlp", dense)
            continue
        found[f"{base}.mlp.gate.weight"] = ("BF16", (experts, hidden))
        found[f"{base}.mlp.gate.e_score_correction_bias"] = ("F32", (experts,))
        mlp(f"{base}.mlp.shared_experts", inner)
        for expert in range(experts):
            mlp(f"{base}.mlp.experts.{expert}", inner)
    for index in range(vision):
        base = f"vision_tower.encoder.blocks.{index}"
        for name, shape in (("wqkv", (3456, 1152)), ("wo", (1152, 1152)), ("mlp.fc0", (4304, 1152))):
            found[f"{base}.{name}.weight"] = ("BF16", shape)
        found[f"{base}.norm0.weight"] = ("BF16", (1152,))
    if vision:
        found["vision_tower.patch_embed.proj.weight"] = ("BF16", (1152, 3, 14, 14))
        found["mm_projector.proj.0.weight"] = ("BF16", (4608, 4608))
    return found


class NoFiles:
    """A place without bytes: only names and sizes."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.sizes = sizes
        self.label = "memory"

    def read(self, path: str, begin: int = 0, end: int | None = None) -> bytes:
        raise AssertionError(f"{path} was read; a plan needs headers only")

    def local(self, path: str) -> Path | None:
        return None


def in_memory(tensors: Tensors, config: Mapping[str, Any] = CONFIG) -> Checkpoint:
    """A checkpoint that exists as headers only."""
    refs, position = [], 0
    for name, (dtype, shape) in tensors.items():
        size = math.prod(shape) * BYTES[dtype]
        refs.append(TensorRef(name, dtype, shape, "model.safetensors", position, position + size))
        position += size
    header = ShardHeader(shard="model.safetensors", file_size=position, length=2, tensors=tuple(refs))
    return Checkpoint(
        files=NoFiles({"config.json": 1, "model.safetensors": position}),
        shards={"model.safetensors": header},
        index=None,
        config=config,
        hf_quant_config=None,
        document_flaws={},
        declarations=(),
        tensors={ref.name: ref for ref in refs},
        modules=module_table(refs),
    )


@pytest.fixture
def headers() -> Callable[..., Checkpoint]:
    return in_memory


@pytest.fixture
def shapes() -> Callable[..., dict[str, Any]]:
    """`shapes("llama", layers=3)` or `shapes("kimi", experts=4)`."""
    makers = {"llama": llama, "kimi": kimi}
    return lambda kind, **options: makers[kind](**options)


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Checkpoint]:
    """Write shards and JSON files into a folder and open it."""

    def write(
        shards: Mapping[str, Tensors],
        config: Mapping[str, Any] | None = CONFIG,
        index: Iterable[Any] = (),
        **files: Any,
    ) -> Checkpoint:
        root = tmp_path / "source"
        root.mkdir(exist_ok=True)
        for name, tensors in shards.items():
            (root / name).write_bytes(shard_bytes(tensors))
        if config is not None:
            (root / "config.json").write_text(json.dumps(config))
        if index:
            (root / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict(index)}))
        for name, value in files.items():
            (root / f"{name}.json").write_text(json.dumps(value))
        return open_checkpoint(root)

    return write


@pytest.fixture
def recipe() -> Callable[..., Recipe]:
    """A recipe for the MLPs in NVFP4, with changes."""

    def make(**change: Any) -> Recipe:
        document = {"name": "demo", "source": "/source", "format": "nvfp4", "quantize": ["*.mlp.*_proj"], **change}
        return recipe_from_mapping(document, Path("/base"), "recipe.yaml")

    return make
