"""Words that claim more than a table shows."""

from __future__ import annotations

import pytest

from publisher.claims.document import read_document
from publisher.claims.overclaims import judge

ERRORS = "| Task | BF16 | Ours |\n|---|---|---|\n| A | 70.0 ± 0.30 | {ours} ± 0.40 |\n\n"  # one SE is 0.5
NONE = "| Task | BF16 | Ours | Delta |\n|---|---|---|---|\n| A | 70.0 | {ours} | {delta} |\n\n"


def told(text: str) -> list[str]:
    return [doubt.message for doubt in judge(read_document(text))]


@pytest.mark.parametrize(
    ("ours", "words", "wrong"),
    [
        ("69.8", "essentially lossless", False),
        ("68.0", "essentially lossless", True),
        ("72.0", "essentially lossless", False),
        ("69.4", "within or near 1σ of stderr", False),
        ("69.2", "within one standard error", True),
        ("69.2", "within two standard errors", False),
        ("68.0", "with no measurable degradation", True),
        ("68.0", "not lossless", False),
        ("68.0", "small", False),
    ],
)
def test_words_against_standard_errors(ours: str, words: str, wrong: bool) -> None:
    assert bool(told(f"{ERRORS.format(ours=ours)}Quantization is {words} here.")) == wrong


def test_without_errors_a_point_is_a_loss() -> None:
    assert told(NONE.format(ours="69.5", delta="-0.5") + "This is lossless.") == []
    assert "2.5 points" in told(NONE.format(ours="67.5", delta="-2.5") + "This is lossless.")[0]
    assert told("This is lossless.") == []
