"""Pieces of HTML and SVG out of escaped values: the only place that writes a tag.

Names, messages and cards come from repositories of strangers. Every value goes through `text`, which escapes markup,
the signs templates react to, and control and direction characters; no function here takes ready-made HTML from outside
this module except as `Html`, which only this module makes.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
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
    return Html(f"{_opening(tag, kind, attributes)}{''.join(inner)}</{tag}>")


def void(tag: str, kind: str = "", **attributes: str) -> Html:
    """An element that holds nothing: `meta`, `rect` without a title."""
    return Html(f"{_opening(tag, kind, attributes)[:-1]}/>")


def _opening(tag: str, kind: str, attributes: Mapping[str, str]) -> str:
    named = {"class": kind, **{key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}}
    written = "".join(f' {key}="{text(value)}"' for key, value in named.items() if value)
    return f"<{tag}{written}>"


def document(title: str, css: str, *body: Html) -> str:
    """A whole page that loads nothing and runs nothing: its policy allows this one stylesheet by its digest.

    Args:
        title: the page's name.
        css: the stylesheet, ours.
        body: what it shows.

    Raises:
        ValueError: the stylesheet would end its element.
    """
    if "</" in css:
        raise ValueError("a stylesheet cannot hold an end tag")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    head = (
        void("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        void("meta", name="viewport", content="width=device-width, initial-scale=1"),
        void("meta", name="referrer", content="no-referrer"),
        void("meta", name="color-scheme", content="light dark"),
        void("link", rel="icon", href="data:,"),
        element("title", text(title)),
        Html(f"<style>{css}</style>"),
    )
    page = element("html", element("head", *head), element("body", *body), lang="en")
    return f"<!doctype html>\n{page}\n"


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


def dotted(value: object) -> Html:
    """A module's or a file's name, which may break after a dot, a slash or an underscore and nowhere else."""
    pieces = re.split(r"(?<=[./_])", str(value)[:MAX_TEXT])
    return element("code", Html(void("wbr").join(text(piece) for piece in pieces)))


def details(summary: Html, *inner: Html, opened: bool = False) -> Html:
    """A part that folds; a browser does it without any script."""
    mark = " open" if opened else ""
    return Html(f"<details{mark}><summary>{summary}</summary>{''.join(inner)}</details>")
