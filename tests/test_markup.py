"""A page of ours loads nothing, runs nothing, and allows its own stylesheet only."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from publisher import markup


class Style(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.css = ""
        self.policy = ""
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self._inside = tag == "style"
        if named.get("http-equiv") == "Content-Security-Policy":
            self.policy = named["content"] or ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        self.css += data if self._inside else ""


def test_the_policy_names_the_stylesheet_that_stands_in_the_page() -> None:
    page = Style()
    page.feed(markup.document("t", "body { color: red }", markup.text("x")))
    digest = base64.b64encode(hashlib.sha256(page.css.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in page.policy
    assert "default-src 'none'" in page.policy
    assert not re.search("script|unsafe|http:|https:", page.policy)


def test_a_title_is_text() -> None:
    assert "</title><script>" not in markup.document("</title><script>alert(1)</script>", "")


def test_a_stylesheet_cannot_close_its_element() -> None:
    with pytest.raises(ValueError, match="end tag"):
        markup.document("t", "</style><script>")


def test_an_element_that_holds_nothing_closes_itself() -> None:
    assert markup.void("rect", kind="x", width='1"') == '<rect class="x" width="1&quot;"/>'
    assert markup.element("svg", viewBox="0 0 1 1") == '<svg viewBox="0 0 1 1"></svg>'
