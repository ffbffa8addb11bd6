"""Tables of engines and GPUs: complete, sourced, and never claiming a test nobody made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from publisher import jsonio
from publisher.card.serving import HARDWARE, TABLE, commands, family_source, hardware, refusals, sources, unread
from publisher.checkpoint.open import open_checkpoint


def test_the_tables_name_source_and_date() -> None:
    for name in (TABLE, HARDWARE):
        assert jsonio.data(name)["source"]
        assert jsonio.data(name)["date"]
    for row in jsonio.data(TABLE)["engines"]:
        assert "{model}" in row["command"]
        assert set(row["activations"]) <= {"static", "dynamic", "none"}
    for entry in jsonio.data(HARDWARE)["formats"].values():
        assert entry["source"]
        assert all(row["support"] in {"native", "fallback", "emulated", "loads", "not known"}
                   for kind in ("full", "weight_only") for row in entry[kind]["rows"])  # fmt: skip


def test_commands_follow_layout_and_format(nvfp4: Path, mxfp4: Path) -> None:
    assert [c.engine for c in commands(open_checkpoint(nvfp4), "a/b", {})] == ["vLLM", "SGLang", "TensorRT-LLM"]
    assert [c.engine for c in commands(open_checkpoint(mxfp4), "a/b", {})] == ["vLLM", "SGLang", "ATOM"]
    assert [engine for engine, _ in refusals(open_checkpoint(nvfp4))] == ["transformers"]


def test_a_source_that_is_not_quantized_has_neither(source: Path) -> None:
    checkpoint = open_checkpoint(source)
    assert commands(checkpoint, "a/b", {}) == ()
    assert refusals(checkpoint) == ()
    assert hardware(checkpoint) is None
    assert all(sources(checkpoint))


@pytest.mark.parametrize(
    ("claim", "verified"),
    [
        ("vLLM 0.33.0 on 8x B200", True),
        ("served with VLLM", True),
        ("my-vllm-fork 1.0", False),
        ("vllmish", False),
        ("SGLang 0.5", False),
    ],
)
def test_a_claim_counts_for_the_engine_it_names(nvfp4: Path, claim: str, verified: bool) -> None:
    found = commands(open_checkpoint(nvfp4), "a/b", {"serving": {"verified": [claim]}})[0]
    assert found.engine == "vLLM"
    assert (found.verified == claim) is verified


def kimi(folder: Path, **more: Any) -> Path:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "kimi_k25", **more}))
    return folder


def test_parsers_are_those_of_the_models_family(nvfp4: Path) -> None:
    found = {c.engine: c.text for c in commands(open_checkpoint(kimi(nvfp4)), "org/X", {})}
    assert "--enable-auto-tool-choice --tool-call-parser kimi_k2" in found["vLLM"]
    assert "--reasoning-parser kimi_k2" in found["SGLang"]
    assert "--tool_parser kimi_k2" in found["TensorRT-LLM"]
    deepseek = kimi(nvfp4, model_type="deepseek_v3")
    for name, parser in (("deepseek-ai/DeepSeek-V3.1", "deepseek_v31"), ("deepseek-ai/DeepSeek-R1", "deepseek_v3")):
        found = {c.engine: c.text for c in commands(open_checkpoint(deepseek), "org/X", {}, base_model=name)}
        assert f"--tool-call-parser {parser}" in found["vLLM"]
    assert family_source(open_checkpoint(deepseek), "deepseek-ai/DeepSeek-R1").startswith("DeepSeek R1: parsers")
    assert family_source(open_checkpoint(deepseek), "org/own") == ""
    found = {c.engine: c.text for c in commands(open_checkpoint(deepseek), "org/X", {}, base_model="org/own")}
    assert "parser" not in found["vLLM"], "a name nobody knows is not guessed"


def test_a_persons_options_are_added_and_win(nvfp4: Path) -> None:
    person = {"serving": {"flags": {"vLLM": ["--max-model-len 1024", "--kv-cache-dtype=auto"]}}}
    found = {c.engine: c.lines for c in commands(open_checkpoint(nvfp4), "org/X", person)}
    assert found["vLLM"] == ("vllm serve org/X", "--max-model-len 1024", "--kv-cache-dtype=auto")
    assert "--kv-cache-dtype fp8_e4m3" in found["SGLang"]


def test_what_was_tried_is_told_with_its_command(nvfp4: Path) -> None:
    tried = {"engine": "SGLang", "hardware": "4x B200", "command": "python -m sglang.launch_server --model-path x"}
    found = {c.engine: c for c in commands(open_checkpoint(nvfp4), "org/X", {"verified": [tried]})}
    assert found["SGLang"].verified == "SGLang on 4x B200"
    assert found["SGLang"].tried == tried["command"]
    assert found["vLLM"].verified is None


def test_the_rules_verdicts_name_engines_that_refuse_or_are_not_known(nvfp4: Path) -> None:
    report = {
        "engines": [
            {"engine": "vllm", "version": "0.23.0", "verdict": "refuses", "because": ["SV01"], "reason": ""},
            {"engine": "vllm", "version": "0.33.0", "verdict": "unknown", "because": [], "reason": "x"},
            {"engine": "atom", "version": "of 2026", "verdict": "unknown", "because": [], "reason": "x"},
            {"engine": "transformers", "version": "5.23", "verdict": "refuses", "because": [], "reason": "no reader"},
            {"engine": 3, "version": None, "verdict": "refuses"},
            "x",
        ]
    }
    found = dict(refusals(open_checkpoint(nvfp4), report))
    assert found["vLLM 0.23.0"] == "refused by SV01"
    assert "transformers 5.23" not in found, "the table names it already"
    assert unread(report) == (("vLLM 0.33.0, ATOM of 2026", "x"),), "versions with one reason stand together"
    assert unread({"engines": None}) == unread(None) == ()


def test_the_card_and_the_verdict_name_the_same_first_version() -> None:
    """Two tables speak of vLLM and modelopt's layout: what the card recommends, what the verdict refuses."""
    accepted = jsonio.data("engines/algorithms.json")["accepts"]
    for activations, algorithm in (("static", "NVFP4"), ("none", "W4A16_NVFP4")):
        first = accepted[algorithm]["vllm"]
        rows = [
            row
            for row in jsonio.data("engines/serving.json")["engines"]
            if (row["engine"], row["layout"], row["format"]) == ("vLLM", "modelopt", "nvfp4")
            and activations in row["activations"]
        ]
        said = [row["version"].removesuffix(" or newer") for row in rows]
        assert [first.startswith(version) for version in said] == [True], (algorithm, first, said)
