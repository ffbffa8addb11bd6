"""The page: whole, inert, bounded, and it says what the report says. How it looks is for tests/browser."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.findings import ERROR, Finding, Report
from publisher.reports import html
from publisher.reports.overview import look
from publisher.reports.validation import Validation
from tests.builders.tiny import kimi, nvfp4
from tests.reports.conftest import ENGINES, HOSTILE, report


class Page(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action", "xlink:href")]
        if tag not in ("meta", "link", "rect", "path", "wbr"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("rect",) and self.open[-1:] != ["rect"]:
            return
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)


@pytest.fixture
def whole(tmp_path: Path) -> Validation:
    overview = look(open_checkpoint(nvfp4(kimi()).write(tmp_path)), level="scales")
    measured = {"language_model.model.layers.1.mlp.experts.0.up_proj": {"rel_rmse": 0.09, "cosine": 0.996}}
    extended = report(engines=ENGINES, measured=measured)
    return Validation(report=extended, label="hf://org/name@0123abc", overview=overview, date="2026-11-21")


def test_the_page_says_what_the_report_says(whole: Validation) -> None:
    page = html.write(whole)
    for words in (
        "not publishable", "org/name", "0123abc", "CN09", "nan-block-scale", "1,250 places", "needs the source",
        "waived", "What engines make of it", "0.33", "loads wrong", "What is stored how", "layers 1–2: 4 nvfp4 each",
        "How scales are distributed", "How far from the source", "9 %", "2026-11-21",
    ):  # fmt: skip
        assert words in page, words
    assert page.index("refuses") < page.index("What is stored how")
    assert not Page(page).unbalanced


def test_without_pictures_engines_or_measurements_the_page_is_whole() -> None:
    page = html.write(Validation(report=Report(), label=""))
    assert "publishable" in page
    assert "What is stored how" not in page
    assert "What engines make of it" not in page


@pytest.mark.parametrize("kind", ["whole", "hostile"])
def test_nothing_runs_and_nothing_is_loaded(kind: str, request: pytest.FixtureRequest) -> None:
    page = Page(html.write(request.getfixturevalue(kind)))
    assert not page.tags & {"script", "img", "iframe", "object", "embed", "form", "base", "a"}
    assert not [name for name in page.attributes if name.startswith("on") or name == "style"]
    assert page.links == ["data:,"]
    text = html.write(request.getfixturevalue(kind))
    assert not set("\x1b\u202e") & set(text)


def test_a_page_of_many_findings_is_bounded(whole: Validation) -> None:
    findings = tuple(
        Finding(code=f"SV{n % 99:02d}", slug=HOSTILE, severity=ERROR, message="x" * 2000, tensor="y." * 500)
        for n in range(5000)
    )
    page = html.write(replace(whole, report=report(findings=findings)))
    assert len(page) < 3_000_000
    assert "more; the JSON report lists more" in page


def test_colours_have_words_beside_them(whole: Validation) -> None:
    page = html.write(whole)
    for svg in re.findall(r'<svg class="(?:strip|bars)"[^>]*>', page):
        assert "aria-label=" in svg
