"""Foreign text made inert in Markdown: module names, configuration values, licence names, a person's paragraphs.

Whatever the text, it comes out as one run of plain characters: no markup, no HTML, no link, no new line, no invisible
character, nothing a template engine would expand. Three places need three spellings: running text and table cells,
inline code, fenced blocks (CommonMark 0.31: backslash escapes 2.4, code spans 6.1, fences 4.5; GFM tables).
"""

from __future__ import annotations

import re
import unicodedata

MAX_TEXT = 2000
UNPRINTABLE = "(unprintable)"  # for a text of nothing but spaces and invisible characters
MAX_BLOCK = 20_000
# An underscore between letters or digits opens nothing (CommonMark 6.2), and module names are full of them.
_MARKUP = re.compile(r"([`*\[\]{}~|$@]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")
_START = re.compile(r"^([#+=\-:]|\d{1,9}(?=[.)](?:\s|$)))")
_FENCES = re.compile(r"`{3,}|~{3,}")
_SAFE_CODE = re.compile(r"[A-Za-z0-9 .,:;=/*?+()\[\]^$@!'\"_\-−–×÷%]+")


def text(value: str) -> str:
    """One line of plain text, for a paragraph, a list item or a table cell."""
    line = _line(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = line.replace("\\", "&#92;")  # a doubled backslash opens mathematics on the Hub
    line = _MARKUP.sub(r"\\\1", line)
    line = line.replace("://", "\\://").replace("www.", "www\\.")
    start = _START.match(line)
    if start is None:
        return line
    first = start.group(0)
    return f"{first}\\{line[len(first) :]}" if first[0].isdigit() else f"\\{line}"


def code(value: str) -> str:
    """Inline code that survives a table cell; anything out of the ordinary becomes character references."""
    line = _line(value)
    if _SAFE_CODE.fullmatch(line):
        return f"`{line}`"
    return "<code>" + "".join(c if c.isalnum() or c in " .-" else f"&#{ord(c)};" for c in line) + "</code>"


def fence(value: str, language: str = "") -> str:
    """A fenced block longer than any fence inside it; lines are kept."""
    lines = value.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    body = "\n".join(visible(line.replace("\t", "    ")).rstrip() for line in lines).strip("\n")[:MAX_BLOCK]
    length = max((len(run) for run in _FENCES.findall(body)), default=2) + 1
    return f"{'`' * length}{language}\n{body}\n{'`' * length}"


def _line(value: str) -> str:
    line = " ".join(visible(re.sub(r"\s", " ", value)).split())
    return (line if len(line) <= MAX_TEXT else line[:MAX_TEXT] + "…") or UNPRINTABLE


def visible(value: str) -> str:
    """Without control and format characters (bidirectional overrides among them) and half surrogates."""
    return "".join(c for c in value if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn"))
