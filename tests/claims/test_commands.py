"""Flags of serving commands against the declaration."""

from __future__ import annotations

import pytest

from tests.claims.conftest import Lint, config


@pytest.mark.parametrize(
    ("flags", "base", "words"),
    [
        ("--quantization awq", "llama-nvfp4", "quant_method modelopt"),
        ("-q fp8", "llama-ct-nvfp4", "compressed-tensors"),
        ("--trust-remote-code", "llama-mxfp4", "no auto_map"),
        ("--port 1", "kimi-mxfp4", "has an auto_map"),
        ("--max-model-len 9999", "llama-nvfp4", "max_position_embeddings = 4,096"),
    ],
)
def test_a_flag_that_contradicts_is_told(lint: Lint, flags: str, base: str, words: str) -> None:
    text = f"```bash\nvllm serve org/x \\\n    {flags}\n```"
    found = lint(text, base, edit=config(max_position_embeddings=4096))
    assert [(d.topic, d.line) for d in found] == [("command", 4)]
    assert words in found[0].message


@pytest.mark.parametrize(
    ("flags", "base"),
    [
        ("--quantization modelopt_fp4", "llama-nvfp4"),
        ("--quantization quark --max-model-len 4096", "llama-mxfp4"),
        ("--trust-remote-code", "kimi-nvfp4"),
    ],
)
def test_a_fitting_flag_is_not(lint: Lint, flags: str, base: str) -> None:
    text = f"```bash\nvllm serve org/x {flags}\n```"
    assert lint(text, base, edit=config(max_position_embeddings=4096)) == []
