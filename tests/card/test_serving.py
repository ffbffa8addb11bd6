"""Tables of engines and GPUs: complete, sourced, and never claiming a test nobody made."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher import jsonio
from publisher.card.serving import HARDWARE, TABLE, commands, hardware, refusals, sources
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
