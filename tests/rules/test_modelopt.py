"""Declarations modelopt 0.47 itself exports: one algorithm, a map of two, and the two kinds that fall short."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.rules import run
from publisher.subjects import Evidence

pytestmark = [pytest.mark.engine, pytest.mark.slow]
RULES = ["CF04", "CF05", "CF06", "CF12", "CF13", "CF14", "CF16", "CF26", "CF27", "CF29", "CF37", "CF39"]


@pytest.fixture(scope="module")
def model() -> Any:
    """A random Llama of two layers."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=64,
        tie_word_embeddings=False,
        architectures=["LlamaForCausalLM"],
    )
    return LlamaForCausalLM(config).to(torch.bfloat16)


def mixed() -> dict[str, Any]:
    """NVFP4 in the MLPs, FP8 in attention."""
    import modelopt.torch.quantization as mtq

    config = copy.deepcopy(mtq.NVFP4_MLP_ONLY_CFG)
    eight = {"num_bits": (4, 3), "axis": None}
    for part in ("weight", "input"):
        config["quant_cfg"].append({"quantizer_name": f"*self_attn*{part}_quantizer", "cfg": eight, "enable": True})
    return config


def exported(model: Any, folder: Path, config: dict[str, Any], *, calibrated: bool = True) -> Path:
    import modelopt.torch.quantization as mtq
    import torch
    from modelopt.torch.export import export_hf_checkpoint

    tokens = torch.arange(32).reshape(2, 16)
    copied = copy.deepcopy(model)
    mtq.quantize(copied, copy.deepcopy(config), (lambda it: it(tokens)) if calibrated else None)
    export_hf_checkpoint(copied, export_dir=folder)
    return folder


def preset(name: str) -> dict[str, Any]:
    import modelopt.torch.quantization as mtq

    found: dict[str, Any] = getattr(mtq, name)
    return found


@pytest.mark.parametrize(
    ("config", "calibrated", "codes"),
    [
        ("NVFP4_DEFAULT_CFG", True, ""),
        ("NVFP4_DEFAULT_CFG", False, "CF13"),
        ("W4A16_NVFP4_CFG", False, ""),
        ("MXFP4_DEFAULT_CFG", False, "CF37"),
        ("mixed", True, ""),
    ],
)
def test_what_modelopt_declares(config: str, calibrated: bool, codes: str, model: Any, tmp_path: Path) -> None:
    """Without data modelopt exports W4A4 without input scales; its MXFP4 preset states no block length."""
    quantized = mixed() if config == "mixed" else preset(config)
    checkpoint = open_checkpoint(exported(model, tmp_path / "export", quantized, calibrated=calibrated))
    report = run(Evidence(checkpoint=checkpoint), level="headers", select=RULES)
    assert " ".join(sorted({finding.code for finding in report.findings})) == codes, report.findings


def test_the_map_of_a_mixed_export_is_read_by_module(model: Any, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(exported(model, tmp_path / "export", mixed()))
    inline, file = checkpoint.declarations
    assert inline.format == file.format == "mixed"
    said = {name: layer.format for name, layer in inline.layers.items()}
    assert said == {
        name: "nvfp4" if "weight_scale_2" in module.tensors else "fp8"
        for name, module in checkpoint.modules.items()
        if "weight_scale" in module.tensors
    }
    assert dict(file.layers) == dict(inline.layers)
