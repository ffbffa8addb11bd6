"""Nonsense in configs, headers and cards: every rule ends with a verdict, none with its own failure."""

from __future__ import annotations

import copy
import json
import random
import resource
from pathlib import Path
from typing import Any

import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.rules import run
from publisher.subjects import Evidence
from tests.builders.tiny import Tensor, Tiny, llama, mixture, mxfp4, nvfp4

NONSENSE: list[Any] = [None, 0, -1, 1e300, 10**40, True, "", "x" * 300, "\ud800\x1b[2J", [], [None], ["a", "a", 3], {}]
NONSENSE += [{"group_size": "x"}, {"weight": [{}]}, {"quantization_config": {"quant_method": 7}}]
DTYPES = ["F32", "U8", "I64", "F4", "BOOL", "F8_E8M0", "C64", "?" * 50]
SHAPES = [(), (1,), (0,), (3, 4, 5), (10**12, 10**12), (1,) * 40]
CARD = {
    "license": "other",
    "license_name": "x",
    "license_link": "LICENSE",
    "base_model": "a/b",
    "base_model_relation": "quantized",
    "extra_gated_prompt": "p",
    "extra_gated_fields": {"a": "text", "b": {"type": "select", "options": ["x", {"label": "l", "value": "v"}]}},
}


SIDE: dict[str, Any] = {
    "config.json": {"auto_map": {"AutoModel": ["a.B", None], "AutoConfig": "x--y.Z"}, "vocab_size": 32},
    "tokenizer_config.json": {
        "tokenizer_class": "T",
        "eos_token": {"content": "</s>"},
        "extra_special_tokens": ["<a>"],
        "additional_special_tokens": [{"content": "<b>"}],
        "added_tokens_decoder": {"2": {"content": "</s>", "special": True}},
        "chat_template": [{"name": "default", "template": "x"}],
        "auto_map": {"AutoTokenizer": ["t.T", "u.U"]},
    },
    "tokenizer.json": {"added_tokens": [{"content": "</s>", "id": 2}]},
    "generation_config.json": {"eos_token_id": [2, 3], "bad_token_ids": [1]},
    "chat_template.json": {"chat_template": "x"},
    "added_tokens.json": {"</s>": 2},
    "special_tokens_map.json": {"eos_token": "</s>"},
    "quant_cfg.json": {"quant_algo": "NVFP4"},
    "dtypes.json": {},
    "publish.json": {"engine": {"name": "modelopt", "version": "1"}, "resources": [{"name": "a", "size": 1}]},
    "preprocessor_config.json": {"auto_map": {"AutoImageProcessor": "p.P"}},
}
COMMANDS = [
    "vllm serve a/b --tensor-parallel-size {} --enable-expert-parallel --moe-backend cutlass",
    "python -m sglang.launch_server --tp {} --ep-size {}",
    "python -m atom.entrypoints.openai_server -tp {}",
    "trtllm-serve a --tp_size {}\npip install vllm=={}.1.2 on {}x H200",
]
NUMBERS = ["0", "1", "3", "8", "007", "9" * 4, "9" * 60, "-1", "x", ""]


def spoil(value: Any, rng: random.Random) -> Any:
    """Replace or drop one part of a document."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(sorted(value))
        rest = {k: v for k, v in value.items() if k != key}
        return rest if rng.random() < 0.1 else rest | {key: spoil(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.5:
        return [spoil(value[0], rng), *value[1:]]
    return rng.choice(NONSENSE)


def spoiled(tiny: Tiny, rng: random.Random) -> Tiny:
    config = spoil(tiny.config, rng)
    tiny.config = config if isinstance(config, dict) else {"model_type": config}
    tiny.hf_quant_config = spoil(tiny.hf_quant_config, rng) if rng.random() < 0.5 else tiny.hf_quant_config
    tiny.files["README.md"] = f"---\n{json.dumps(spoil(CARD, rng))}\n---\n".encode()
    for name in rng.sample(sorted(tiny.tensors), 2):
        tiny.tensors[name].dtype, tiny.tensors[name].shape = rng.choice(DTYPES), rng.choice(SHAPES)
    return tiny


@pytest.mark.parametrize("seed", range(40))
def test_nonsense_beside_the_weights_gets_a_verdict(seed: int, tmp_path: Path) -> None:
    """Tokenizers, templates, manifests and code of any shape, and commands with any number."""
    rng = random.Random(seed)
    source = rng.choice([llama, mixture])()
    result = rng.choice([nvfp4, mxfp4])(copy.deepcopy(source))
    for tiny in (source, result):
        for name in rng.sample(sorted(SIDE), 6):
            if name == "config.json":
                tiny.config["auto_map"] = spoil(SIDE[name]["auto_map"], rng)
            else:
                tiny.files[name] = json.dumps(spoil(SIDE[name], rng)).encode(errors="replace")
        tiny.files["a.py"] = rng.choice(
            [b"from .b import c, d as e\nclass B: ...", b"from ....x import (", b"\xff\0", b""]
        )
        tiny.files["recipe.yaml"] = rng.choice([b"scheme: MXFP4", b"scheme: [", b"\xff"])
        command = rng.choice(COMMANDS)
        command = command.format(*(rng.choice(NUMBERS) for _ in range(command.count("{}"))))
        tiny.files["README.md"] = tiny.files["README.md"] + f"\n```\n{command}\n```\n".encode()
    evidence = Evidence(
        checkpoint=open_checkpoint(result.write(tmp_path / "result")),
        source=open_checkpoint(source.write(tmp_path / "source")) if seed % 3 else None,
        base_model="tiny/tiny",
    )
    report = run(evidence, level="full")
    assert not [finding.message for finding in report.findings if "could not finish" in finding.message]
    json.dumps(report.to_json(), ensure_ascii=False, allow_nan=False).encode()
    assert report.seconds < 10


def test_a_shard_that_shrinks_while_it_is_read_ends_in_a_sentence(tmp_path: Path) -> None:
    folder = nvfp4(llama()).write(tmp_path)
    checkpoint = open_checkpoint(folder)
    with (folder / "model-00002-of-00002.safetensors").open("r+b") as file:
        file.truncate(4000)
    report = run(Evidence(checkpoint=checkpoint), level="full")
    assert not report.publishable
    assert any("model-00002-of-00002.safetensors" in finding.message for finding in report.errors)
    assert not any("Error:" in finding.message for finding in report.findings)


def test_names_never_reach_a_terminal_as_they_are(tmp_path: Path) -> None:
    """Control characters, markup and paths as names of tensors, files and keys."""
    tiny = nvfp4(llama())
    for name in ("a\x1b[2Jb.weight", "\u202egnp.weight", "../../x.weight", "x" * 5000, "<script>.weight", ""):
        tiny.tensors[name] = Tensor("BF16", (2, 2), bytes(8))
    tiny.config["quantization_config"]["ignore"] += ["\x1b[31m", "a\nb"]
    tiny.edit_index = lambda index: index["weight_map"].update({"y": "../\x1b[2J.safetensors", "z": "/etc/passwd"})
    folder = tiny.write(tmp_path)
    (folder / "b\x07ell.json").write_text("{}")
    report = run(Evidence(checkpoint=open_checkpoint(folder)), level="full")
    assert {"CN18", "CN19", "CN22"} <= {finding.code for finding in report.errors}
    for finding in report.findings:
        for text in (finding.message, finding.file or "", finding.tensor or ""):
            assert text.isprintable()
            assert len(text) <= 2000


@pytest.mark.parametrize("claim", [2**63, 2**64 - 1, 10**8, 0])
def test_a_claim_of_any_length_costs_no_memory(claim: int, tmp_path: Path) -> None:
    folder = nvfp4(llama()).write(tmp_path)
    with (folder / "model-00001-of-00002.safetensors").open("r+b") as file:
        file.write(claim.to_bytes(8, "little"))
        file.truncate(5 << 30)  # sparse
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = run(Evidence(checkpoint=open_checkpoint(folder)), level="full")
    assert "CN01" in {finding.code for finding in report.errors} or claim == 10**8
    assert not report.publishable
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


@pytest.mark.parametrize("seed", range(60))
def test_nonsense_gets_a_verdict(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    source = rng.choice([llama, mixture])()
    result = spoiled(rng.choice([nvfp4, mxfp4])(copy.deepcopy(source)), rng)
    evidence = Evidence(
        checkpoint=open_checkpoint(result.write(tmp_path / "result")),
        source=open_checkpoint(source.write(tmp_path / "source")),
        base_model="tiny/tiny",
    )
    report = run(evidence)
    assert not [finding.message for finding in report.findings if "could not finish" in finding.message]
    assert report.findings
    json.dumps(report.to_json(), ensure_ascii=False, allow_nan=False).encode()
    assert report.seconds < 5
