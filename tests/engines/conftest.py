"""A tiny random Llama with a real tokenizer, saved by transformers itself, and a job for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "saw",
    "dog",
    "run",
    "far",
    "away",
    "red",
    "blue",
    "house",
    "tree",
]
PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
MLP = [f"model.layers.{layer}.mlp.{name}" for layer in (0, 1) for name in PROJECTIONS]
KEPT = ["lm_head", "model.embed_tokens"] + [
    f"model.layers.{layer}.self_attn.{name}_proj" for layer in (0, 1) for name in "qkvo"
]


def save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(["[UNK]", "</s>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", eos_token="</s>")
    fast.chat_template = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
    fast.save_pretrained(folder)


def save_llama(folder: Path, **overrides: Any) -> Any:
    """Save the model (BF16), its tokenizer, and files a person put beside them; returns the model class's instance."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(7)
    settings = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 32,
        "tie_word_embeddings": True,
        "max_position_embeddings": 64,
    }
    model = LlamaForCausalLM(LlamaConfig(**(settings | overrides))).to(torch.bfloat16)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    (folder / "LICENSE").write_bytes(b"Terms of the tests.\r\nKept byte for byte.\n")
    (folder / "modeling_extra.py").write_text("raise SystemExit('code of a checkpoint must not run')\n")
    return model


def edit_weights(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Change the tensors of a one-shard checkpoint with the safetensors library."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    save_llama(folder)
    return folder


def job_for(source: Path, run: Path, **overrides: Any) -> Path:
    """Write a job file for W4A4 NVFP4 of all MLP projections, calibrated on 24 short lines."""
    data = run / "calibration.txt"
    run.mkdir(parents=True, exist_ok=True)
    data.write_text("".join(" ".join(WORDS[i % 7 : i % 7 + 6]) + "\n" for i in range(24)))
    exclude = ["lm_head", "model.embed_tokens", "model.layers.0.self_attn*", "model.layers.1.self_attn*"]
    producer = {"name": "modelopt", "version": "0.47.0"}
    spec = {"dynamic": False, "num_bits": 4, "type": "float", "group_size": 16}
    job = {
        "schema": 1,
        "engine": "modelopt",
        "source": str(source),
        "output": str(run / "checkpoint"),
        "staging": str(run / "staging"),
        "format": "nvfp4",
        "layout": "modelopt",
        "mode": "max",
        "activations": "calibrated",
        "kv_cache": "none",
        "quantize": MLP,
        "groups": {
            f"model.layers.{i}.mlp.gate_up_proj": [f"model.layers.{i}.mlp.{p}" for p in PROJECTIONS[:2]] for i in (0, 1)
        },
        "exclude": exclude,
        "quantization_config": {
            "config_groups": {"group_0": {"input_activations": spec, "weights": spec, "targets": ["Linear"]}},
            "ignore": exclude,
            "quant_algo": "NVFP4",
            "producer": producer,
            "quant_method": "modelopt",
        },
        "hf_quant_config": {
            "producer": producer,
            "quantization": {
                "quant_algo": "NVFP4",
                "kv_cache_quant_algo": None,
                "group_size": 16,
                "exclude_modules": exclude,
            },
        },
        "calibration": {"data": str(data), "samples": 16, "sequence_length": 8, "seed": 0},
        "shard_size": 60_000,
        "device": "cpu",
        "plan_digest": "d" * 64,
    } | overrides
    path = run / "job.json"
    path.write_text(json.dumps(job))
    return path


@pytest.fixture(scope="session")
def make_job() -> Callable[..., Path]:
    return job_for


@pytest.fixture(scope="session")
def make_llama() -> Callable[..., Any]:
    return save_llama


@pytest.fixture(scope="session")
def edit() -> Callable[..., None]:
    return edit_weights


@pytest.fixture(scope="session")
def mlp_modules() -> list[str]:
    return list(MLP)
