"""Escaping, judged by a CommonMark parser: what goes in as text comes out as the same text and nothing else."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from publisher.card import escape

PARSER = MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough")
FOREIGN = st.text(alphabet=st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=60)


def seen(markdown: str) -> str:
    """The text a reader sees, tags removed."""
    return html.unescape(re.sub(r"<[^>]*>", "", PARSER.render(markdown))).strip()


@given(FOREIGN)
def test_text_reads_as_it_was_written(value: str) -> None:
    wanted = " ".join(re.sub(r"\s", " ", value).split()) or escape.UNPRINTABLE
    shown = escape.text(value)
    assert seen(shown) == wanted
    quoted = html.escape(wanted, quote=False).replace('"', "&quot;")
    assert PARSER.render(shown) == f"<p>{quoted}</p>\n"


@given(FOREIGN)
def test_a_table_cell_stays_one_cell(value: str) -> None:
    for shown in (escape.text(value), escape.code(value)):
        page = PARSER.render(f"| a | b |\n|---|---|\n| {shown} | x |\n")
        assert page.count("<td>") == 2
        assert "<td>x</td>" in page


@given(FOREIGN)
def test_code_reads_as_it_was_written(value: str) -> None:
    wanted = " ".join(re.sub(r"\s", " ", value).split())
    shown = escape.code(f"x{value}")
    assert seen(shown) == f"x{wanted}" or wanted != value
    assert PARSER.render(shown).startswith("<p><code>")


@given(st.text(max_size=80))
def test_nothing_a_template_engine_expands_is_left(value: str) -> None:
    for shown in (escape.text(value), escape.code(value)):
        assert not re.search(r"\{\{|\}\}|(?<!\\)\{[%#]|%\}", shown)
        assert "\n" not in shown


@given(st.text(max_size=200), st.text(max_size=20))
def test_a_fence_holds_whatever_is_in_it(value: str, more: str) -> None:
    page = PARSER.render(escape.fence(value + "```\n~~~~" + more, "text") + "\n\nafter\n")
    assert page.count("<pre>") == 1
    assert page.endswith("<p>after</p>\n")


@pytest.mark.parametrize("invisible", ["\u202e", "\u200b", "\x00", "\x1b", "\ufeff", "\ud800", "\u2066"])
def test_invisible_characters_are_dropped(invisible: str) -> None:
    assert escape.text(f"a{invisible}b") == "ab"
    assert escape.code(f"a{invisible}b") == "`ab`"
    assert escape.fence(f"a{invisible}b") == "```\nab\n```"


def test_nothing_to_see_is_said() -> None:
    assert escape.text(" \u200b ") == "(unprintable)"
    assert escape.code("\x00") == "`(unprintable)`"


def test_ordinary_names_stay_readable() -> None:
    assert escape.code("model.layers.*.mlp.up_proj") == "`model.layers.*.mlp.up_proj`"
    assert escape.text("hidden_size of 12.5 kB (3 files)") == "hidden_size of 12.5 kB (3 files)"
    assert escape.text("1. first") == "1\\. first"
    assert len(escape.text("x" * 10_000)) == escape.MAX_TEXT + 1
