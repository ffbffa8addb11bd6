"""Tiny checkpoints written byte by byte, and the inputs of a card around them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

WIDTH = {"BF16": 2, "F32": 4, "U8": 1, "F8_E4M3": 1}
TEXT = "Apache License Version 2.0, January 2004\r\n\tnot UTF-8: \xe9\xff\r\n".encode("latin-1")
BIBTEX = "@misc{tiny,\n  title = {{Tiny} model},\n  year = {2026}\n}"
UPSTREAM = f"""---
license: apache-2.0
language: [en, no]
pipeline_tag: text-generation
model-index: [{{name: Tiny}}]
extra_gated_prompt: upstream's own
---
# Tiny

## Citation

```bibtex
{BIBTEX}
```
"""
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 96,
    "max_position_embeddings": 2048,
}
MLP = {"gate_proj": (128, 64), "up_proj": (128, 64), "down_proj": (64, 128)}
ATTENTION = {"q_proj": (64, 64), "k_proj": (32, 64), "v_proj": (32, 64), "o_proj": (64, 64)}


def shard(path: Path, tensors: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    """A safetensors file of zeros (README, "Format")."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (dtype, shape) in tensors.items():
        size = WIDTH[dtype]
        for number in shape:
            size *= number
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(at))


def plain() -> dict[str, tuple[str, tuple[int, ...]]]:
    found: dict[str, tuple[str, tuple[int, ...]]] = {
        "model.embed_tokens.weight": ("BF16", (96, 64)),
        "lm_head.weight": ("BF16", (96, 64)),
        "model.norm.weight": ("BF16", (64,)),
    }
    for layer in range(2):
        for name, shape in MLP.items():
            found[f"model.layers.{layer}.mlp.{name}.weight"] = ("BF16", shape)
        for name, shape in ATTENTION.items():
            found[f"model.layers.{layer}.self_attn.{name}.weight"] = ("BF16", shape)
        found[f"model.layers.{layer}.input_layernorm.weight"] = ("BF16", (64,))
    return found


def packed(form: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    found = plain()
    for layer in range(2):
        for name, (out, inner) in MLP.items():
            prefix = f"model.layers.{layer}.mlp.{name}"
            found[f"{prefix}.weight"] = ("U8", (out, inner // 2))
            if form == "nvfp4":
                found[f"{prefix}.weight_scale"] = ("F8_E4M3", (out, inner // 16))
                found[f"{prefix}.weight_scale_2"] = ("F32", ())
                found[f"{prefix}.input_scale"] = ("F32", ())
            else:
                found[f"{prefix}.weight_scale"] = ("U8", (out, inner // 32))
    return found


EXCLUDE = ["lm_head", "model.layers.0.self_attn*", "model.layers.1.self_attn*"]
PART = {"dynamic": False, "num_bits": 4, "type": "float", "group_size": 16}
NVFP4 = {
    "quant_method": "modelopt",
    "quant_algo": "NVFP4",
    "ignore": EXCLUDE,
    "config_groups": {"group_0": {"input_activations": PART, "weights": PART, "targets": ["Linear"]}},
    "kv_cache_scheme": {"dynamic": False, "num_bits": 8, "type": "float"},
    "producer": {"name": "modelopt", "version": "0.47.0"},
}
SPEC = {"dtype": "fp4", "qscheme": "per_group", "group_size": 32, "scale_format": "e8m0"}
MXFP4 = {
    "quant_method": "quark",
    "version": "0.11",
    "global_quant_config": {"weight": {**SPEC, "is_dynamic": False}, "input_tensors": {**SPEC, "is_dynamic": True}},
    "exclude": ["lm_head", r"re:^(.*\.)?self_attn(\..*)?$"],
    "export": {"kv_cache_group": []},
}


def write(folder: Path, tensors: dict[str, tuple[str, tuple[int, ...]]], config: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    names = list(tensors)
    half = len(names) // 2
    for number, part in enumerate((names[:half], names[half:]), 1):
        shard(folder / f"model-{number:05d}-of-00002.safetensors", {name: tensors[name] for name in part})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An unquantized model with a licence that no decoder would leave alone, and a card."""
    folder = write(tmp_path / "upstream", plain(), CONFIG)
    (folder / "LICENSE").write_bytes(TEXT)
    (folder / "README.md").write_text(UPSTREAM)
    return folder


@pytest.fixture
def nvfp4(tmp_path: Path) -> Path:
    """MLPs as modelopt stores them."""
    return write(tmp_path / "nvfp4", packed("nvfp4"), {**CONFIG, "quantization_config": NVFP4})


@pytest.fixture
def mxfp4(tmp_path: Path) -> Path:
    """MLPs as Quark stores them."""
    return write(tmp_path / "mxfp4", packed("mxfp4"), {**CONFIG, "quantization_config": MXFP4})


REPORT = {
    "findings": [
        {"code": "SD03", "slug": "chat-template", "severity": "warning", "message": "No chat template.", "where": {}}
    ],
    "not_run": [{"code": "NU01", "reason": "needs --level full"}],
    "publishable": True,
    "summary": {"rules_run": 40, "rules_not_run": 1, "errors": 0, "warnings": 1, "bytes_read": 12345, "waivers": {}},
    "tool": {"name": "fp4-publisher", "version": "1.2.3"},
}
RECORD = {
    "engine": "native",
    "versions": {"publisher": "1.2.3", "torch": "2.13.0"},
    "device": {"kind": "cpu", "name": "CPU (2 threads)"},
    "seconds": 12.5,
    "peak_memory": {"host": 2_000_000_000, "device": None},
    "weight_error": {
        "overall": 0.0947,
        "modules": {"model.layers.0.mlp.up_proj": 0.1, "model.layers.1.mlp.up_proj": 0.09},
    },
}
EVALUATION = {
    "source": {"perplexity": 14.645},
    "checkpoint": {"perplexity": 16.435},
    "windows": 16,
    "length": 512,
    "text": {"name": "/somewhere/private/english.txt", "sha256": "ab" * 32},
    "prompt": "The capital of France is",
    "continuation": " Paris, and",
}
PERSON = {
    "base_model": "tiny-org/Tiny-1B",
    "publisher": {"name": "Example Lab", "contact": "models@example.org"},
    "notes": ["Only the MLPs are quantized."],
    "gate": {"heading": "Before you ask", "fields": {"Company": "text", "I agree": "checkbox"}},
}


@pytest.fixture
def inputs(source: Path) -> dict[str, Any]:
    """What a card needs beside the result, as the pipeline hands it over."""
    from publisher.checkpoint.open import open_checkpoint
    from publisher.checkpoint.source import resolve
    from publisher.plan.model import TargetSpec

    origin = resolve(str(source))
    return {
        "original": open_checkpoint(origin.files),
        "source": origin,
        "plan": None,
        "report": REPORT,
        "quantize": RECORD,
        "evaluation": EVALUATION,
        "person": PERSON,
        "target": TargetSpec(repo="example-lab/Tiny-1B-FP4"),
    }
