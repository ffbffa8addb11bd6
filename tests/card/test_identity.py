"""Who published it and who did not, what it takes and gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from publisher.card.context import card_context
from publisher.card.identity import link_rows, one_row, version_rows
from publisher.card.render import render
from publisher.checkpoint.open import open_checkpoint


def test_a_persons_words_become_rows_and_nothing_else_does() -> None:
    person = {"version": "2", "new_version": "org/next", "publisher": {"name": "Lab"}, "released": "2026-11-21"}
    rows = {row.label: row.value for row in version_rows("X-NVFP4", person)}
    assert list(rows) == ["Checkpoint", "Version", "Developers", "Release date", "Replaced by"]
    assert rows["Replaced by"].link == "https://huggingface.co/org/next"
    assert [row.label for row in version_rows("X-NVFP4", {})] == ["Checkpoint"]
    assert one_row({}, "geography", "Deployment geography") == ()
    (row,) = link_rows({"links": [{"text": "demo", "url": "https://example.org/demo"}]})
    assert (row.value.text, row.value.link) == ("demo", "https://example.org/demo")


def test_a_successor_is_named_at_the_top_and_in_the_metadata(nvfp4: Path, inputs: dict[str, Any]) -> None:
    person = {**inputs["person"], "new_version": "example-lab/Tiny-2", "links": [{"text": "a", "url": "https://a.org"}]}
    context = card_context(checkpoint=open_checkpoint(nvfp4), **{**inputs, "person": person})
    text = render(context)
    top = text.split("\n## ")[0]
    assert "**Replaced by [example-lab/Tiny-2](https://huggingface.co/example-lab/Tiny-2).**" in top
    assert "Also at: [a](<https://a.org>)" in top
    assert context.metadata["new_version"] == "example-lab/Tiny-2"


def test_it_never_passes_for_its_makers_own(nvfp4: Path, inputs: dict[str, Any]) -> None:
    context = card_context(checkpoint=open_checkpoint(nvfp4), **inputs)
    assert context.affiliation == (
        "Quantized and published by Example Lab. Neither tiny-org nor the makers of the tools made or endorse it."
    )
