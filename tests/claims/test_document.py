"""Cards taken apart: lines, labels, leads, tables, code; and texts made to be slow."""

from __future__ import annotations

import time

import pytest

from publisher.claims.document import MAX_PASSAGES, plain, read_document

CARD = """---
license: mit
---

# A **model**

First sentence with 0.5 of it. Second one,
over two lines; a third. See e.g. the rest.

| Key | Value |
|---|---|
| **Weights** | `NVFP4` with [link](https://x.org) \\+ more |

Kept at BF16:

- `lm_head`
- Group size: 16. KV cache: FP8.

## Tables

| a | b | c |
|---|---|---|
| 1 | 2 | 3 |

Recipe:

```json
{"a": 1}
```
"""


def test_a_card_is_taken_apart_with_its_lines() -> None:
    document = read_document(CARD)
    told = [(s.line, s.label, s.text) for s in document.sentences]
    assert told == [
        (7, "", "First sentence with 0.5 of it."),
        (7, "", "Second one, over two lines"),
        (8, "", "a third."),
        (8, "", "See e.g. the rest."),
        (10, "Key", "Value"),
        (12, "Weights", "NVFP4 with link + more"),
        (14, "", "Kept at BF16:"),
        (16, "Kept at BF16", "lm_head"),
        (17, "Group size", "16."),
        (17, "KV cache", "FP8."),
        (25, "", "Recipe:"),
    ]
    assert document.title == "A model"
    assert [(g.line, g.heading, g.head, g.rows, g.lines) for g in document.grids][1] == (
        21, "Tables", ("a", "b", "c"), (("1", "2", "3"),), (23,),
    )  # fmt: skip
    block = document.blocks[0]
    assert (block.language, block.line, block.lead, block.text) == ("json", 27, "Recipe:", '{"a": 1}\n')


def test_lines_that_break_hard_are_statements_of_their_own() -> None:
    told = read_document("**Layers:** 2  \n**Experts:** 4<br>Heads: 8").sentences
    assert [(s.label, s.text) for s in told] == [("Layers", "2"), ("Experts", "4"), ("Heads", "8")]


def test_the_bullets_of_a_copied_page_are_a_list() -> None:
    told = read_document("Kept at BF16:\n\n  \u2022 lm_head\n  \u2022 routers").sentences
    assert [(s.line, s.label, s.text) for s in told][1:] == [
        (3, "Kept at BF16", "lm_head"),
        (4, "Kept at BF16", "routers"),
    ]


def test_marks_links_and_entities_are_taken_off() -> None:
    assert plain("**a** `b` ![c](d.png) <b>e</b> &times; \\* <https://f.org>") == "a b c e × * f.org"


@pytest.mark.parametrize(
    "text",
    [
        "[" * 400_000,
        "`" * 400_000,
        "> " * 200_000,
        "- " * 200_000,
        "|a" * 200_000 + "\n" + "|-" * 200_000,
        "*a_ " * 100_000,
        "<a " * 150_000,
        "![](" * 100_000,
        "a: " * 150_000,
        "---\n" + "x" * 500_000,
        "1" * 500_000,
        "= 1 × " * 80_000,
        "\n".join("| a | 1.0 ± 0.1 | 2.0 ± 0.1 | 1.0 |" for _ in range(15_000)),
        "\n\n".join(["word."] * 150_000),
        "((((" * 100_000,
        "routers are " * 40_000,
    ],
    ids=lambda text: repr(text[:6]),
)
def test_a_card_made_to_be_slow_is_not(text: str) -> None:
    began = time.process_time()
    document = read_document(f"# T\n\n{text}\n")
    assert time.process_time() - began < 6
    assert len(document.sentences) <= MAX_PASSAGES
