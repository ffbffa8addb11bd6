"""Words that claim more than the card's own tables show: lossless, no degradation, within one standard error.

A loss counts where it is more standard errors than the words allow, with every figure taken as favourably as its
rounding admits; where no error is given, a loss of more than a point.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from publisher.claims.document import Document, Sentence
from publisher.claims.finding import STATEMENT, Doubt, doubt
from publisher.claims.scores import Table, at, errors_apart, middle, tables
from publisher.findings import WARNING

_LOSSLESS = re.compile(
    r"\b(?<!not )(?<!isn't )lossless(?:ly)?\b(?! compress)|\b(?:no|without"
    r"|zero) (?:\w{1,12} ){0,2}(?:degradation|accuracy loss|quality loss|loss (?:of|in) (?:accuracy"
    r"|quality))\b",
    re.I,
)
_WITHIN = re.compile(
    r"\bwithin (?P<near>or near |about |roughly )?(?P<k>one|1|two|2|three|3)\s{0,2}(?:\u03c3|sigma"
    r"|(?:combined |pooled )?(?:standard errors?|stderrs?|SEs?))",
    re.I,
)
_COUNTS = {"one": 1.0, "1": 1.0, "two": 2.0, "2": 2.0, "three": 3.0, "3": 3.0}
_NEAR = 1.5  # standard errors that "near one" may be
_LOSS = 2.0  # standard errors beyond which a loss is no noise
_POINTS = 1.0  # points lost beyond which nothing is lossless, where no error is given


def judge(document: Document) -> Iterator[Doubt]:
    """Words about a loss that the tables above them do not bear."""
    found = tables(document)
    if not found:
        return
    first = min(table.grid.line for table in found)
    for sentence in document.sentences:
        if sentence.line > first:
            yield from _overclaims(sentence, found)


def _overclaims(sentence: Sentence, found: Sequence[Table]) -> Iterator[Doubt]:
    """`Lossless`, `no degradation`, `within one standard error` beyond what the tables show."""
    within, lossless = _WITHIN.search(sentence.whole), _LOSSLESS.search(sentence.whole)
    if within is None and lossless is None:
        return
    worst = [(z, table, number) for table in found for number, z in _losses(table, signed=within is None)]
    limit = _LOSS
    if within is not None:
        limit = _COUNTS[within.group("k").lower()]
        limit = max(limit, _NEAR) if within.group("near") else limit
    if worst:
        z, table, number = max(worst, key=lambda item: item[0])
        if z > limit:
            fact = f"line {table.grid.lines[number]} shows a difference of {z:.1f} standard errors"
            yield doubt(STATEMENT, sentence.line, sentence.whole, fact, "Say what was measured", WARNING)
    elif lossless is not None:
        yield from _points(sentence, found)


def _losses(table: Table, *, signed: bool) -> Iterator[tuple[int, float]]:
    """Per row the fewest standard errors that the figures allow; only where the result is worse, when signed."""
    if table.pair is None:
        return
    for number, row in enumerate(table.cells):
        mine, theirs = at(row, table.pair[0]), at(row, table.pair[1])
        z = errors_apart(mine, theirs) if mine is not None and theirs is not None else None
        if z is not None and mine is not None and theirs is not None:
            worse = middle(mine.value) < middle(theirs.value)
            yield number, z.low if worse or not signed else 0.0


def _points(sentence: Sentence, found: Sequence[Table]) -> Iterator[Doubt]:
    """Where no error is given, a loss of more than a point is one."""
    for table in found:
        for number, row in enumerate(table.cells if table.pair is not None else ()):
            mine, theirs = (at(row, c) for c in table.pair or (0, 0))
            if mine is None or theirs is None:
                continue
            scale = 100 if max(abs(mine.value.high), abs(theirs.value.high)) <= 1.001 else 1
            difference = (theirs.value - mine.value) * scale
            if difference.low > _POINTS and mine.value.high * scale <= 100:
                lost = f"a loss of {middle(difference):.1f} points and no error is given"
                fact = f"line {table.grid.lines[number]} shows {lost}"
                yield doubt(STATEMENT, sentence.line, sentence.whole, fact, "Say what was measured", WARNING)
                return
