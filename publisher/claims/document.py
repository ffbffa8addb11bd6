"""A model card taken apart: headings, sentences, two-column rows, tables and code blocks, each with its line.

The block structure is markdown-it's, the only import of that library here; inline marks are taken off by a few bounded
patterns, because nothing but the words matters. A card is a stranger's: of a long one only the first `MAX_CARD`
characters are read, and no pattern here looks further than a fixed number of characters.
"""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from markdown_it import MarkdownIt
from markdown_it.token import Token

MAX_CARD = 256 << 10  # characters of a card that are looked at
MAX_PASSAGES = 20_000
MAX_TEXT = 20_000  # characters of one paragraph
MAX_SENTENCE = 1_000  # characters; nobody claims anything beyond
MAX_ROWS = 1_000
_FRONT = re.compile(r"\A---[ \t]*\n(?:.*?\n)?---[ \t]*(?:\n|\Z)", re.DOTALL)
_BULLET = re.compile(r"^[ \t]{0,8}\u2022[ \t]", re.MULTILINE)  # as pages are copied
_LINK = re.compile(r"!?\[([^\[\]\n]{0,200})\]\([^()\s]{0,300}(?:\s\"[^\"\n]{0,100}\")?\)")
_TAG = re.compile(r"<https?://([^<>\s]{0,300})>|</?[A-Za-z][^<>\n]{0,200}>")
_MARKS = re.compile(r"\*\*|__|~~|`+|\\(?=[!-/:-@\[-`{-~])")
# A stop ends a sentence where a capital, a bracket or code follows; a number's or an abbreviation's does not.
_STOP = re.compile(
    r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!vs\.)(?:\*\*)?\s{1,9}(?=[A-Z\"'(*`\[])"
    r"|;\s{1,9}|\s{1,9}[\u2014\u2013]\s{1,9}|(?: {2,9}|\\)\n|\n(?=\*\*)|<br\s?/?>"
)
_LABEL = re.compile(r"\s{0,9}([^:.;|]{2,80}):\s+(?=\S)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """One statement of a card.

    Args:
        text: its words without marks.
        line: where it begins, counted from 1.
        label: what stands before it: the first cell of its row, `Weights:`, or the line that leads in its list.
        heading: the heading it stands under.
        first: whether it begins its paragraph, item or cell.
    """

    text: str
    line: int
    label: str = ""
    heading: str = ""
    first: bool = True

    @property
    def whole(self) -> str:
        """Label and text."""
        return f"{self.label}: {self.text}" if self.label else self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table of the card: head, rows of cells, the line of each row, the heading it stands under."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]
    line: int
    heading: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block of code: its language, its text, the line it begins in, and the words that lead it in."""

    language: str
    text: str
    line: int
    lead: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A card: sentences in order (those of two-column rows included), tables, code blocks, the first heading."""

    sentences: tuple[Sentence, ...] = ()
    grids: tuple[Grid, ...] = ()
    blocks: tuple[Block, ...] = ()
    title: str = ""


def read_document(card: str) -> Document:
    """Take a card apart; front matter is left out, its lines are counted.

    Args:
        card: the whole README.md.
    """
    text = card[:MAX_CARD].replace("\r\n", "\n").replace("\r", "\n").removeprefix("\ufeff")
    text = _BULLET.sub("- ", text)
    front = _FRONT.match(text)
    skipped = text.count("\n", 0, front.end()) if front else 0
    walk = _Walk(skipped + 1)
    walk.over(_parser().parse(text[front.end() :] if front else text))
    return Document(
        sentences=tuple(walk.sentences[:MAX_PASSAGES]),
        grids=tuple(walk.grids),
        blocks=tuple(walk.blocks),
        title=walk.title,
    )


def plain(text: str) -> str:
    """Markdown of one line without its marks."""
    text = _LINK.sub(r"\1", text[:MAX_TEXT])
    text = _MARKS.sub("", _TAG.sub(lambda match: match.group(1) or " ", text))
    return " ".join(html.unescape(text).split())


@functools.cache
def _parser() -> MarkdownIt:
    """Blocks and tables only: inline parsing is not needed and can be slow."""
    parser = MarkdownIt("commonmark").enable("table")
    parser.core.ruler.enableOnly(["normalize", "block"])
    return parser


@dataclass(slots=True)
class _Walk:
    """What has been seen of the tokens so far."""

    offset: int
    sentences: list[Sentence] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    title: str = ""
    heading: str = ""
    last: str = ""  # the last paragraph, which may lead in what follows
    leads: list[str] = field(default_factory=list)  # of the lists that are open

    def over(self, tokens: Sequence[Token]) -> None:
        position = 0
        while position < len(tokens):
            token = tokens[position]
            if token.type == "table_open":
                end = next((i for i in range(position, len(tokens)) if tokens[i].type == "table_close"), len(tokens))
                self._table(tokens[position:end])
                position = end
            elif token.type == "heading_open":
                self.heading = plain(tokens[position + 1].content)
                self.title = self.title or self.heading
                self.last = ""
                position += 2
            else:
                self._one(token)
            position += 1

    def _one(self, token: Token) -> None:
        if token.type in ("bullet_list_open", "ordered_list_open"):
            self.leads.append(self.last.rstrip(": ") if self.last.endswith(":") else "")
        elif token.type in ("bullet_list_close", "ordered_list_close"):
            self.leads.pop()
            self.last = ""
        elif token.type in ("fence", "code_block"):
            language = token.info.split()[0].lower() if token.info.split() else ""
            self.blocks.append(Block(language=language, text=token.content, line=self._line(token), lead=self.last))
        elif token.type == "inline" and len(self.sentences) < MAX_PASSAGES:
            lead = self.leads[-1] if self.leads else ""
            self.sentences += sentences(token.content, self._line(token), label=lead, heading=self.heading)
            self.last = plain(token.content)

    def _line(self, token: Token) -> int:
        return self.offset + (token.map[0] if token.map else 0)

    def _table(self, tokens: Sequence[Token]) -> None:
        rows: list[list[str]] = []
        lines: list[int] = []
        for token in tokens:
            if token.type == "tr_open":
                rows.append([])
                lines.append(self._line(token))
            elif token.type == "inline" and rows:
                rows[-1].append(token.content)
        if not rows or len(rows) > MAX_ROWS:
            return
        cells = [tuple(plain(cell) for cell in row) for row in rows]
        grid = Grid(head=cells[0], rows=tuple(cells[1:]), lines=tuple(lines[1:]), line=lines[0], heading=self.heading)
        self.grids.append(grid)
        if len(cells[0]) != 2:
            return
        for row, raw, line in zip(cells, rows, lines, strict=True):
            if len(row) == 2 and row[0] and len(row[0]) <= 120:
                self.sentences += sentences(raw[1], line, label=row[0], heading=self.heading)


def sentences(raw: str, line: int, *, label: str = "", heading: str = "") -> Iterator[Sentence]:
    """The sentences of a paragraph, an item or a cell.

    Args:
        raw: its Markdown.
        line: the line it begins in.
        label: what leads it in.
        heading: what it stands under.
    """
    raw = raw[:MAX_TEXT]
    begin = 0
    ends = [*((stop.start(), stop.end()) for stop in _STOP.finditer(raw)), (len(raw), len(raw))]
    for end, after in ends:
        text = plain(raw[begin : min(end, begin + MAX_SENTENCE)])
        if text:
            own = _LABEL.match(text)
            yield Sentence(
                text=text[own.end() :] if own else text,
                line=line,
                label=own.group(1).strip() if own else label if begin == 0 else "",
                heading=heading,
                first=begin == 0,
            )
        line += raw.count("\n", begin, after)
        begin = after
