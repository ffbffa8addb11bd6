"""Where a card says a checkpoint comes from: tool and version, base model, licence; and who speaks for whom."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from publisher.claims.document import Document, Sentence
from publisher.claims.facts import Facts
from publisher.claims.finding import PARTIES, STATEMENT, Doubt, doubt
from publisher.findings import WARNING

_TOOLS = {
    "modelopt": re.compile(
        r"\b(?:nvidia-modelopt|modelopt|(?:TensorRT )?Model[ -]Optimizer)\)?\s{0,2}(?:==|version"
        r"|v)?\s{0,2}v?(?P<version>\d+\.\d+(?:\.\w+)*)",
        re.I,
    ),
    "quark": re.compile(r"\b(?:amd-)?quark\)?\s{0,2}(?:==|version|v)?\s{0,2}v?(?P<version>\d+\.\d+(?:\.\w+)*)", re.I),
}
_NOT_PRODUCER = re.compile(
    r"\b(?:needs?|requires?|or newer|or later|at least|since|older|newer|before|after|other than|not)\b|>=|\d\+"
)
_REPO = r"(?P<repo>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}[\w])"
_DERIVED = re.compile(
    rf"\b(?:quantization|(?:quantized|compressed) (?:version|checkpoint|copy)|checkpoint"
    rf"|weights are derived|derived)\s(?:of|from)\s{_REPO}(?![\w/])",
    re.I,
)
_BASE_LABEL = re.compile(r"base[ _]model|source(?: model)?|quantized from", re.I)
_LEADING_REPO = re.compile(rf"\s{{0,3}}{_REPO}(?![\w/])")
_LICENCE_LABEL = re.compile(r"licen[cs]e(?:/terms of use)?", re.I)
_LICENCE = re.compile(
    r"\b(?:licensed under|released under|governed by|distributed under"
    r"|under) (?:the )?(?:terms of )?(?:the )?(?:upstream )?(?P<name>(?:[^.;]|\.(?=\d)){2,80})",
    re.I,
)
# Families of licences by the words cards, metadata and the texts themselves use; the first that matches counts.
_FAMILIES: Mapping[str, re.Pattern[str]] = {
    "Modified MIT": re.compile(r"modified[- ]mit\b", re.I),
    "MIT": re.compile(r"\bMIT\b(?: licen[cs]e)?|^mit$"),
    "Apache 2.0": re.compile(r"\bapache(?: licen[cs]e)?,?[- ]{0,2}(?:version )?v?2\.0|\bapache-2\.0\b", re.I),
    "Llama": re.compile(r"\bllama ?\d?(?:\.\d)?[- ](?:community|licen[cs]e)|^llama\d", re.I),
    "Gemma": re.compile(r"\bgemma (?:terms|licen[cs]e)|^gemma$", re.I),
    "CC BY-NC": re.compile(r"\bcc[- ]by[- ]nc\b", re.I),
    "CC BY": re.compile(r"\bcc[- ]by[- ](?:4|sa)\b", re.I),
    "GPL 3": re.compile(r"\bGPL[- ]?v?3|\bgpl-3\.0\b", re.I),
    "BSD 3": re.compile(r"\bBSD[- ]3\b", re.I),
}
_VERBATIM = re.compile(r"\b(?P<file>LICENSE|NOTICE)(?:\.txt|\.md)? file is (?:preserved|included|copied|kept)\b")
_NON_PARTY = re.compile(r"\bnon-(?P<party>[A-Z][A-Za-z]{1,30})\b[^\n]{0,80}\bmodel card\b", re.I)
_MAKER = re.compile(
    r"\b(?i:produced|quantized|made|created|published|released|developed) (?:and (?:published|released) )?"
    r"by (?P<party>[A-Z][A-Za-z]{1,30})\b"
)
_NOT = re.compile(r"\b(?:not|neither|nor)\b", re.I)
_NOT_OWNED = re.compile(r"\b(?i:not) owned or developed by (?P<party>[A-Z][A-Za-z]{1,30})\b")


def judge(document: Document, facts: Facts) -> Iterator[Doubt]:
    """Claims about the origin that files or metadata contradict."""
    for sentence in document.sentences:
        yield from _tools(sentence, facts)
        yield from _base(sentence, facts)
        yield from _licence(sentence, facts)
    yield from _spoken_for(document)


def _tools(sentence: Sentence, facts: Facts) -> Iterator[Doubt]:
    producer = facts.producer
    if producer is None or _NOT_PRODUCER.search(sentence.whole):
        return
    tool, version, file = producer
    pattern = _TOOLS.get(tool)
    match = pattern.search(sentence.whole) if pattern is not None else None
    if match is not None and not _same_version(match.group("version"), version):
        fact = f"the declaration was written by {tool} {version[:40]} ({file})"
        yield doubt(STATEMENT, sentence.line, sentence.whole, fact, "Name the version that was used")


def _same_version(said: str, declared: str) -> bool:
    """Whether one is the other with fewer parts; what follows a + and a last `x` count for nothing."""
    mine = [part for part in said.lower().split(".") if part not in ("x", "")]
    theirs = declared.lower().lstrip("v").partition("+")[0].split(".")
    shorter = min(len(mine), len(theirs))
    return mine[:shorter] == theirs[:shorter]


def _base(sentence: Sentence, facts: Facts) -> Iterator[Doubt]:
    match = _DERIVED.search(sentence.whole)
    if match is None and _BASE_LABEL.fullmatch(sentence.label):
        match = _LEADING_REPO.match(sentence.text)
    if match is None:
        return
    named = facts.metadata.get("base_model")
    models = {name.lower() for name in (named if isinstance(named, list) else [named]) if isinstance(name, str)}
    models |= {facts.base_model.lower()} if facts.base_model else set()
    said = match.group("repo").rstrip(".")
    if models and said.lower() not in models and "." not in said.partition("/")[0]:
        fact = f"the base model is {', '.join(sorted(models))[:200]} (metadata of the card, or the source)"
        yield doubt(STATEMENT, sentence.line, sentence.whole, fact, "Name one base model")


def _licence(sentence: Sentence, facts: Facts) -> Iterator[Doubt]:
    verbatim = _VERBATIM.search(sentence.whole)
    if verbatim is not None and not _has(facts, verbatim.group("file")):
        fact = f"the repository has no {verbatim.group('file')} file"
        yield doubt(STATEMENT, sentence.line, sentence.whole, fact, "Copy the source's file")
    declared = _declared(facts.metadata)
    if _LICENCE_LABEL.fullmatch(sentence.label):
        said = _family(sentence.text[:120])
    else:
        match = _LICENCE.search(sentence.whole)
        said = _family(match.group("name")) if match is not None else None
    if said is not None and declared is not None and said != declared:
        fact = f"the card's metadata declare {declared}"
        yield doubt(STATEMENT, sentence.line, sentence.whole, fact, "Name the source's licence in both")


def _has(facts: Facts, name: str) -> bool:
    return any(path.rpartition("/")[2].upper().startswith(name) for path in facts.checkpoint.files.sizes)


def _family(text: str) -> str | None:
    return next((name for name, pattern in _FAMILIES.items() if pattern.search(text)), None)


def _declared(metadata: Mapping[str, Any]) -> str | None:
    """The family of the metadata's licence, None where it is unknown or more than one."""
    licence = metadata.get("license")
    if licence == "other":
        licence = metadata.get("license_name")
    return _family(licence.replace("_", "-").replace(" ", "-")) if isinstance(licence, str) else None


def _spoken_for(document: Document) -> Iterator[Doubt]:
    """A vendor's template sentence that now speaks for somebody else."""
    makers = {
        m.group("party") for s in document.sentences for m in _MAKER.finditer(s.whole) if not _NOT.search(s.whole)
    }
    for sentence in document.sentences:
        match = _NON_PARTY.search(sentence.whole)
        if match is not None and match.group("party") in makers:
            party = match.group("party")
            fact = f"the card says {party} made this checkpoint, and the linked card is the base model's own"
            yield doubt(STATEMENT, sentence.line, sentence.whole, fact, "Rewrite the template's sentence", WARNING)
            return
    for sentence in document.sentences:
        match = _NOT_OWNED.search(sentence.whole)
        if match is not None and match.group("party") in makers:
            fact = f"the card says {match.group('party')} made it"
            yield doubt(STATEMENT, sentence.line, sentence.whole, fact, "Rewrite the template's sentence", WARNING)
            return


# --- what is missing -----------------------------------------------------------------------------------------------

_APART = re.compile(
    r"\bnot affiliated\b|\bneither [^.]{2,120} nor [^.]{2,120}\b(?:made|endorse)|\bunaffiliated\b"
    r"|\bno affiliation\b|\bnot endorsed\b|\bendorse(?:s|d)? (?:it|by)\b|\bthird[- ]party\b"
    r"|\bcommunity (?:quanti[sz]ation|reproduction|project|release)\b"
    r"|\bindependent (?:quanti[sz]ation|release|project|work)\b|\bunofficial\b|\bnot an official\b",
    re.I,
)


def missing(document: Document, facts: Facts) -> Iterator[Doubt]:
    """Whose work it is and whose it is not, where the card does not say."""
    base = facts.base_model or facts.metadata.get("base_model")
    if not isinstance(base, str) or not document.sentences:
        return
    owner, _, name = base.rpartition("/")
    told = [sentence.whole for sentence in document.sentences]
    if not any(base.lower() in text.lower() or (name and name.lower() in text.lower()) for text in told):
        message = f"The card's text does not name {base[:120]}, which it was made from; say so in a sentence."
        yield Doubt(topic=PARTIES, line=0, message=message, severity=WARNING)
    if not any(_APART.search(text) for text in told) and not _same_owner(facts, owner):
        message = (
            f"The card does not say whether its publisher belongs to {owner[:96] or name[:96]}; say that it does not."
        )
        yield Doubt(topic=PARTIES, line=0, message=message, severity=WARNING)


def _same_owner(facts: Facts, owner: str) -> bool:
    by = facts.metadata.get("quantized_by")
    return isinstance(by, str) and bool(owner) and by.strip().lower() == owner.lower()
