"""Rules on names where a case of one edit does not reach: whole models in another dtype, and names made to be slow."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.findings import Report
from publisher.rules import run
from publisher.subjects import Evidence
from tests.builders.tiny import Tensor, Tiny, kimi, llama, mixture, mxfp4, nvfp4, values_of

SLOW = {
    "wrappers": ["model." * 20_000 + "weight", "language_model." * 5_000 + "lm_head.weight"],
    "attention": ["a" + ".self_attn" * 20_000 + ".k_scale"],
    "prediction": ["mtp." * 10_000 + "0.weight", *(f"model.layers.{n}.fc.weight" for n in range(20_000))],
    "experts": [f"model.layers.{n}.mlp.experts.{n}.w1.weight" for n in range(20_000)],
}


def judged(source: Tiny, result: Tiny, folder: Path) -> Report:
    evidence = Evidence(
        checkpoint=open_checkpoint(result.write(folder / "result")),
        source=open_checkpoint(source.write(folder / "source")),
    )
    return run(evidence, level="headers", select=["NM", "FU", "KV"])


@pytest.mark.parametrize("said", ["float32", None])
def test_a_model_that_is_wide_throughout_may_be_stored_narrower(said: str | None, tmp_path: Path) -> None:
    narrow = llama()
    wide = llama()
    for name, tensor in narrow.tensors.items():
        wide.tensors[name] = Tensor("F32", tensor.shape, values_of(tensor).astype("<f4").tobytes())
    wide.config["torch_dtype"] = said
    assert judged(wide, mxfp4(narrow), tmp_path).findings == ()


def test_one_wide_tensor_must_stay_wide(tmp_path: Path) -> None:
    narrow = llama()
    source = llama()
    source.tensors["model.norm.weight"] = Tensor("F32", (64,), np.ones(64, "<f4").tobytes())
    found = judged(source, mxfp4(narrow), tmp_path).findings
    assert [(f.code, f.tensor) for f in found] == [("NM25", "model.norm.weight")]


SPELLED: dict[str, dict[str, Any]] = {
    "first": {"num_dense_layers": 1},
    "listed": {"model_type": "llama4_text", "moe_layers": [1, 2]},
    "interval": {"moe_layer_start_index": 1, "moe_layer_interval": 1, "moe_layer_end_index": -1},
    "unsaid": {"model_type": "unheard_of"},
}


@pytest.mark.parametrize("keys", SPELLED.values(), ids=SPELLED)
def test_a_dense_layer_is_known_however_config_spells_it(keys: dict[str, Any], tmp_path: Path) -> None:
    source = mixture()
    del source.config["first_k_dense_replace"], source.config["moe_layer_freq"]
    source.config |= keys
    assert judged(source, nvfp4(source), tmp_path).findings == ()


def test_a_layer_without_experts_is_named_where_config_lists_them(tmp_path: Path) -> None:
    source = mixture()
    source.config |= {"first_k_dense_replace": 0, "model_type": "llama4_text", "moe_layers": [0, 1, 2]}
    found = judged(source, nvfp4(source), tmp_path).findings
    assert [f.message for f in found if f.code == "NM09"] == [
        "Layer 0 should have experts by config.json and has none; export it again."
    ]


def test_a_routing_bias_of_the_source_s_own_width_is_kept(tmp_path: Path) -> None:
    source = mixture()
    for name in [name for name in source.tensors if name.endswith("e_score_correction_bias")]:
        source.tensors[name] = Tensor("BF16", (4,), bytes(8))
    assert judged(source, nvfp4(source), tmp_path).findings == ()


@pytest.mark.parametrize(("outer", "inner", "codes"), [(True, False, ()), (False, True, ()), (True, True, ("NM16",))])
def test_a_wrapper_that_contradicts_its_language_model_about_the_head_is_not_judged(
    outer: bool, inner: bool, codes: tuple[str, ...], tmp_path: Path
) -> None:
    source = kimi()
    source.config["tie_word_embeddings"] = outer
    source.config["text_config"]["tie_word_embeddings"] = inner
    made = nvfp4(source)
    folder = tmp_path / "result"
    report = run(Evidence(checkpoint=open_checkpoint(made.write(folder))), level="headers", select=["NM16"])
    assert tuple(finding.code for finding in report.findings) == codes


@pytest.mark.parametrize("kind", SLOW)
def test_names_made_to_be_slow_are_judged_at_once(kind: str, tmp_path: Path) -> None:
    names = SLOW[kind]
    config = {"num_hidden_layers": 1, "num_experts": 4, "quantization_config": {"quant_method": "quark", "exclude": []}}
    result = Tiny(tensors={name: Tensor("U8", (1,), b"\0") for name in names}, config=config, shards=1)
    result.tensors["model.embed_tokens.weight"] = Tensor("U8", (1,), b"\0")
    source = Tiny(tensors={f"llm.{name}": Tensor("U8", (1,), b"\0") for name in names}, config={}, shards=1)
    began = time.process_time()
    report = judged(source, result, tmp_path)
    assert time.process_time() - began < 20
    assert not [finding for finding in report.findings if "could not finish" in finding.message]
