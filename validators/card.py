"""LC: the card as text. Metadata a reader finds it by, and what a machine left in it: broken characters, open blanks.

What a card claims in prose is not judged. Code is left out: a chat template is full of `{{`, a tokenizer's example may
quote broken characters on purpose.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator, Mapping

from publisher import jsonio
from publisher.findings import ERROR, WARNING, Found
from publisher.rules import Scope, rule
from publisher.subjects import CARD, Repository

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_CODE = re.compile(r"(?<!`)(`{1,8})(?!`)[^`\n]{0,2000}(?<!`)\1(?!`)")
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
# Jinja with its usual spaces anywhere; without them not where BibTeX and TeX double their braces.
_MARKER = re.compile(
    r"\{%-?\s{0,9}[a-z]+\b[^%{}\n]{0,200}%\}"
    r"|(?<![=^_}\w\\])(?<!= )\{\{-?\s{0,9}[A-Za-z_][\w.]*(?:\s*\|[^{}\n]{0,200})?\s{0,9}-?\}\}"
    r"|(?<![=^_}\\])(?<!= )\{\{-? [A-Za-z_][^{}\n]{0,200} -?\}\}"
)
_BLANK = re.compile(r"\[More Information Needed\]|(?<![\w-])(?:TODO|FIXME)(?=[ \t]*(?:[:|\])]|$))", re.MULTILINE)
_LEFT = (
    (re.compile("\ufffd"), "stands for a character that was lost", "write it again"),
    (_MARKER, "is a template's marker that nothing filled in", "render the card again"),
    (_BLANK, "is a blank that nobody filled in", "write the text or remove the line"),
)
_SHOWN = 3  # places of one kind named in a message
_TYPOGRAPHY = frozenset("…‘’“”‹›–—«»„‚")


@rule("LC08", "hard-to-find", severity=WARNING, scope=Scope("card with metadata", lambda r: r.card.flaw is None))
def hard_to_find(repository: Repository) -> Iterator[Found]:
    """The card's metadata lacks tags, pipeline_tag or library_name.

    Why: the Hub's search, its filters and its "use this model" button are built from these three; without them only
         those who know the name find the repository.
    Fix: write library_name: transformers, the source's pipeline_tag, and tags that name the format.
    Seen: huggingface.co/docs/hub/model-cards; quantized copies shown without a task on the Hub.
    """
    metadata = repository.card.metadata
    for key in ("library_name", "pipeline_tag"):
        value = metadata.get(key)
        if not (isinstance(value, str) and value.strip()):
            said = "missing" if value is None else f"{str(value)[:40]!r}"
            yield Found(f"{key} is {said}; write one.", file=CARD)
    tags = metadata.get("tags")
    if not (isinstance(tags, list) and tags and all(isinstance(tag, str) and tag.strip() for tag in tags)):
        said = "missing" if tags is None else f"{str(tags)[:60]!r}"
        yield Found(f"tags is {said}; list the format, such as nvfp4, and what reads it.", file=CARD)


@rule("LC09", "unfinished-card", severity=ERROR, scope=Scope("card", lambda repository: bool(_written(repository))))
def unfinished_card(repository: Repository) -> Iterator[Found]:
    """The card is not UTF-8, holds wrongly decoded characters, keeps a template's blanks, or its metadata is broken.

    Why: it is the first thing a reader sees, and quotes, arrows and names that are broken there cast doubt on the
         weights; an open blank says that nobody read it; of metadata that is no YAML the Hub shows nothing.
    Fix: save it as UTF-8 from text that was read as UTF-8; fill or remove what the template left open; close the
         block of metadata and write it as YAML keys.
    Seen: a published Kimi K2 NVFP4 card whose dashes were read with a Thai code page.
    """
    text = repository.card.text
    if text is None:
        yield Found(f"{(repository.card.flaw or '').rstrip('.')}; save it as UTF-8.", file=CARD)
        return
    if repository.card.flaw is not None and text.startswith("---"):
        yield Found(f"{repository.card.flaw.rstrip('.')}; mend the block of metadata.", file=CARD)
    prose = _without_code(text)
    yield from _told(text, _misread(prose), "is UTF-8 read as another code page", "decode it as UTF-8 and save again")
    for pattern, what, fix in _LEFT:
        places = ((match.start(), match.group()) for match in pattern.finditer(prose))
        yield from _told(text, places, what, fix)


def _written(repository: Repository) -> bool:
    return repository.card.text is not None or CARD in repository.checkpoint.files.sizes


def _told(text: str, places: Iterator[tuple[int, str]], what: str, fix: str) -> Iterator[Found]:
    """One finding for all places of a kind: the first lines, how many there are, the next step."""
    first = list(itertools.islice(places, _SHOWN))
    if not first:
        return
    shown = ", ".join(f"{found!r} in line {text.count(chr(10), 0, at) + 1}" for at, found in first)
    rest = sum(1 for _ in places)
    yield Found(f"{shown}{f' and {rest:,} more' if rest else ''}: {what}; {fix}.", file=CARD)


def _without_code(text: str) -> str:
    """The text with fenced blocks, inline code and comments blanked, every line and column where it was."""
    lines, fence = [], ""
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if fence:
            lines.append(" " * len(line))
            closing = line.strip()
            if mark is not None and len(closing) >= len(fence) and set(closing) == {fence[0]}:
                fence = ""
        elif mark is not None:
            lines.append(" " * len(line))
            fence = mark.group(1)
        else:
            lines.append(_CODE.sub(lambda found: " " * len(found.group()), line))
    return _COMMENT.sub(lambda found: re.sub(r"[^\n]", " ", found.group()), "\n".join(lines))


# --- characters that were decoded wrongly --------------------------------------------------------------------------


@functools.cache
def _pages() -> tuple[Mapping[str, int], ...]:
    """Per code page the byte of every character above ASCII; empty places are shown as windows-1252 or C1 has them."""
    shown = {code: bytes([code]).decode("cp1252", "ignore") or chr(code) for code in range(0x80, 0x100)}
    found = []
    for codec in jsonio.data("card/encodings.json")["pages"].values():
        page = {char: code for code, char in shown.items()}
        page |= {chr(code): code for code in range(0x80, 0xA0)}
        page |= {char: code for code in range(0x80, 0x100) if (char := bytes([code]).decode(codec, "ignore"))}
        found.append(page)
    return tuple(found)


def _misread(text: str) -> Iterator[tuple[int, str]]:
    """Places where characters are the bytes of one UTF-8 character, each read as a character of a code page."""
    pair, at = _pair(), 0
    while (match := pair.search(text, at)) is not None:
        at = match.start()
        length = next((n for page in _pages() if (n := _length(text, at, page))), 0)
        if length:
            yield at, text[at : at + length]
        at += length or 1


@functools.cache
def _pair() -> re.Pattern[str]:
    """What some page has for the first two bytes of a character in UTF-8."""
    pages = _pages()
    leads = {char for page in pages for char, code in page.items() if code in (0xC2, 0xC3) or 0xE0 <= code <= 0xF4}
    follow = {char for page in pages for char, code in page.items() if code < 0xC0}
    return re.compile(f"[{re.escape(''.join(sorted(leads)))}](?=[{re.escape(''.join(sorted(follow)))}])")


def _length(text: str, at: int, page: Mapping[str, int]) -> int:
    """How many characters from here on are one broken one, 0 where none is."""
    lead = page.get(text[at], 0)
    size = 4 if lead >= 0xF0 else 3 if lead >= 0xE0 else 2 if lead in (0xC2, 0xC3) else 0
    if not size or not all(0x80 <= page.get(char, 0) < 0xC0 for char in text[at + 1 : at + size]):
        return 0
    try:
        meant = bytes(page[char] for char in text[at : at + size]).decode("utf-8")
    except UnicodeDecodeError:
        return 0
    if not any(begin <= ord(meant) <= last for begin, last in jsonio.data("card/encodings.json")["plausible"]):
        return 0
    return size if _odd(text, at, size) else 0


def _odd(text: str, at: int, size: int) -> bool:
    """Whether no language writes these characters side by side.

    Two count in western pages alone, as Â and Ã before a sign; three and more unless all are letters of one script.
    Punctuation after a word's last letter is as anybody writes it.
    """
    rest = text[at + 1 : at + size]
    after_word = at > 0 and text[at - 1].isalpha()
    if after_word and all(char in _TYPOGRAPHY for char in rest):
        return False
    if size == 2:
        return text[at] in "ÂÃ"
    if "\u0e00" <= text[at] <= "\u0e7f":
        return any(not "\u0e00" <= char <= "\u0e7f" for char in rest)
    if "\u0400" <= text[at] <= "\u04ff":
        return any(not char.isalpha() or (char.isupper() and text[at].islower()) for char in rest)
    return True
