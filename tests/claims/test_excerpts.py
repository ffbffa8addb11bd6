"""Quoted configuration against the files, the exporter and the card's own words."""

from __future__ import annotations

import pytest

from tests.claims.conftest import Lint


def block(text: str, language: str = "json") -> str:
    return f"```{language}\n{text}\n```"


@pytest.mark.parametrize(
    ("text", "base", "words"),
    [
        (block('{"quant_algo": "NVFP4_AWQ"}'), "llama-nvfp4", "quant_algo: NVFP4_AWQ"),
        (block('"quantization_config": {"quant_method": "quark"}'), "llama-nvfp4", "config.json has modelopt"),
        (block('{"quantization": {"quant_algo": "NVFP4", "group_size": 32}}'), "llama-nvfp4", "group_size"),
        (block("quant_method: modelopt\nignore: [model.norm]", "yaml"), "llama-nvfp4", "ignore"),
        (block('{"quant_method": "quark", "exclude": ["re:.*x"]}'), "llama-mxfp4", "by hand"),
    ],
)
def test_a_wrong_quotation_is_told(lint: Lint, text: str, base: str, words: str) -> None:
    found = lint(text, base)
    assert found
    assert any(words in d.message for d in found)
    assert {d.topic for d in found} == {"statement"}


@pytest.mark.parametrize(
    ("text", "base"),
    [
        (block('{"quant_algo": "NVFP4", "quant_method": "modelopt"}'), "llama-nvfp4"),
        (block('{"quant_algo": "NVFP4", ...}'), "llama-nvfp4"),
        (block('{"quant_algo": "NVFP4", "ignore": ["lm_head"]}'), "llama-nvfp4"),
        (block('{"model_type": "other"}'), "llama-nvfp4"),
        (block("from x import quant_method\n", "python"), "llama-nvfp4"),
    ],
)
def test_a_true_or_unreadable_one_is_not(lint: Lint, text: str, base: str) -> None:
    assert lint(text, base) == []


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ("0.12+ changes `pack_method` defaults (→ `reorder`).", True),
        ("0.12+ changes `pack_method` defaults (→ `order`).", False),
        ("0.10+ changed the pack_method default to reorder.", False),
    ],
)
def test_a_default_that_was_so_before(lint: Lint, words: str, wrong: bool) -> None:
    assert bool(lint(words, "llama-mxfp4")) == wrong
