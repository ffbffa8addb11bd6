"""modelopt's own exports, made here, through every rule: clean once the source's files are put back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.checkpoint.sidefiles import restore
from publisher.findings import Report
from publisher.rules import run
from publisher.subjects import Evidence

pytestmark = [pytest.mark.engine, pytest.mark.slow]
SOURCES = Path(__file__).parent / "sources"
DEFAULT, EXPERTS, MLP = "NVFP4_DEFAULT_CFG", "NVFP4_EXPERTS_ONLY_CFG", "NVFP4_MLP_ONLY_CFG"
WEIGHTS = "W4A16_NVFP4_CFG"


def exported(source: Path, folder: Path, preset: str, *, kv: bool) -> Path:
    import modelopt.torch.quantization as mtq
    import torch
    from modelopt.torch.export import export_hf_checkpoint
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(source, dtype="auto")
    config: Any = getattr(mtq, preset, None) or mtq.config.choices[preset]
    if kv:
        config = mtq.update_quant_cfg_with_kv_cache_quant(config, mtq.FP8_KV_CFG["quant_cfg"])
    tokens = torch.arange(3, 227).reshape(14, 16)
    mtq.quantize(model, config, lambda calibrated: calibrated(tokens))
    export_hf_checkpoint(model, export_dir=folder)
    return folder


def judged(source: Path, folder: Path) -> Report:
    evidence = Evidence(checkpoint=open_checkpoint(folder), source=open_checkpoint(source), card=False)
    return run(evidence, level="full")


@pytest.mark.parametrize(
    ("name", "preset", "kv"),
    [
        ("slice", DEFAULT, True),
        ("slice", MLP, False),
        ("slice", WEIGHTS, False),
        ("kimi", DEFAULT, False),
        ("kimi", EXPERTS, True),
        ("kimi", WEIGHTS, False),
    ],
)
def test_an_export_is_clean(name: str, preset: str, kv: bool, tmp_path: Path) -> None:
    source = SOURCES / name
    folder = exported(source, tmp_path / "export", preset, kv=kv)
    before = {finding.code for finding in judged(source, folder).errors}
    assert {"LC01", "SD01"} <= before, "the exporter drops the licence and the tokenizer"
    restore(
        source,
        folder,
        json.loads((folder / "config.json").read_text())["quantization_config"],
        json.loads((folder / "hf_quant_config.json").read_text()),
    )
    report = judged(source, folder)
    found = [f"{f.code} {f.message}" for f in report.findings if f.severity != "info"]
    assert found == []
    assert {"NM01", "NM07", "NM08", "NM12", "SV01", "SV14", "NU01", "NU02", "NU03", "NU04"} <= set(report.rules_run)
