"""Markdown for a comment: rendered by an independent implementation, nothing of a stranger's comes alive."""

from __future__ import annotations

import re

import pytest

from publisher.findings import ERROR, Finding
from publisher.reports import markdown
from publisher.reports.validation import Validation
from tests.reports.conftest import ENGINES, report

markdown_it = pytest.importorskip("markdown_it", reason="markdown-it-py comes with rich")


def rendered(page: str) -> str:
    return str(markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table").render(page))


def test_verdict_errors_with_fix_and_the_rest_folded(validation: Validation) -> None:
    page = markdown.write(validation)
    assert page.startswith("## ❌ Not publishable: ")
    html = rendered(page)
    assert html.count("<table>") == 3
    assert "<strong>SV01</strong>" in html
    assert "1,247 more" in html
    assert "2 rules not run, which is not passed" in html
    assert "1 rule with nothing to judge" in html
    assert page.index("CN09") < page.index("SV01") < page.index("<details>") < page.index("FU01")


def test_engines_are_a_table() -> None:
    html = rendered(markdown.write(Validation(report=report(engines=ENGINES), label="x")))
    assert re.search(r"<td>vllm</td>\s*<td>0.17</td>\s*<td>❌ refuses</td>\s*<td>CN09</td>", html)


def test_nothing_of_a_stranger_comes_alive(hostile: Validation) -> None:
    html = rendered(markdown.write(hostile))
    tags = set(re.findall(r"<([a-z0-9]+)", html))
    assert tags <= {"h2", "p", "table", "thead", "tbody", "tr", "th", "td", "strong", "code", "br", "details",
                    "summary", "ul", "li", "sub", "em"}  # fmt: skip
    words = re.sub(r"<code>.*?</code>", "", html)
    assert "@\u200ball" in words
    assert not re.search(r"@all|#12", words)
    assert "\x1b" not in html


def test_a_comment_is_never_too_long() -> None:
    findings = tuple(
        Finding(code=f"SV{n:02d}", slug="s", severity=ERROR, message="x" * 1900, tensor="y" * 1000) for n in range(99)
    )
    page = markdown.write(Validation(report=report(findings=findings), label="x"))
    assert len(page) < 65_536
    assert "left out" in page
