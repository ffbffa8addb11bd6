"""Our own cards, of every layout and format there is a good checkpoint of, claim nothing that the files contradict."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.card.context import card_context
from publisher.card.render import render
from publisher.checkpoint.open import open_checkpoint
from publisher.checkpoint.source import resolve
from publisher.claims import lint
from publisher.plan.model import TargetSpec
from publisher.subjects import Meter
from publisher.subjects.publication import read_card
from publisher.subjects.serving import Serving
from tests.rules.cases import GOOD

PERSON = {
    "base_model": "tiny/tiny",
    "publisher": {"name": "Example Lab"},
    "notes": ["Made for tests.", "Only linear layers are quantized."],
    "serving": {"verified": ["vLLM 0.33 on 8x B200"]},
}
EVALUATION = {"source": {"perplexity": 14.645}, "checkpoint": {"perplexity": 16.435}, "windows": 16, "length": 512}


@pytest.mark.parametrize("base", GOOD)
def test_a_rendered_card_is_left_alone(base: str, tmp_path: Path) -> None:
    source, result = GOOD[base]()
    origin = resolve(str(source.write(tmp_path / "source")))
    folder = result.write(tmp_path / "result")
    checkpoint = open_checkpoint(folder)
    context = card_context(
        checkpoint=checkpoint,
        original=open_checkpoint(origin.files),
        source=origin,
        evaluation=EVALUATION,
        person=PERSON,
        target=TargetSpec(repo="example-lab/tiny-FP4"),
    )
    text = render(context)
    (folder / "README.md").write_text(text)
    opened = open_checkpoint(folder)
    served = [(command.engine, command.text, command.line) for command in Serving(opened, text).commands]
    metadata = read_card(opened.files, Meter()).metadata
    found = lint(text, opened, metadata=metadata, base_model="tiny/tiny", served=served)
    assert [doubt.message for doubt in found] == []
