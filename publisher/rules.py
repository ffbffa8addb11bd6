"""The rules: how one is declared, which there are, and how they run over the evidence.

A rule is a function in `validators/`; the type of its first parameter is the evidence it asks for. Its docstring holds
the summary, why it matters, the fix and where it was seen; `catalogue` makes tables of them. A rule that could not look
is reported as not run with the reason, and one that fails on its own is an error under its own code, so nothing passes
that was not checked.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import inspect
import sys
import time
import typing
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from publisher import __version__
from publisher.errors import AccessError, HubError, InterruptedRun, PublisherError
from publisher.findings import ERROR, INFO, WARNING, Finding, Found, NotRun, Report, Severity
from publisher.subjects import (
    KINDS,
    LEVELS,
    BlockScales,
    Compared,
    Evidence,
    FusedGroup,
    Meter,
    Payload,
    Plain,
    Subject,
    Untouched,
    lacking,
    stream,
)
from publisher.verdict import verdicts

ENGINES = ("vllm", "sglang", "tensorrt-llm", "atom", "transformers")
MAX_PLACES = 50  # findings one rule lists; the rest is counted
# What ends a run: it says nothing about the checkpoint, and running again goes on.
_ENDS = (AccessError, HubError, InterruptedRun)
_ORDER = {ERROR: 0, WARNING: 1, INFO: 2}


@dataclass(frozen=True, slots=True)
class Scope:
    """What a rule is about, where that is less than every subject of its kind.

    Args:
        noun: completes "nothing to judge: there is no …".
        holds: whether a subject is meant.
    """

    noun: str
    holds: Callable[[Any], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule and its facts.

    Args:
        code: family and number, never used again for another rule.
        slug: the defect's name.
        severity: unless a finding says otherwise.
        engines: serving engines that break, unless a finding says otherwise.
        refuses: those of them that refuse to load; the others load it and compute something wrong.
        evidence: type of the subjects it looks at.
        scope: which of them.
        summary: the defect in one sentence.
        why: what goes wrong with it.
        fix: the next step.
        seen: a public precedent, empty when there is none.
        check: the function.
    """

    code: str
    slug: str
    severity: Severity
    engines: tuple[str, ...]
    refuses: tuple[str, ...]
    evidence: type
    scope: Scope | None
    summary: str
    why: str
    fix: str
    seen: str
    check: Callable[[Any], Iterable[Found]]

    @property
    def cost(self) -> str:
        """What the rule reads: headers, scales, the source or the card."""
        return KINDS[self.evidence].cost


_registry: dict[str, Rule] = {}


_Check = TypeVar("_Check", bound=Callable[[Any], Iterable[Found]])


def rule(
    code: str,
    slug: str,
    *,
    severity: Severity,
    engines: tuple[str, ...] = (),
    refuses: tuple[str, ...] = (),
    scope: Scope | None = None,
) -> Callable[[_Check], _Check]:
    """Register a function as a rule; an engine that refuses a defect breaks on it, and need not be named twice.

    Raises:
        TypeError: its code is taken, its docstring lacks a part, its first parameter is no evidence, or an engine is
            unknown.
    """

    def register(check: _Check) -> _Check:
        first = next(iter(inspect.signature(check).parameters))
        evidence = typing.get_type_hints(check).get(first)
        if evidence is None or evidence not in KINDS:
            raise TypeError(f"{code}: the first parameter must be evidence, not {evidence}")
        if not {*engines, *refuses} <= set(ENGINES):
            raise TypeError(f"{code}: engines are {', '.join(ENGINES)}")
        known = _registry.get(code)
        if known is not None and inspect.getsourcefile(known.check) != inspect.getsourcefile(check):
            raise TypeError(f"the code {code} is taken by {known.slug}")
        summary, parts = _parts(check.__doc__ or "", code)
        _registry[code] = Rule(
            code=code,
            slug=slug,
            severity=severity,
            engines=tuple(engine for engine in ENGINES if engine in {*engines, *refuses}),
            refuses=refuses,
            evidence=evidence,
            scope=scope,
            summary=summary,
            why=parts["Why"],
            fix=parts["Fix"],
            seen=parts.get("Seen", ""),
            check=check,
        )
        return check

    return register


def _parts(text: str, code: str) -> tuple[str, dict[str, str]]:
    """Split a docstring into its summary and the paragraphs after Why:, Fix: and Seen:."""
    summary, _, rest = inspect.cleandoc(text).partition("\n\n")
    parts: dict[str, str] = {}
    name = ""
    for line in rest.splitlines():
        head, colon, tail = line.partition(": ")
        if colon and head in ("Why", "Fix", "Seen"):
            name, parts[head] = head, tail.strip()
        elif name:
            parts[name] = f"{parts[name]} {line.strip()}".strip()
    if not summary or not {"Why", "Fix"} <= parts.keys():
        raise TypeError(f"{code}: the docstring needs a summary, Why: and Fix:")
    return " ".join(summary.split()), {name: _sentence(part) for name, part in parts.items()}


def _sentence(text: str) -> str:
    """A capital at the start, unless the first word has a spelling of its own (vLLM, org/name)."""
    first = text.partition(" ")[0]
    return text[:1].upper() + text[1:] if first.isalpha() and first.islower() else text


@functools.cache
def load_rules() -> Mapping[str, Rule]:
    """Every rule by code, in order; the one place where the pipeline meets the rules.

    A wheel carries them as `publisher.validators`. A checkout has them in `validators/` beside this package; they are
    loaded from there under the same name, so that an unrelated `validators` package can never be taken for them.

    Raises:
        PublisherError: there are no rules beside this installation.
    """
    name = "publisher.validators"
    if name not in sys.modules and importlib.util.find_spec(name) is None:
        _adopt(name, Path(__file__).resolve().parent.parent / "validators")
    package = importlib.import_module(name)
    for family in package.FAMILIES:
        importlib.import_module(f"{name}.{family}")
    return dict(sorted(_registry.items()))


def _adopt(name: str, folder: Path) -> None:
    """Make a checkout's `validators/` importable as a part of this package."""
    start = folder / "__init__.py"
    spec = importlib.util.spec_from_file_location(name, start, submodule_search_locations=[str(folder)])
    if spec is None or spec.loader is None or not start.is_file():
        raise PublisherError(f"There are no rules in {folder}.", hint="Install the package again.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


# --- choosing ------------------------------------------------------------------------------------------------------


def chosen(select: Collection[str] = (), ignore: Collection[str] = ()) -> set[str]:
    """Codes of the rules that `select` (all when empty) names and `ignore` does not; codes, prefixes or slugs.

    Raises:
        PublisherError: a word names no rule.
    """
    picked = _named(select) if select else set(load_rules())
    return picked - _named(ignore)


def _named(words: Collection[str]) -> set[str]:
    found: set[str] = set()
    for word in words:
        codes = {c for c, r in load_rules().items() if c.startswith(word.upper()) or r.slug == word} if word else set()
        if not codes:
            raise PublisherError(
                f"No rule is called {word[:60]!r}.",
                hint="`publisher rules` lists them; a family is named by its letters, such as SV.",
            )
        found |= codes
    return found


def _checked(waivers: Mapping[str, str]) -> dict[str, str]:
    """Waivers by code, each with a reason that can be published.

    Raises:
        PublisherError: no such rule, or no reason.
    """
    found: dict[str, str] = {}
    for word, reason in waivers.items():
        codes = [c for c, r in load_rules().items() if word.upper() == c or word == r.slug]
        if not codes:
            raise PublisherError(
                f"A waiver names {word[:60]!r}, which is no rule's code.", hint="`publisher rules` lists the codes."
            )
        if not reason.strip():
            raise PublisherError(
                f"The waiver of {codes[0]} has no reason.", hint=f"Write {codes[0]}=why; the reason is published."
            )
        found[codes[0]] = reason.strip()
    return found


# --- running -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Outcome:
    """What one rule has found so far; everything beyond `MAX_PLACES` is counted by severity."""

    rule: Rule
    findings: list[Finding] = field(default_factory=list)
    rest: Counter[Severity] = field(default_factory=Counter)
    engines: dict[str, None] = field(default_factory=dict)
    subjects: int = 0
    failed: str | None = None

    def look(self, subject: Subject) -> None:
        """Run the rule on one subject; its own failure ends it and is kept."""
        if self.failed is not None or (self.rule.scope is not None and not self.rule.scope.holds(subject)):
            return
        self.subjects += 1
        try:
            for found in self.rule.check(subject):
                self._add(found)
        except _ENDS:
            raise
        except PublisherError as error:
            self.failed = str(error)
        except Exception as error:  # noqa: BLE001 - a rule that breaks on odd data must not take the others with it
            self.failed = f"{type(error).__name__}: {error}"

    def _add(self, found: Found) -> None:
        severity = found.severity or self.rule.severity
        engines, refuses = _broken(self.rule, found)
        if len(self.findings) >= MAX_PLACES:
            self.rest[severity] += 1
            self.engines.update(dict.fromkeys(engines))
            return
        self.findings.append(self._finding(found, severity, engines, refuses))

    def all(self) -> Iterator[Finding]:
        """The findings, what was only counted, and the rule's own failure."""
        yield from self.findings
        for severity, count in self.rest.items():
            rest = Found(f"{count:,} more places like the {MAX_PLACES} listed.")
            yield dataclasses.replace(self._finding(rest, severity, tuple(self.engines)), places=count)
        if self.failed is not None:
            yield self._finding(Found(f"The rule could not finish: {self.failed}"), ERROR, self.rule.engines)

    def _finding(
        self, found: Found, severity: Severity, engines: tuple[str, ...], refuses: tuple[str, ...] = ()
    ) -> Finding:
        return Finding(
            code=self.rule.code,
            slug=self.rule.slug,
            severity=severity,
            message=_clean(found.message, 2000),
            file=found.file and _clean(found.file, 1024),
            tensor=found.tensor and _clean(found.tensor, 1024),
            index=found.index,
            engines=engines,
            refuses=refuses,
        )


def _broken(known: Rule, found: Found) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The engines a finding breaks, and those of them that refuse to load: its own where it names them."""
    refuses = known.refuses if found.refuses is None else found.refuses
    if found.engines is None:
        return tuple(dict.fromkeys((*known.engines, *(found.refuses or ())))), refuses
    if found.refuses is None:
        return found.engines, tuple(engine for engine in refuses if engine in found.engines)
    return tuple(dict.fromkeys((*found.engines, *found.refuses))), refuses


def _clean(text: str, limit: int) -> str:
    """A stranger's text for a terminal and for UTF-8: control characters and lone surrogates are spelled out."""
    short = text if len(text) <= limit else f"{text[: limit - 3]}..."
    if short.isprintable():
        return short
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in short)


def evidence_asked(evidence: Evidence, level: str, select: Collection[str] = ()) -> frozenset[type]:
    """The kinds of evidence that `run` with these arguments looks at."""
    asked = {load_rules()[code].evidence for code in chosen(select)}
    return frozenset(kind for kind in asked if lacking(kind, evidence, level) is None)


def run(
    evidence: Evidence,
    *,
    level: str = "scales",
    select: Collection[str] = (),
    ignore: Collection[str] = (),
    waivers: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    left_out: str = "left out by request",
) -> Report:
    """Run the rules over the evidence.

    Args:
        evidence: the checkpoint and what there is beside it.
        level: headers reads no tensor, scales reads the scales, full reads everything a rule asks for.
        select: codes, prefixes or slugs of the rules to run; all when empty.
        ignore: the same for rules to leave out.
        waivers: code to reason; a waived finding stays in the report and does not block.
        progress: called with (bytes done, bytes in all) while scales are read.
        left_out: the reason given for rules that `select` and `ignore` leave out.

    Raises:
        PublisherError: an unknown level, rule or waiver.
        AccessError: the Hub refuses what is to be read.
        HubError: the network fails; running again goes on.
    """
    if level not in LEVELS:
        raise PublisherError(f"There is no level {level[:40]!r}.", hint=f"Levels are {', '.join(LEVELS)}.")
    reasons, codes, began = _checked(waivers or {}), chosen(select, ignore), time.monotonic()
    not_run: dict[str, str] = {code: left_out for code in load_rules() if code not in codes}
    outcomes: dict[type, list[_Outcome]] = {}
    for code in sorted(codes):
        known = load_rules()[code]
        missing = lacking(known.evidence, evidence, level)
        if missing is not None:
            not_run[code] = missing
        else:
            outcomes.setdefault(known.evidence, []).append(_Outcome(known))
    meter = Meter(progress=progress, bytes_read=_opened(evidence))
    counts = _look(evidence, outcomes, meter, level)
    report = _report(outcomes, not_run, reasons, counts, meter, time.monotonic() - began)
    return dataclasses.replace(report, engines=verdicts(evidence.checkpoint, report, _deciding()))


def _deciding() -> dict[str, tuple[str, ...]]:
    """Rules of the checkpoint itself whose findings are errors, with the engines they break."""
    return {
        code: known.engines
        for code, known in load_rules().items()
        if known.severity is ERROR and not KINDS[known.evidence].source and not KINDS[known.evidence].card
    }


def _look(evidence: Evidence, outcomes: Mapping[type, list[_Outcome]], meter: Meter, level: str) -> Counter[str]:
    counts = Counter(shards=len(evidence.checkpoint.shards), tensors=len(evidence.checkpoint.tensors))
    counts["modules"] = len(evidence.checkpoint.modules)
    try:
        for subject in stream(evidence, outcomes, meter, level):
            if isinstance(subject, BlockScales | FusedGroup | Payload | Plain | Compared | Untouched):
                counts[KINDS[type(subject)].noun] += 1
            for outcome in outcomes[type(subject)]:
                outcome.look(subject)
    except _ENDS:
        raise
    except PublisherError as error:
        for outcome in (o for kind in outcomes for o in outcomes[kind] if KINDS[kind].level != "headers"):
            outcome.failed = str(error)
    return counts


def _opened(evidence: Evidence) -> int:
    """Bytes that opening the checkpoint read: the headers and the JSON documents."""
    headers = sum(header.data_start for header in evidence.checkpoint.shards.values())
    sizes = evidence.checkpoint.files.sizes
    documents = ("config.json", "hf_quant_config.json", "model.safetensors.index.json")
    return headers + sum(sizes.get(name, 0) for name in documents)


def _report(
    outcomes: Mapping[type, list[_Outcome]],
    not_run: dict[str, str],
    reasons: Mapping[str, str],
    counts: Counter[str],
    meter: Meter,
    seconds: float,
) -> Report:
    findings: list[Finding] = []
    ran: list[str] = []
    for outcome in (outcome for group in outcomes.values() for outcome in group):
        code, reason = outcome.rule.code, _unfinished(outcome, meter)
        findings += (dataclasses.replace(f, waived=reasons.get(code)) for f in outcome.all())
        if reason is None:
            ran.append(code)
        else:
            not_run[code] = reason
    findings.sort(key=lambda finding: (_ORDER[finding.severity], finding.code))
    return Report(
        findings=tuple(findings),
        not_run=tuple(NotRun(code=code, reason=not_run[code]) for code in sorted(not_run)),
        rules_run=tuple(sorted(ran)),
        waivers=dict(reasons),
        bytes_read=meter.bytes_read,
        seconds=seconds,
        subjects=dict(counts),
        tool={"name": "fp4-publisher", "version": __version__},
        measured=meter.measured,
    )


def _unfinished(outcome: _Outcome, meter: Meter) -> str | None:
    if outcome.failed is not None:
        return f"the rule failed: {outcome.failed}"
    lost = meter.unreadable[outcome.rule.cost]
    if lost:
        return f"not finished: {lost:,} tensors to read ({outcome.rule.cost}) lie outside their files"
    left = meter.left.get(outcome.rule.evidence)
    if left:
        reason, _ = left.most_common(1)[0]
        return f"not finished: {left.total():,} {KINDS[outcome.rule.evidence].noun} could not be compared: {reason}"
    if not outcome.subjects:
        noun = outcome.rule.scope.noun if outcome.rule.scope else KINDS[outcome.rule.evidence].noun
        return f"nothing to judge: there is no {noun}"
    return None
