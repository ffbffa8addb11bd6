"""A person's Markdown stays Markdown and stays in its section."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from publisher.card.prose import links, read_prose, section_names, tame
from publisher.errors import PublisherError


def put(tmp_path: Path, name: str, text: str) -> Path:
    (tmp_path / "card").mkdir(exist_ok=True)
    (tmp_path / "card" / name).write_text(text)
    return tmp_path


def test_ordinary_markdown_passes_as_it_is() -> None:
    text = "Some *words*, `a < b`, [a link](https://example.org/x?a=1&b=2).\n\n- one\n- two\n"
    text += "\n| a | b |\n|---|---|\n| 1 | 2 |"
    assert tame(text, 2) == text
    code = "```python\nif a < b:\n    print('{{ x }}')\n```"
    assert tame(code, 2) == code


def test_headings_are_below_the_sections_own() -> None:
    rendered = MarkdownIt().render(tame("# One\n\nTwo\n===\n\nThree\n---\n", 2))
    assert rendered.count("<h3>") == 2
    assert rendered.count("<h4>") == 1
    assert "<h1>" not in rendered


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "before <!-- a comment that never ends",
        "<details><summary>x",
        "<pre>\n```\n</pre>\n",
        "```\nnever closed <b>",
        "~~~~\nnever closed",
        "- a list\n  ```\n  never closed in it",
        "{{ 7*7 }} {% raw %}",
        "---\nlicense: mit\n---",
        "`` unbalanced ` <img src=x>",
        "<https://example.org> and <b>",
        "[x]: https://example.org\n<style>",
    ],
)
def test_what_follows_is_never_swallowed(text: str) -> None:
    page = MarkdownIt("commonmark", {"html": True}).enable("table").render(f"{tame(text, 2)}\n\n## Next\n\nend\n")
    assert "<h2>Next</h2>\n<p>end</p>" in page
    for tag in ("<script", "<!--", "<details", "<img", "<style", "<b>", "<pre>\n```"):
        assert tag not in page
    assert "{{" not in tame(text, 2).replace("\\{{", "")


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=" \n`~#<>!-[](){}%*_=+1.a/:\\|&;\"'", max_size=60))
@example(">#")
@example("- # a")
def test_no_text_reaches_beyond_its_section(text: str) -> None:
    page = MarkdownIt("commonmark", {"html": True}).render(f"{tame(text, 2)}\n\n## Next\n\nend\n")
    assert page.rstrip().endswith("<h2>Next</h2>\n<p>end</p>")
    assert "<h1>" not in page


def test_files_are_read_by_section(tmp_path: Path) -> None:
    put(tmp_path, "limitations.md", "\ufeffNot *tested*.\n")
    put(tmp_path, "bias.md", "   \n")
    assert read_prose(tmp_path) == {"limitations": "Not *tested*."}
    assert read_prose(tmp_path / "card") == {}
    assert "intended_use" in section_names()


def test_a_file_for_no_section_is_named(tmp_path: Path) -> None:
    with pytest.raises(PublisherError, match=r"limitation\.md is for no section") as caught:
        read_prose(put(tmp_path, "limitation.md", "x"))
    assert "limitations" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "[x](javascript:alert(1))",
        "[x](java\\script:alert(1)) [y](JAVASCRIPT\\:alert)",
        "[x](&#106;avascript:alert(1))",
        "[x](\njavascript:alert(1))",
        "![x](data:text/html,x)",
        "[x](../../etc/passwd)",
        "[x](/etc/passwd)",
        "[x][r]\n\n[r]: vbscript:x",
        "<javascript:alert(1)>",
    ],
)
def test_a_link_that_a_card_must_not_have_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(PublisherError, match="has a link to"):
        read_prose(put(tmp_path, "notes.md", text))


def test_links_of_the_web_and_of_the_repository_pass(tmp_path: Path) -> None:
    text = "[a](https://example.org) [b](eval/results.json) ![c](images/coverage.svg) [d](mailto:a@b.org) [e](#serving)"
    assert read_prose(put(tmp_path, "notes.md", text)) == {"notes": text}
    assert len(list(links(text))) == 5


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    (put(tmp_path, "notes.md", "x") / "card/notes.md").write_bytes(b"\xff\xfe")
    with pytest.raises(PublisherError, match="not UTF-8"):
        read_prose(tmp_path)
