"""What a card says of GPUs: that some cannot run it, or run it natively, against the table of GPUs and formats."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping

from publisher import jsonio
from publisher.claims.document import Document, Sentence
from publisher.claims.facts import Facts
from publisher.claims.finding import HARDWARE, Doubt, doubt
from publisher.findings import WARNING

TABLE, WORDS = "hardware/gpus.json", "card/hardware-words.json"
_CANNOT = re.compile(
    r"\b(?:will not|won't|does not|do not|doesn't|don't|cannot|can't|can not) (?:be )?(?:work|run|load"
    r"|serve|served|start|boot|able to (?:run|load))\b"
    r"|\b(?:is|are) (?:not supported|unsupported|not compatible|incompatible)\b"
)
_ONLY = re.compile(
    r"\b(?:runs?|works?|loads?|serves?|supported) (?:exclusively |only )(?:on|by)\b|\bonly (?:runs?|works?"
    r"|loads?) on\b|\brequires? (?:an? )?(?:NVIDIA )?(?=Blackwell|B200)"
)
_OPEN = re.compile(r"\b(?:if|unless|untested|not tested|not been tested)\b", re.I)
_NATIVE = re.compile(r"\bnative(?:ly)?\b", re.I)
_NEGATED = re.compile(
    r"\b(?:no|not|non|without|lacks?|isn't|never)\b[ -](?:\w+ ){0,3}?native|\bnative(?:ly)?\b[^.;]{0,40}\bnot\b", re.I
)
_FASTER = re.compile(
    r"\bnative(?:ly)?\b|\bfor (?:FP4|best|full)\b|\bFP4 (?:tensor cores?|arithmetic|compute|speed)\b|\bhardware FP4\b",
    re.I,
)


@functools.cache
def _families() -> tuple[tuple[str, re.Pattern[str], str], ...]:
    rows = jsonio.data(WORDS)["families"]
    return tuple((row["name"], re.compile(row["pattern"]), row["match"]) for row in rows)


@functools.cache
def _support(form: str) -> Mapping[str, tuple[str, str]]:
    """Per row of the table what it says of a format, and its remark."""
    return {row["match"]: (row.get(form, "unverified"), row["note"]) for row in jsonio.data(TABLE)["gpus"]}


def judge(document: Document, facts: Facts) -> Iterator[Doubt]:
    """Statements about GPUs that the engines' own minimum contradicts."""
    form = facts.format
    if form not in ("nvfp4", "mxfp4"):
        return
    support = _support(form)
    for sentence in document.sentences:
        named = [(name, *support[match]) for name, pattern, match in _families() if pattern.search(sentence.whole)]
        yield from _cannot(sentence, named)
        yield from _exclusive(sentence, form, support)
        yield from _natively(sentence, named)


def _cannot(sentence: Sentence, named: list[tuple[str, str, str]]) -> Iterator[Doubt]:
    match = _CANNOT.search(sentence.whole)
    if match is None or _OPEN.search(sentence.whole) or _FASTER.search(sentence.whole, match.end()):
        return
    before = sentence.whole[: match.start()]
    for name, pattern, _ in _families():
        row = next((row for row in named if row[0] == name), None)
        if row is None or row[1] == "unverified" or (row[1] == "native" and not pattern.search(before)):
            continue
        fact = f"engines load this format on {name}, {row[1]} ({TABLE}): {row[2].rstrip('.')}"
        yield doubt(
            HARDWARE, sentence.line, sentence.whole, fact, "Say what runs there, and what FP4 arithmetic needs", WARNING
        )
        return


def _exclusive(sentence: Sentence, form: str, support: Mapping[str, tuple[str, str]]) -> Iterator[Doubt]:
    if form != "nvfp4" or not _ONLY.search(sentence.whole) or _FASTER.search(sentence.whole):
        return
    if re.search(r"\bBlackwell\b|\bB200\b", sentence.whole):
        note = support["sm_90"][1].rstrip(".")
        fact = f"engines load this format on Hopper too, weight-only ({TABLE}): {note}"
        yield doubt(
            HARDWARE, sentence.line, sentence.whole, fact, "Say that FP4 arithmetic needs it, loading does not", WARNING
        )


def _natively(sentence: Sentence, named: list[tuple[str, str, str]]) -> Iterator[Doubt]:
    if not named or not _NATIVE.search(sentence.whole) or _NEGATED.search(sentence.whole):
        return
    known = [(name, how) for name, how, _ in named if how != "unverified"]
    if known and len(known) == len(named) and all(how == "weight-only" for _, how in known):
        name, how = known[0]
        fact = f"{name} has no FP4 units and engines load this format {how} there ({TABLE})"
        yield doubt(HARDWARE, sentence.line, sentence.whole, fact, "Say weight-only", WARNING)
