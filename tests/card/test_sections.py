"""Four orders of the same parts: every section of one has its place in the others, and every card of each is clean."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from publisher import jsonio
from publisher.card.context import CardContext, card_context
from publisher.card.prose import ORDERS, section_names
from publisher.card.render import check_card, render
from publisher.card.sections import orders, sections
from publisher.checkpoint.open import open_checkpoint
from publisher.checkpoint.source import resolve
from publisher.claims import lint
from publisher.plan.model import TargetSpec
from publisher.subjects.serving import Serving
from tests.builders import tiny

GOLDEN = Path(__file__).parent / "golden"
MORE = {"nvidia": {"community", "plain"}, "amd": set(), "redhat": set()}  # parts only that order has
PERSON = {
    "base_model": "tiny/tiny",
    "publisher": {"name": "Example Lab", "contact": "models@example.org"},
    "released": "2026-11-21",
    "geography": "Global",
    "version": "1.0",
    "status": "preview",
    "intended_use": ["Tests."],
    "out_of_scope": ["Everything else."],
    "changelog": ["1.0: the first"],
    "verified": [{"engine": "vLLM", "version": "0.33.0", "hardware": "8x B200", "date": "2026-11-20", "by": "QA"}],
    "environmental": {"watts": 700},
    "prose": {"limitations": "# Long contexts\n\nNot *tested*.", "bias": "As the base model."},
}
FORMATS = {
    "nvfp4-modelopt": lambda: (tiny.mixture(), tiny.nvfp4(tiny.mixture())),
    "nvfp4-weight-only": lambda: (tiny.mixture(), tiny.nvfp4(tiny.mixture(), activations=False)),
    "nvfp4-compressed": lambda: (tiny.mixture(), tiny.compressed(tiny.mixture(), "nvfp4")),
    "mxfp4-quark": lambda: (tiny.kimi(), tiny.mxfp4(tiny.kimi())),
    "mxfp4-compressed": lambda: (tiny.kimi(), tiny.compressed(tiny.kimi(), "mxfp4")),
    "sparse-nvfp4": lambda: (tiny.kimi(), tiny.nvfp4(tiny.kimi())),
}


def made(tmp_path: Path, form: str, order: str) -> tuple[CardContext, str, Path]:
    source, result = FORMATS[form]()
    origin = resolve(str(source.write(tmp_path / "source")))
    folder = result.write(tmp_path / "result")
    if form.startswith("sparse"):
        config = json.loads((folder / "config.json").read_text())
        config["sparsity"] = {"pattern": "paired-4:8", "storage": "dense", "modules": ["*.experts.*"]}
        (folder / "config.json").write_text(json.dumps(config))
    context = card_context(
        checkpoint=open_checkpoint(folder),
        original=open_checkpoint(origin.files),
        source=origin,
        quantize={"engine": "native", "versions": {"torch": "2.13.0"}, "seconds": 60.0, "device": {"name": "CPU"}},
        evaluation={
            "source": {"perplexity": 14.645},
            "checkpoint": {"perplexity": 16.435},
            "windows": 16,
            "length": 512,
        },
        person=PERSON,
        target=TargetSpec(repo="example-lab/tiny-FP4"),
        order=order,
    )
    return context, render(context), folder


def shape(text: str) -> str:
    """A card without its numbers and digests: headings, tables' first columns, commands."""
    body = text.split("\n---\n", 1)[1]
    lines = []
    for line in body.splitlines():
        if line.startswith(("#", "**", "- **", "```", "![", "<")):
            lines.append(line if line.startswith("#") else re.split(r"[:(]", line)[0])
        elif line.startswith("| ") and not line.startswith("|---"):
            lines.append("| " + re.sub(r"\d[\d,.]*", "N", line.split(" | ")[0].strip("| ")))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("order", ["default", "nvidia", "amd", "redhat"])
@pytest.mark.parametrize("form", FORMATS)
def test_every_card_of_every_order_is_clean_and_as_it_was(form: str, order: str, tmp_path: Path) -> None:
    context, text, folder = made(tmp_path, form, order)
    assert check_card(text, context) == []
    assert render(context) == text
    (folder / "README.md").write_text(text)
    opened = open_checkpoint(folder)
    served = [(command.engine, command.text, command.line) for command in Serving(opened, text).commands]
    metadata = yaml.safe_load(text.split("\n---\n")[0])
    found = lint(text, opened, metadata=metadata, base_model="tiny/tiny", served=served)
    assert [doubt.message for doubt in found] == []
    golden = GOLDEN / f"{form}-{order}.txt"
    assert shape(text) == golden.read_text(), f"look at it, then write the new shape into {golden.name}"


@pytest.mark.parametrize("order", ["nvidia", "amd", "redhat"])
def test_no_order_loses_a_part_or_a_persons_words(order: str) -> None:
    document = jsonio.data(ORDERS)["orders"]

    def all_of(name: str, key: str) -> set[str]:
        return {value for section in document[name] for value in section.get(key, ())}

    assert all_of(order, "parts") | {"table"} == all_of("default", "parts") | MORE[order] | {"table", "list"}
    assert all_of("default", "rows") <= all_of(order, "rows")
    assert all_of(order, "words") == section_names() == all_of("default", "words")


def test_the_order_is_the_callers_then_the_persons_then_ours() -> None:
    assert sections({"order": "amd"}, "nvidia") == sections({}, "nvidia")
    assert sections({"order": "amd"}) == sections({}, "amd")
    assert sections({}) == sections({}, "default")
    assert orders() == ("default", "nvidia", "amd", "redhat")


def test_a_persons_words_stand_in_their_section_below_its_heading(tmp_path: Path) -> None:
    _, text, _ = made(tmp_path, "nvfp4-modelopt", "nvidia")
    limits = text.split("\n## Model Limitations\n")[1].split("\n## ")[0]
    assert "### Long contexts\n\nNot *tested*." in limits
    ethics = text.split("\n## Ethical Considerations\n")[1].split("\n## ")[0]
    assert "### Bias\n\nAs the base model." in ethics


def test_what_was_verified_says_by_whom_when_and_on_what(tmp_path: Path) -> None:
    context, text, _ = made(tmp_path, "nvfp4-modelopt", "default")
    assert "verified by the publisher (vLLM 0.33.0 on 8x B200, by QA, 2026-11-20)" in text
    assert [command.engine for command in context.commands if command.verified is None] == ["SGLang", "TensorRT-LLM"]


def test_a_section_with_nothing_to_say_is_left_out_with_its_heading(nvfp4: Path, inputs: dict[str, Any]) -> None:
    bare = {"base_model": "tiny-org/Tiny-1B"}
    text = render(card_context(checkpoint=open_checkpoint(nvfp4), **{**inputs, "person": bare, "order": "nvidia"}))
    for heading in ("Deployment Geography", "Release Date", "Use Case", "Changes", "Environmental Impact"):
        assert f"## {heading}" not in text
    headings = re.findall(r"^## .*$", text, re.MULTILINE)
    assert len(headings) == len(set(headings))
    assert not re.search(r"^## [^\n]*\n+(?=## )", text, re.MULTILINE)
