"""Pieces of HTML that pages share, made of the escaped ones of `publisher.markup`."""

from __future__ import annotations

from collections.abc import Sequence

from publisher.markup import Html, badge, code, details, element, facts, join, table, text

__all__ = ["Html", "badge", "code", "details", "element", "facts", "join", "notice", "table", "text"]


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
