"""A person's Markdown for a section of the card, `card/<section>.md`, made to fit into a card without breaking it.

Emphasis, lists, tables, code, links and images pass. What could change the page around it does not: raw HTML and
comments are shown as text, headings become smaller than the section's own, a fence left open is closed, and signs of
templates are text. A link that leads neither to the web, to mail nor to a file of the repository is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from publisher import jsonio
from publisher.card.escape import visible
from publisher.errors import PublisherError

FOLDER = "card"
ORDERS = "card/orders.json"
MAX_FILE = 256 << 10
TURNS = 8  # escaping a tag can uncover a fence, whose content is then code again
_CODE = ("fence", "code_block")
_AUTOLINK = re.compile(r"<(https?://[^\s<>\"']+|[A-Za-z0-9._+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,})>")
_SPAN = re.compile(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)")
_TEMPLATE = re.compile(r"(?<!\\)(\{[{%#]|[}%]\})")
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:")
_SAFE = ("http:", "https:", "mailto:")


def read_prose(folder: Path) -> dict[str, str]:
    """The sections a person wrote, by name; empty without the folder.

    Args:
        folder: where card.toml lies; the files are in its folder `card`.

    Raises:
        PublisherError: a file is for no section, is not text, is too long, or holds a link that a card must not.
    """
    place, known = folder / FOLDER, section_names()
    found = {}
    for path in sorted(place.glob("*.md")) if place.is_dir() else ():
        if path.stem not in known:
            raise PublisherError(
                f"{path} is for no section of the card.", hint=f"The sections are {', '.join(sorted(known))}."
            )
        try:
            text = jsonio.read_bytes(path, MAX_FILE).decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise PublisherError(f"{path} is not UTF-8 at byte {error.start:,}.", hint="Save it as UTF-8.") from None
        wrong = next((link for link in links(text) if not _fine(link)), None)
        if wrong is not None:
            raise PublisherError(
                f"{path} has a link to {wrong[:200]!r}.",
                hint="Links lead to https://, mailto: or a file of the repository, by its path from the top.",
            )
        if text:
            found[path.stem] = text
    return found


def section_names() -> frozenset[str]:
    """The names a file of `card/` may have."""
    return frozenset(jsonio.data(ORDERS)["words"])


def links(markdown: str) -> Iterator[str]:
    """Where the links and images of a text lead, whatever their scheme."""
    for token in _parser().parse(markdown):
        for inner in token.children or ():
            goal = inner.attrs.get("href") or inner.attrs.get("src")
            if isinstance(goal, str) and goal:
                yield goal


def tame(markdown: str, level: int) -> str:
    """The Markdown with headings below `level` and nothing that reaches beyond its section."""
    lines = [visible(line.replace("\t", "    ")) for line in re.split(r"\r\n|\r|\n", markdown.strip())]
    for _ in range(TURNS):
        code = _code_lines(lines)
        escaped = [line if number in code else _escaped(line) for number, line in enumerate(lines)]
        if escaped == lines:
            break
        lines = escaped
    return "\n".join(_closed(_demoted(lines, level))).strip("\n")


# --- details -------------------------------------------------------------------------------------------------------


def _parser() -> Any:
    parser = MarkdownIt("commonmark")
    parser.validateLink = _seen  # type: ignore[method-assign]
    return parser


def _seen(url: str) -> bool:
    """Every link counts, so that one this parser would drop is not left for another to follow."""
    return bool(url)


def _fine(goal: str) -> bool:
    scheme = _SCHEME.match(goal)
    if scheme is not None:
        return scheme.group(0).lower() in _SAFE
    path = re.split(r"[?#]", goal)[0]
    return not path.startswith(("/", "\\")) and ".." not in re.split(r"[/\\]|%2[fF]", path)


def _code_lines(lines: list[str]) -> frozenset[int]:
    """Lines that are code, which nothing is to be escaped in; a fence that is never closed is none, up to here."""
    found: set[int] = set()
    for token in _parser().parse("\n".join(lines)):
        if token.type in _CODE and token.map is not None:
            found |= set(range(*token.map))
    return frozenset(found)


def _escaped(line: str) -> str:
    """A line outside blocks of code; what stands in backquotes is kept as it is but for `<`, which may open a tag."""
    pieces, at = [], 0
    for span in _SPAN.finditer(line):
        pieces += [_plain(line[at : span.start()]), span.group(0)]
        at = span.end()
    return "".join([*pieces, _plain(line[at:])])


def _plain(text: str) -> str:
    kept: list[str] = []
    at = 0
    for link in _AUTOLINK.finditer(text):
        kept += [text[at : link.start()].replace("<", "&lt;"), link.group(0)]
        at = link.end()
    return _TEMPLATE.sub(r"\\\1", "".join([*kept, text[at:].replace("<", "&lt;")]))


def _demoted(lines: list[str], level: int) -> list[str]:
    """Headings of both kinds, as many levels down as the section's own."""
    found, code = list(lines), _code_lines(lines)
    for token in _parser().parse("\n".join(lines)):
        if token.type != "heading_open" or token.map is None:
            continue
        begin, end = token.map
        sign = "#" * min(int(token.tag[1:]) + level, 6)
        if token.markup.startswith("#"):
            if begin not in code:
                found[begin] = re.sub(rf"(?<!#){token.markup}(?=[ \t]|$)", sign, found[begin], count=1)
        else:
            found[begin] = f"{sign} {found[begin].strip()}"
            found[end - 1] = ""
    return found


def _closed(lines: list[str]) -> list[str]:
    """With the fence closed that reaches to the end, so that it does not swallow what follows."""
    tokens = [token for token in _parser().parse("\n".join(lines)) if token.type == "fence" and token.level == 0]
    if not tokens or tokens[-1].map is None or tokens[-1].map[1] < len(lines):
        return lines
    mark = tokens[-1].markup
    last = lines[-1].strip()
    closed = tokens[-1].map[1] - tokens[-1].map[0] > 1 and last == mark[0] * len(last) and len(last) >= len(mark)
    return lines if closed else [*lines, mark]
