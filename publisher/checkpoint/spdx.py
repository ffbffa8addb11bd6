"""Standard licence texts, recognised word by word as SPDX's matching guidelines ask.

The texts are those that pre-commit's identify carries. Case, white space, punctuation and copyright lines do not count.
Its own matcher accepts a twentieth of other characters, which is room for a sentence that forbids commercial use; here
a text with words of its own is named together with the first of them, and one that lacks words is not recognised.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from publisher import jsonio

MAX_WORDS = 20_000
_RUN = 8  # words in a row that the standard text does not have, to count as an addition
_LACKING = 0.05  # of the standard text's words may be other ones: names, titles, numbers of paragraphs
_SHOWN = 14  # words of an addition that are quoted
_COPYRIGHT = re.compile(r"^[^\w\n]*(?:copyright|\(c\)|©|all rights reserved).*$", re.IGNORECASE | re.MULTILINE)
_WORD = re.compile(r"[a-z0-9]+")
_TAIL = ("end", "of", "terms", "and", "conditions")  # what follows is an appendix, which nobody has to keep


@dataclass(frozen=True, slots=True)
class Match:
    """A standard licence: its identifier in lower case, and the first words a text adds to it (empty for none)."""

    identifier: str
    added: str = ""


def match(text: str) -> Match | None:
    """The standard licence a text is, or None."""
    words = _words(text)
    if not 30 <= len(words) <= MAX_WORDS:
        return None
    bag = Counter(words)
    near = [row for row in _standard() if (bag & row[2]).total() >= 0.9 * row[2].total() > 0.45 * len(words) - 200]
    best = max(near, key=lambda row: (bag & row[2]).total() / (row[2].total() + len(words)), default=None)
    return None if best is None else _aligned(best[0], best[1], words, text)


def _aligned(identifier: str, standard: Sequence[str], words: Sequence[str], text: str) -> Match | None:
    end = _tail(standard)
    lacking, added = 0, ""
    for kind, i, j, k, n in difflib.SequenceMatcher(None, standard, words, autojunk=False).get_opcodes():
        if kind != "equal":
            lacking += max(min(j, end) - i, 0)
            if not added and n - k >= _RUN:
                added = " ".join(words[k : min(n, k + _SHOWN)])
    if lacking > _LACKING * end:
        return None
    return Match(identifier, added or _restriction(text, " ".join(standard)))


def _restriction(text: str, standard: str) -> str:
    """A phrase that narrows a licence and is not in its standard text, however short the addition."""
    folded = " ".join(_WORD.findall(text.lower()))
    phrases = (" ".join(_WORD.findall(phrase)) for phrase in jsonio.data("licences/texts.json")["restrictions"])
    return next((phrase for phrase in phrases if phrase in folded and phrase not in standard), "")


def _tail(words: Sequence[str]) -> int:
    return next((at for at in range(len(words)) if tuple(words[at : at + 5]) == _TAIL), len(words))


def _words(text: str) -> list[str]:
    return _WORD.findall(_COPYRIGHT.sub("", text).lower())


@functools.cache
def _standard() -> tuple[tuple[str, tuple[str, ...], Counter[str]], ...]:
    """Identifier, words, and how often each stands before the appendix."""
    from identify.vendor.licenses import LICENSES

    rows = ((identifier.lower(), tuple(_words(text))) for identifier, text in LICENSES)
    return tuple((identifier, words, Counter(words[: _tail(words)])) for identifier, words in rows)
