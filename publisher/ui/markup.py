"""Pieces of HTML out of escaped values: the only place that writes a tag.

Names, messages and cards come from repositories of strangers. Every value goes through `text`, which escapes markup,
the signs templates react to, and control and direction characters; no function here takes ready-made HTML from outside
this module except as `Html`, which only this module makes.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NewType

Html = NewType("Html", str)
SIGNS = str.maketrans({"$": "&#36;", "{": "&#123;", "}": "&#125;", "`": "&#96;", "\\": "&#92;"})
MAX_TEXT = 4000


def text(value: object) -> Html:
    """A value as text of a page."""
    raw = str(value)
    shown = raw if len(raw) <= MAX_TEXT else raw[:MAX_TEXT] + "…"
    return Html(html.escape("".join(map(_visible, shown)), quote=True).translate(SIGNS))


def _visible(character: str) -> str:
    """The character, or its number where it would not be seen or would turn its neighbours around."""
    if character in "\n\t" or not unicodedata.category(character).startswith("C"):
        return character
    return f"\\x{ord(character):02x}"


def join(pieces: Iterable[Html], between: str = "") -> Html:
    """Pieces side by side."""
    return Html(text(between).join(pieces))


def element(tag: str, *inner: Html, kind: str = "", **attributes: str) -> Html:
    """An element; `kind` is its class, `role_` and `aria_label` become `role` and `aria-label`."""
    named = {"class": kind, **{key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}}
    written = "".join(f' {key}="{text(value)}"' for key, value in named.items() if value)
    return Html(f"<{tag}{written}>{''.join(inner)}</{tag}>")


def notice(kind: str, title: str, lines: Sequence[str] = (), hint: str = "") -> Html:
    """A box that tells something: `kind` is error, warning, info or good."""
    mark = {"error": "✕", "warning": "!", "info": "i", "good": "✓"}[kind]
    body = [element("p", text(title), kind="title")]
    if lines:
        body.append(element("ul", *(element("li", text(line)) for line in lines)))
    if hint:
        body.append(element("p", text(hint), kind="hint"))
    return element(
        "div",
        element("span", text(mark), kind="mark", aria_hidden="true"),
        element("div", *body),
        kind=f"notice {kind}",
        role="alert" if kind == "error" else "status",
    )


def badge(kind: str, label: str) -> Html:
    """A word in a coloured frame; the word says it all, the colour repeats it."""
    return element("span", text(label), kind=f"badge {kind}")


def facts(rows: Iterable[tuple[str, str]]) -> Html:
    """Label and value pairs."""
    cells = [join((element("dt", text(label)), element("dd", text(value)))) for label, value in rows]
    return element("dl", *cells, kind="facts")


def table(columns: Sequence[str], rows: Iterable[Sequence[Html]], *, caption: str, kind: str = "") -> Html:
    """A table; on a narrow screen each row becomes a block whose cells carry their column's name."""
    head = element("tr", *(element("th", text(name), scope="col") for name in columns))
    body = [
        element("tr", *(element("td", cell, data_label=name) for name, cell in zip(columns, row, strict=True)))
        for row in rows
    ]
    return element(
        "table",
        element("caption", text(caption)),
        element("thead", head),
        element("tbody", *body),
        kind=f"grid {kind}".strip(),
    )


def code(value: object) -> Html:
    """A name or a number as it stands in a file."""
    return element("code", text(value))


def details(summary: Html, *inner: Html, opened: bool = False) -> Html:
    """A part that folds; a browser does it without any script."""
    mark = " open" if opened else ""
    return Html(f"<details{mark}><summary>{summary}</summary>{''.join(inner)}</details>")
