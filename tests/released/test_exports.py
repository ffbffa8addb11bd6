"""Exports of llm-compressor and Quark through every rule: each finding is argued, and there is no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.findings import Report
from publisher.rules import run
from publisher.subjects import Evidence

HERE = Path(__file__).parent
CARD = "the upstream card is copied as the checkpoint's own, without base_model"
BARE = "the shards are written without the `format` metadata that transformers asks for"
RESAVED = "loading and saving through transformers rewrites the tokenizer's and the generation's configuration"
LOST = "the licence is not copied"
FUSED = "file-to-file mode fuses `mlp.gate_proj`/`mlp.up_proj` and q/k/v only, not experts or latent attention"

ARGUED: dict[str, dict[str, str]] = {
    "slice-model-free-nvfp4a16": {"LC03": CARD, "SD16w": CARD, "LC08w": CARD, "LC23w": CARD, "CN06w": BARE},
    "slice-model-free-mxfp4": {"LC03": CARD, "SD16w": CARD, "LC08w": CARD, "LC23w": CARD, "CN06w": BARE},
    "slice-oneshot-nvfp4": {
        "LC01": LOST,
        "SD01": RESAVED,
        "CF25": "equal values in head and embedding are taken for tied: tie_word_embeddings becomes true",
    },
    "slice-quark-mxfp4": {"CN06w": BARE, "CN11w": "total_size adds up files, not tensors"},
    "kimi-model-free-nvfp4a16": {
        "LC03": CARD,
        "SD16w": CARD,
        "LC08w": CARD,
        "LC23w": CARD,
        "CN06w": BARE,
        "FU02": FUSED,
        "FU03": FUSED,
        "FU04": FUSED,
    },
    "kimi-model-free-mxfp4": {"LC03": CARD, "SD16w": CARD, "LC08w": CARD, "LC23w": CARD, "CN06w": BARE},
    "kimi-oneshot-nvfp4": {"LC01": LOST, "SD01": RESAVED},
    "kimi-quark-mxfp4": {"CN06w": BARE, "CN11w": "total_size adds up files, not tensors"},
}


def judged(name: str) -> Report:
    source = open_checkpoint(HERE / "sources" / name.partition("-")[0])
    return run(Evidence(checkpoint=open_checkpoint(HERE / "exports" / name), source=source), level="full")


@pytest.mark.parametrize("name", ARGUED)
def test_every_finding_on_a_vendors_export_is_argued(name: str) -> None:
    report = judged(name)
    said = {f.code + {"warning": "w", "info": "i"}.get(f.severity, "") for f in report.findings}
    assert said == set(ARGUED[name]), "\n".join(f"{f.code} {f.message}" for f in report.findings)


def test_every_export_is_judged() -> None:
    assert {path.name for path in (HERE / "exports").iterdir()} == set(ARGUED)
