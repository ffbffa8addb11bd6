"""What a table of scores needs beside it."""

from __future__ import annotations

import pytest

from publisher.claims.document import read_document
from publisher.claims.protocol import missing

TABLE = "| Task | BF16 | Ours | Delta |\n|---|---|---|---|\n| MMLU{shots} | 70.0{error} | 69.5{error} | -0.5 |\n\n"
WHOLE = TABLE.format(shots=" 5-shot", error=" ± 0.3")


@pytest.mark.parametrize(
    ("text", "lacking"),
    [
        (WHOLE + "lm-eval 0.4.11 on vLLM 0.33.", ()),
        (WHOLE + "On vLLM 0.33.", ("harness",)),
        (WHOLE + "With lm_eval.", ("engine",)),
        (TABLE.format(shots="", error="") + "lm-eval on SGLang.", ("shots", "standard error")),
        ("No table at all.", ()),
        ("| Measure | Source | This | Change |\n|---|---|---|---|\n| Perplexity | 13.7 | 15.6 | +13.9% |\n", ()),
    ],
)
def test_what_is_missing_is_named(text: str, lacking: tuple[str, ...]) -> None:
    found = list(missing(read_document(text)))
    assert bool(found) == bool(lacking)
    assert all(word in doubt.message for doubt in found for word in lacking)
