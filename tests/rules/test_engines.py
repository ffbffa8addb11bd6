"""modelopt's own export through the rules: clean once the source's files are restored, and its known defects named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.checkpoint.sidefiles import restore
from publisher.findings import Report
from publisher.rules import run
from publisher.subjects import Evidence
from tests.builders.tiny import LICENCE

pytestmark = [pytest.mark.engine, pytest.mark.slow]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama as transformers saves it, with the files a repository has beside it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("source")
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=64,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        architectures=["LlamaForCausalLM"],
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    (folder / "LICENSE").write_bytes(LICENCE)
    (folder / "tokenizer.json").write_bytes(b'{"version": "1.0"}')
    (folder / "modeling_tiny.py").write_bytes(b"# code\n")
    return folder


def exported(source: Path, folder: Path, preset: str, *, dead: str | None = None) -> Path:
    """Quantize with a preset of modelopt and export with its own exporter; `dead` names a weight to zero first."""
    import modelopt.torch.quantization as mtq
    import torch
    from modelopt.torch.export import export_hf_checkpoint
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    if dead is not None:
        torch.nn.init.zeros_(model.get_parameter(dead))
    tokens = torch.arange(32).reshape(2, 16)
    mtq.quantize(model, getattr(mtq, preset), lambda calibrated: calibrated(tokens))
    export_hf_checkpoint(model, export_dir=folder)
    return folder


def judged(source: Path, folder: Path, **options: Any) -> Report:
    evidence = Evidence(checkpoint=open_checkpoint(folder), source=open_checkpoint(source))
    return run(evidence, level="full", **options)


@pytest.mark.parametrize("preset", ["NVFP4_DEFAULT_CFG", "NVFP4_MLP_ONLY_CFG"])
def test_a_restored_export_is_clean(preset: str, source: Path, tmp_path: Path) -> None:
    folder = exported(source, tmp_path / "export", preset)
    before = {finding.code for finding in judged(source, folder).findings}
    assert {"LC01", "SD01"} <= before  # the exporter drops licence, tokenizer and code
    restore(
        source,
        folder,
        json.loads((folder / "config.json").read_text())["quantization_config"],
        json.loads((folder / "hf_quant_config.json").read_text()),
    )
    report = judged(source, folder)
    found = [f"{f.code} {f.message}" for f in report.findings if f.severity != "info"]
    assert found == []
    assert {"SV01", "SV03", "SV05", "SV08", "NM01", "NM04", "FU02", "CF04", "CF25"} <= set(report.rules_run)


def test_a_dead_weight_is_named(source: Path, tmp_path: Path) -> None:
    """modelopt 0.47 writes 0 as global scale and NaN block scales for an all-zero weight, and says nothing."""
    dead = "model.layers.1.mlp.down_proj"
    folder = exported(source, tmp_path / "export", "NVFP4_DEFAULT_CFG", dead=f"{dead}.weight")
    found = {f.code: f for f in judged(source, folder, select=["SV"]).errors}
    assert set(found) == {"SV01", "SV05", "SV15"}
    assert all(dead in finding.message for finding in found.values())


def test_an_export_cut_short_is_named(source: Path, tmp_path: Path) -> None:
    folder = exported(source, tmp_path / "export", "NVFP4_DEFAULT_CFG")
    copy = shutil.copytree(folder, tmp_path / "copy") / "model.safetensors"
    copy.write_bytes(copy.read_bytes()[:-64])
    assert {"CN04", "CN13"} <= {f.code for f in judged(source, tmp_path / "copy").errors}
