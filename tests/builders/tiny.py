"""Tiny checkpoints out of struct, json, numpy and ml_dtypes; nothing of the product writes a byte of them.

A `Tiny` is edited in memory and written; `llama` and `mixture` are unquantized sources, `nvfp4` and `mxfp4` make
modelopt and Quark checkpoints of them in the layouts the real exporters write.
"""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

LICENCE = b"Tiny Licence\r\nCopyright (c) Somebody \xe9\nPermission is hereby granted.\n"
SIDE = {
    "LICENSE": LICENCE,
    "legal/NOTICE.txt": b"Notices of parts.\n",
    "tokenizer.json": b'{"version": "1.0",  "model": {}}\n',
    "tokenizer_config.json": b'{"tokenizer_class": "PreTrainedTokenizerFast"}\n',
    "generation_config.json": b'{"eos_token_id": 2}\n',
    "chat_template.jinja": b"{{ messages }}\n",
    "modeling_tiny.py": b"class Tiny:\n    pass\n",
}
SOURCE_CARD = "---\nlicense: apache-2.0\n---\n# Tiny\n"
CARD = """---
license: apache-2.0
base_model: tiny/tiny
base_model_relation: quantized
library_name: transformers
pipeline_tag: text-generation
tags: [fp4, quantized]
extra_gated_heading: Terms
extra_gated_fields:
  Name: text
  Country: country
  Purpose:
    type: select
    options: [Research, {label: Something else, value: other}]
  I agree: checkbox
---
# Tiny in four bits

Made from tiny/tiny; not affiliated with its authors.
"""


@dataclass
class Tensor:
    dtype: str
    shape: tuple[int, ...]
    data: bytes


@dataclass
class Tiny:
    """A checkpoint in memory; `after` runs on the written folder."""

    tensors: dict[str, Tensor]
    config: dict[str, Any]
    hf_quant_config: dict[str, Any] | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    shards: int = 2
    metadata: Any = field(default_factory=lambda: {"format": "pt"})
    index: bool = True
    edit_index: Callable[[dict[str, Any]], None] | None = None
    after: list[Callable[[Path], None]] = field(default_factory=list)

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        names = list(self.tensors)
        cut = [names[i * len(names) // self.shards : (i + 1) * len(names) // self.shards] for i in range(self.shards)]
        weight_map: dict[str, str] = {}
        for number, part in enumerate(cut, 1):
            file = f"model-{number:05d}-of-{self.shards:05d}.safetensors" if self.shards > 1 else "model.safetensors"
            (folder / file).write_bytes(shard_bytes({n: self.tensors[n] for n in part}, self.metadata))
            weight_map |= dict.fromkeys(part, file)
        if self.shards > 1 and self.index:
            total = sum(len(tensor.data) for tensor in self.tensors.values())
            index = {"metadata": {"total_size": total}, "weight_map": weight_map}
            if self.edit_index is not None:
                self.edit_index(index)
            (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        (folder / "config.json").write_text(json.dumps(self.config))
        if self.hf_quant_config is not None:
            (folder / "hf_quant_config.json").write_text(json.dumps(self.hf_quant_config))
        for name, data in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        for change in self.after:
            change(folder)
        return folder

    def rename(self, old: str, new: str) -> None:
        self.tensors = {new if name == old else name: tensor for name, tensor in self.tensors.items()}

    def poke(self, name: str, at: int, value: int) -> None:
        data = bytearray(self.tensors[name].data)
        data[at] = value
        self.tensors[name].data = bytes(data)


def shard_bytes(tensors: dict[str, Tensor], metadata: Any = None) -> bytes:
    """A safetensors file, by its README: u64 length, JSON padded with spaces to eight bytes, data without holes."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    at = 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [at, at + len(tensor.data)]}
        at += len(tensor.data)
    return framed(json.dumps(header).encode(), b"".join(tensor.data for tensor in tensors.values()))


def framed(header: bytes, data: bytes) -> bytes:
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data


def reheader(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Edit a written shard's header, leaving its data alone."""
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    change(header)
    path.write_bytes(framed(json.dumps(header).encode(), raw[8 + length :]))


# --- sources -------------------------------------------------------------------------------------------------------


def bf16(values: np.ndarray) -> Tensor:
    return Tensor("BF16", values.shape, values.astype(ml_dtypes.bfloat16).tobytes())


def f32(value: float, shape: tuple[int, ...] = ()) -> Tensor:
    return Tensor("F32", shape, struct.pack("<f", value))


def _source(shapes: dict[str, tuple[int, ...]], config: dict[str, Any]) -> Tiny:
    rng = np.random.default_rng(7)
    tensors = {}
    for name, shape in sorted(shapes.items()):
        values = rng.normal(0, 0.02, shape).astype(np.float32)
        bias = name.endswith("e_score_correction_bias")
        tensors[name] = Tensor("F32", shape, values.tobytes()) if bias else bf16(values)
    return Tiny(tensors=tensors, config=config, files={**SIDE, "README.md": SOURCE_CARD.encode()})


def llama() -> Tiny:
    """Two layers, grouped-query attention."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (32, 64),
        "model.norm.weight": (64,),
        "lm_head.weight": (32, 64),
    }
    for layer in range(2):
        at = f"model.layers.{layer}"
        shapes |= {f"{at}.self_attn.q_proj.weight": (64, 64), f"{at}.self_attn.o_proj.weight": (64, 64)}
        shapes |= {f"{at}.self_attn.{p}_proj.weight": (32, 64) for p in "kv"}
        shapes |= {f"{at}.mlp.{p}_proj.weight": (96, 64) for p in ("gate", "up")}
        shapes |= {f"{at}.mlp.down_proj.weight": (64, 96)}
        shapes |= {f"{at}.{n}_layernorm.weight": (64,) for n in ("input", "post_attention")}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_hidden_layers": 2,
        "vocab_size": 32,
        "rope_theta": 10000.0,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.57.0",
    }
    return _source(shapes, config)


def mixture() -> Tiny:
    """A dense layer and two sparse ones with latent attention, a shared expert and a routing bias."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (32, 64),
        "model.norm.weight": (64,),
        "lm_head.weight": (32, 64),
    }
    for layer in range(3):
        at = f"model.layers.{layer}"
        shapes |= {
            f"{at}.self_attn.q_a_proj.weight": (32, 64),
            f"{at}.self_attn.q_b_proj.weight": (128, 32),
            f"{at}.self_attn.kv_a_proj_with_mqa.weight": (48, 64),
            f"{at}.self_attn.o_proj.weight": (64, 64),
            f"{at}.self_attn.q_a_layernorm.weight": (32,),
        }
        blocks = {"mlp": 96} if layer == 0 else {"mlp.shared_experts": 32} | {f"mlp.experts.{n}": 32 for n in range(4)}
        for block, width in blocks.items():
            shapes |= {f"{at}.{block}.{p}_proj.weight": (width, 64) for p in ("gate", "up")}
            shapes |= {f"{at}.{block}.down_proj.weight": (64, width)}
        if layer:
            shapes |= {f"{at}.mlp.gate.weight": (4, 64), f"{at}.mlp.gate.e_score_correction_bias": (4,)}
    config = {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "hidden_size": 64,
        "intermediate_size": 96,
        "moe_intermediate_size": 32,
        "num_attention_heads": 4,
        "v_head_dim": 16,
        "q_lora_rank": 32,
        "kv_lora_rank": 32,
        "n_routed_experts": 4,
        "first_k_dense_replace": 1,
        "moe_layer_freq": 1,
        "num_hidden_layers": 3,
        "rope_theta": 10000.0,
        "torch_dtype": "bfloat16",
    }
    return _source(shapes, config)


def kimi() -> Tiny:
    """The mixture as Kimi K2.5 wraps it: under `language_model.`, with a vision tower and a projector beside it."""
    inner = mixture()
    rng = np.random.default_rng(11)
    tensors = {f"language_model.{name}": tensor for name, tensor in inner.tensors.items()}
    for name, shape in {
        "mm_projector.proj.0.weight": (64, 48),
        "mm_projector.proj.2.weight": (64, 64),
        "vision_tower.encoder.blocks.0.wqkv.weight": (144, 48),
        "vision_tower.encoder.blocks.0.norm0.weight": (48,),
    }.items():
        tensors[name] = bf16(rng.normal(0, 0.02, shape).astype(np.float32))
    text = {key: value for key, value in inner.config.items() if key not in ("architectures", "torch_dtype")}
    config = {
        "architectures": ["KimiK25ForConditionalGeneration"],
        "model_type": "kimi_k25",
        "auto_map": {"AutoConfig": "configuration_tiny.TinyConfig", "AutoModel": "modeling_tiny.Tiny"},
        "text_config": text | {"architectures": ["DeepseekV3ForCausalLM"]},
        "vision_config": {"hidden_size": 48},
        "torch_dtype": "bfloat16",
    }
    files = {**inner.files, "configuration_tiny.py": b"class TinyConfig:\n    pass\n"}
    return Tiny(tensors=dict(sorted(tensors.items())), config=config, files=files)


# --- quantizing ----------------------------------------------------------------------------------------------------

FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("q_a_proj", "kv_a_proj_with_mqa"))


def values_of(tensor: Tensor) -> np.ndarray:
    return np.frombuffer(tensor.data, ml_dtypes.bfloat16).astype(np.float32).reshape(tensor.shape)


def _pack(scaled: np.ndarray) -> bytes:
    codes = np.clip(scaled, -6, 6).astype(ml_dtypes.float4_e2m1fn).view(np.uint8) & 0xF
    return (codes[:, 1::2] << 4 | codes[:, ::2]).astype(np.uint8).tobytes()


def _linears(tiny: Tiny) -> list[str]:
    """Layers to quantize: everything with two dimensions but embedding, head and routers."""
    skip = ("embed_tokens", "lm_head", "mlp.gate")
    names = [name.removesuffix(".weight") for name in tiny.tensors if name.endswith("_proj.weight") or "_mqa" in name]
    return [name for name in names if not name.endswith(skip)]


def _plain(source: Tiny) -> list[str]:
    """Linear layers left alone, and a glob for each tower, as an exclude list names them."""
    towers = sorted({f"{name.partition('.')[0]}*" for name in source.tensors if name.startswith(("vision", "mm_"))})
    return (
        sorted(n.removesuffix(".weight") for n in source.tensors if n.endswith(("lm_head.weight", "gate.weight")))
        + towers
    )


def _mates(name: str, names: Iterable[str]) -> list[str]:
    parent, _, last = name.rpartition(".")
    group = next((members for members in FUSED if last in members), (last,))
    return [f"{parent}.{member}" for member in group if f"{parent}.{member}" in names]


def nvfp4(source: Tiny, *, activations: bool = True) -> Tiny:
    """modelopt's layout, W4A4 or W4A16."""
    result = copy.deepcopy(source)
    names = _linears(source)
    for name in names:
        amax = max(float(abs(values_of(source.tensors[f"{mate}.weight"])).max()) for mate in _mates(name, names))
        values = values_of(source.tensors[f"{name}.weight"])
        second = np.float32(amax / (6 * 448))
        blocks = values.reshape(values.shape[0], -1, 16)
        scale = np.clip(abs(blocks).max(axis=2) / (6 * second), 2.0**-9, 448).astype(ml_dtypes.float8_e4m3fn)
        scaled = blocks / (scale.astype(np.float32) * second)[..., None]
        rows, columns = values.shape
        result.tensors |= {
            f"{name}.weight": Tensor("U8", (rows, columns // 2), _pack(scaled.reshape(rows, columns))),
            f"{name}.weight_scale": Tensor("F8_E4M3", scale.shape, scale.tobytes()),
            f"{name}.weight_scale_2": f32(second),
        }
        if activations:
            first = names.index(_mates(name, names)[0])  # members of a fused layer see the same activations
            result.tensors[f"{name}.input_scale"] = f32(0.0031 + 0.0001 * first)
    exclude = _plain(source)
    algo = "NVFP4" if activations else "W4A16_NVFP4"
    spec = {"dynamic": False, "num_bits": 4, "type": "float", "group_size": 16}
    group = {"weights": spec, "targets": ["Linear"]} | ({"input_activations": spec} if activations else {})
    producer = {"name": "modelopt", "version": "0.47.0"}
    result.config["quantization_config"] = {
        "config_groups": {"group_0": group},
        "ignore": exclude,
        "quant_algo": algo,
        "producer": producer,
        "quant_method": "modelopt",
    }
    body = {"quant_algo": algo, "kv_cache_quant_algo": None, "group_size": 16, "exclude_modules": list(exclude)}
    result.hf_quant_config = {"producer": producer, "quantization": body}
    return _finished(result)


def mxfp4(source: Tiny) -> Tiny:
    """Quark's layout with dynamic activations."""
    result = copy.deepcopy(source)
    for name in _linears(source):
        values = values_of(source.tensors[f"{name}.weight"])
        blocks = values.reshape(values.shape[0], -1, 32)
        exponent = np.floor(np.log2(abs(blocks).max(axis=2))) - 2
        rows, columns = values.shape
        scaled = (blocks / 2.0 ** exponent[..., None]).reshape(rows, columns)
        result.tensors |= {
            f"{name}.weight": Tensor("U8", (rows, columns // 2), _pack(scaled)),
            f"{name}.weight_scale": Tensor("U8", exponent.shape, (exponent + 127).astype(np.uint8).tobytes()),
        }
    spec = {
        "dtype": "fp4",
        "qscheme": "per_group",
        "ch_axis": -1,
        "group_size": 32,
        "symmetric": None,
        "round_method": "half_even",
        "scale_type": "float",
        "scale_format": "e8m0",
        "scale_calculation_mode": "floor",
        "observer_cls": "PerBlockMXObserver",
    }
    result.config["quantization_config"] = {
        "quant_method": "quark",
        "version": "0.11.2",
        "global_quant_config": {
            "input_tensors": {**spec, "is_dynamic": True},
            "output_tensors": None,
            "weight": {**spec, "is_dynamic": False},
            "bias": None,
        },
        "exclude": _named(source),
        "layer_type_quant_config": {},
        "layer_quant_config": {},
        "kv_cache_quant_config": {},
        "export": {"kv_cache_group": [], "pack_method": "reorder", "weight_format": "real_quantized"},
    }
    return _finished(result)


def _named(source: Tiny) -> list[str]:
    """Every plain layer by its own name, as Quark and compressed-tensors resolve their lists."""
    towers = [n.removesuffix(".weight") for n in source.tensors if n.startswith(("vision", "mm_")) and "norm" not in n]
    return [name for name in _plain(source) if not name.endswith("*")] + sorted(towers)


def compressed(source: Tiny, form: str, *, activations: bool = True) -> Tiny:
    """compressed-tensors' layout: global scales are divisors, payloads are `weight_packed`."""
    made = nvfp4(source) if form == "nvfp4" else mxfp4(source)
    names, tensors = set(_linears(source)), {}
    for name, tensor in made.tensors.items():
        module, _, suffix = name.rpartition(".")
        if module not in names or suffix == "weight_scale":
            tensors[name] = tensor
        elif suffix == "weight":
            tensors[f"{module}.weight_packed"] = tensor
        elif suffix == "weight_scale_2" or (suffix == "input_scale" and activations):
            value = 1 / struct.unpack("<f", tensor.data)[0]
            kind = "weight" if suffix == "weight_scale_2" else "input"
            tensors[f"{module}.{kind}_global_scale"] = f32(value, (1,))
    made.tensors, made.hf_quant_config = tensors, None
    block = 16 if form == "nvfp4" else 32
    spec = {
        "num_bits": 4,
        "type": "float",
        "symmetric": True,
        "strategy": "tensor_group" if form == "nvfp4" else "group",
        "group_size": block,
        "dynamic": False,
        "scale_dtype": "torch.float8_e4m3fn" if form == "nvfp4" else "torch.uint8",
    }
    inputs = {**spec, "dynamic": "local" if form == "nvfp4" else True} if activations else None
    made.config["quantization_config"] = {
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": spec,
                "input_activations": inputs,
                "output_activations": None,
                "format": f"{form}-pack-quantized",
            }
        },
        "format": f"{form}-pack-quantized",
        "ignore": _named(source),
        "kv_cache_scheme": None,
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "sparsity_config": {},
        "transform_config": {},
        "version": "0.20.0",
    }
    return _finished(made)


def _finished(result: Tiny) -> Tiny:
    result.tensors = dict(sorted(result.tensors.items()))
    result.files["README.md"] = CARD.encode()
    return result
