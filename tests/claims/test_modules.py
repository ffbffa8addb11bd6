"""Which modules a card calls quantized or kept, against the shards."""

from __future__ import annotations

import pytest

from publisher.claims.document import read_document
from publisher.claims.modules import stored
from tests.claims.conftest import Lint


def claims(text: str) -> set[tuple[str, bool]]:
    return {(claim.role, claim.quantized) for claim in stored(read_document(text))}


@pytest.mark.parametrize(
    ("text", "roles"),
    [
        ("Kept at BF16:\n\n- `lm_head`\n- Shared experts", {("head", False), ("shared_expert", False)}),
        ("Quantized to MXFP4:\n\n- MoE routers (`mlp.gate.weight`)", {("router", True)}),
        ("| a | b |\n|---|---|\n| Uncompressed | `lm_head`, router |", {("head", False), ("router", False)}),
        ("## Layers Not Quantized\n\n- attention", {("attention", False)}),
        ("The vision tower and mm_projector remain in BF16.", {("vision", False), ("projector", False)}),
        ("The routed experts are quantized to NVFP4; attention stays BF16.", {("expert", True), ("attention", False)}),
        ("The config keeps MoE routers out of FP4.", {("router", False)}),
        ("Routers are not quantized.", {("router", False)}),
        ("Kept in BF16: dense MLP (does not match routed-expert patterns)", {("mlp", False)}),
        ("Kept in BF16: everything except attention", set()),
        ("MLA attention is fast. Experts are many. We evaluated routers.", set()),
        ("The non-shared experts are quantized.", {("expert", True)}),
    ],
)
def test_claims_are_read(text: str, roles: set[tuple[str, bool]]) -> None:
    assert claims(text) == roles


@pytest.mark.parametrize(
    ("text", "base", "words"),
    [
        ("Attention remains BF16.", "llama-nvfp4", "8 of 8 attention layers are stored quantized"),
        ("lm_head is quantized.", "llama-mxfp4", "all 1 output head are stored unquantized"),
        ("Shared experts are kept in BF16.", "mixture-ct-nvfp4", "6 of 6 shared experts"),
        ("The routers are quantized.", "kimi-mxfp4", "all 2 routers are stored unquantized"),
        ("The vision tower is quantized.", "kimi-nvfp4", "vision layers"),
    ],
)
def test_what_the_shards_contradict_is_told(lint: Lint, text: str, base: str, words: str) -> None:
    found = lint(text, base)
    assert [d.topic for d in found] == ["statement"]
    assert words in found[0].message


@pytest.mark.parametrize("base", ["mixture-nvfp4", "mixture-mxfp4", "kimi-ct-mxfp4"])
def test_what_is_true_or_about_modules_that_are_not_there_is_not(lint: Lint, base: str) -> None:
    assert lint("Routers and lm_head remain BF16. MTP layers are quantized. All experts are quantized.", base) == []
