"""Tools, base models, licences and parties."""

from __future__ import annotations

import pytest

from tests.claims.conftest import Lint

APACHE, KIMI = "license: apache-2.0\nbase_model: tiny/tiny", "license: other\nlicense_name: modified-mit"


@pytest.mark.parametrize(
    ("text", "base", "front", "words"),
    [
        ("Made with nvidia-modelopt==0.41.0.", "llama-nvfp4", APACHE, "modelopt 0.47.0"),
        ("Made with NVIDIA Model Optimizer v0.46.", "llama-nvfp4", APACHE, "modelopt 0.47.0"),
        ("Made with AMD Quark 0.10.", "llama-mxfp4", APACHE, "quark 0.11.2"),
        ("- License: MIT", "llama-nvfp4", APACHE, "Apache 2.0"),
        ("Licensed under the MIT License.", "llama-nvfp4", KIMI, "Modified MIT"),
        ("A quantized version of other/tiny.", "llama-nvfp4", APACHE, "tiny/tiny"),
        ("- Base model: tiny/other", "llama-nvfp4", APACHE, "tiny/tiny"),
        ("The NOTICE file is preserved.", "llama-w4a16", APACHE, ""),
        ("Made by Decart. See the non-Decart Tiny 2.5 Model Card.", "llama-nvfp4", APACHE, ""),
        ("Published by Decart.\n\nSee the non-Decart Tiny Model Card.", "llama-nvfp4", APACHE, "Decart made"),
        ("Released by Acme.\n\nNot owned or developed by Acme.", "llama-nvfp4", APACHE, "Acme made it"),
    ],
)
def test_a_wrong_origin_is_told(lint: Lint, text: str, base: str, front: str, words: str) -> None:
    found = lint(text, base, front=front)
    if not words:
        assert all(d.topic == "statement" for d in found)
        return
    assert [d.topic for d in found] == ["statement"]
    assert words in found[0].message


def test_a_file_of_terms_that_is_not_there(lint: Lint) -> None:
    text = "The LICENSE file is preserved verbatim."
    assert lint(text) == []
    (found,) = lint(text, edit=lambda tiny: tiny.files.pop("LICENSE"))
    assert "no LICENSE file" in found.message


@pytest.mark.parametrize(
    "text",
    [
        "Made with nvidia-modelopt 0.47 and compressed-tensors==0.14.0.",
        "Reading needs amd-quark 0.12 or newer; modelopt 0.41 was not used.",
        "- Licence: Apache License 2.0\n- Base model: tiny/tiny (llama)",
        "Weights are derived from tiny/tiny.",
    ],
)
def test_a_true_origin_is_not(lint: Lint, text: str) -> None:
    assert lint(text, front=APACHE) == []
