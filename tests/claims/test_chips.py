"""Words on GPUs against the table of GPUs and formats."""

from __future__ import annotations

import pytest

from publisher import jsonio
from publisher.claims.chips import TABLE, WORDS
from tests.claims.conftest import Lint


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("Hopper (H100/H200) and earlier GPUs will not work.", "llama-nvfp4"),
        ("It cannot run on an A100.", "llama-nvfp4"),
        ("MI300X is not supported.", "llama-mxfp4"),
        ("The checkpoint requires Blackwell.", "llama-nvfp4"),
        ("It only runs on Blackwell.", "llama-ct-nvfp4"),
        ("Hopper runs it natively.", "llama-nvfp4"),
    ],
)
def test_a_wrong_word_is_told(lint: Lint, text: str, base: str) -> None:
    assert [d.topic for d in lint(text, base)] == ["hardware"]


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("Hopper and Ada load it as weight-only.", "llama-nvfp4"),
        ("Native FP4 requires Blackwell; H100 does not run FP4 natively.", "llama-nvfp4"),
        ("Not tested on H100 or B200.", "llama-mxfp4"),
        ("Blackwell runs it natively, Hopper has no native FP4.", "llama-nvfp4"),
        ("MI350X runs it natively.", "llama-mxfp4"),
        ("AMD GPUs are not supported.", "llama-nvfp4"),
        ("Our demo does not work on phones.", "llama-nvfp4"),
    ],
)
def test_a_right_or_careful_word_is_not(lint: Lint, text: str, base: str) -> None:
    assert lint(text, base) == []


def test_every_family_has_a_row_in_the_table_of_gpus() -> None:
    rows = {row["match"] for row in jsonio.data(TABLE)["gpus"]}
    assert {row["match"] for row in jsonio.data(WORDS)["families"]} <= rows
