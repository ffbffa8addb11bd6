"""Every value of a card can be traced: the manifest lists it with the file it was computed from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from publisher import jsonio
from publisher.card.context import card_context
from publisher.card.facts import MAX_FACTS, facts
from publisher.checkpoint.open import open_checkpoint
from publisher.manifest import Manifest, Provenance, parse


def test_every_value_has_an_origin_and_the_manifest_carries_them(nvfp4: Path, inputs: dict[str, Any]) -> None:
    context = card_context(checkpoint=open_checkpoint(nvfp4), **inputs)
    found = facts(context)
    assert all(set(fact) == {"part", "label", "text", "origin"} and fact["origin"] for fact in found)
    by_label = {(fact["part"], fact["label"]): fact for fact in found}
    assert by_label["architecture", "Vocabulary"]["origin"] == "config.json: vocab_size"
    assert by_label["perplexity", "result"]["text"] == "16.435"
    assert by_label["coverage", "lm_head: Stored"]["text"] == "kept"
    printed = [row.label for name, rows in context.rows.items() for row in rows]
    assert {label for part, label in by_label if part in context.rows} == set(printed)
    written = Manifest(files=(), provenance=Provenance(facts=tuple(found)))
    again = parse(jsonio.loads_json(written.encoded(), "publish.json"), "publish.json")
    assert list(again.provenance.facts) == found
    assert len(found) <= MAX_FACTS
