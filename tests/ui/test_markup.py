"""What a stranger wrote is text, whatever it looks like."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from publisher.ui import markup

HOSTILE = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "${alert(1)} {{constructor}} `x` \\u0041",
    "\u202egpj.exe\x00\x1b[31m",
    "</td></table><iframe src=//example.com>",
]


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.said = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data: str) -> None:
        self.said += data


def parsed(page: str) -> Tags:
    found = Tags()
    found.feed(page)
    return found


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_text_opens_no_tag_and_no_template(value: str) -> None:
    pages = (
        markup.notice("error", value, [value], value),
        markup.table([value], [[markup.code(value)]], caption=value, kind=value),
        markup.facts([(value, value)]),
        markup.badge(value, value),
        markup.element("b", kind=value, aria_label=value),
    )
    for page in pages:
        found = parsed(page)
        assert not {"script", "img", "iframe"} & set(found.tags)
        assert not [name for name in found.attributes if name.startswith("on") or name in ("src", "href")]
        assert not set("${}`\\\x00\x1b\u202e") & set(page)


def test_text_reads_as_it_was_written() -> None:
    assert parsed(markup.text('a < b & "c" ${d}')).said == 'a < b & "c" ${d}'
    assert parsed(markup.text("x\u202ey")).said == "x\\x202ey"


def test_long_text_is_cut() -> None:
    assert len(markup.text("x" * 100_000)) < 5000


def test_a_notice_says_its_kind_without_colour_and_an_error_interrupts() -> None:
    assert 'role="alert"' in markup.notice("error", "x")
    assert "✕" in parsed(markup.notice("error", "x")).said
    assert 'role="status"' in markup.notice("good", "x")
