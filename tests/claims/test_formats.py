"""Statements on formats, scales, activations, cache and layout."""

from __future__ import annotations

import pytest

from tests.claims.conftest import Lint


@pytest.mark.parametrize(
    ("text", "base", "words"),
    [
        ("- Weights: MXFP4", "llama-nvfp4", "stored as NVFP4"),
        ("Quantizing the weights and activations to FP8 data type", "llama-ct-nvfp4", "stored as NVFP4"),
        ("E8M0 block scales", "llama-nvfp4", "E4M3"),
        ("Block scales in FP8 E4M3", "llama-mxfp4", "E8M0"),
        ("- KV cache: FP8", "llama-w4a16", "no quantized cache"),
        ("- KV cache: none", "llama-mxfp4-cache", "FP8 cache is declared"),
        ("- Activations: NVFP4", "llama-w4a16", "no quantized activations"),
        ("- Activations: not quantized", "llama-mxfp4", "quantized activations are declared"),
        ("It has calibrated input scales.", "llama-mxfp4", "no module stores"),
        ("It has dynamic input scales.", "llama-nvfp4", "14 modules store"),
        ("- Layout: quark", "llama-nvfp4", "the layout is modelopt"),
        ("A W4A16 model", "llama-ct-nvfp4", "activations are quantized"),
    ],
)
def test_a_wrong_statement_is_told(lint: Lint, text: str, base: str, words: str) -> None:
    found = lint(text, base)
    assert [d.topic for d in found] == ["statement"]
    assert words in found[0].message


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("- Weights: NVFP4\n- KV cache: BF16\n- Activations: NVFP4 with calibrated input scales", "llama-nvfp4"),
        ("- Weights: MXFP4 with E8M0 scales\n- Activations: MXFP4, dynamic", "llama-mxfp4"),
        ("- KV cache: FP8\n\n```bash\nvllm serve x --kv-cache-dtype fp8\n```", "llama-w4a16"),
        ("The KV cache can be quantized to FP8. KV cache: FP8, optional at serve time", "llama-nvfp4"),
        ("The upstream W4A16 checkpoint has E8M0 scales.", "llama-nvfp4"),
        ("Quantized to NVFP4 with an FP8 KV cache.", "llama-nvfp4-cache"),
        ("- Format: compressed-tensors (NVFP4PackedCompressor)", "llama-ct-nvfp4"),
    ],
)
def test_a_true_statement_is_not(lint: Lint, text: str, base: str) -> None:
    assert lint(text, base) == []
