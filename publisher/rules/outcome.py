"""What one rule has found so far, bounded in length and safe to print."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from publisher.errors import AccessError, HubError, InterruptedRun, PublisherError
from publisher.findings import ERROR, Finding, Found, Severity
from publisher.rules.declared import Rule
from publisher.subjects import KINDS, Meter, Subject

MAX_PLACES = 50  # findings one rule lists; the rest is counted
# What ends a run: it says nothing about the checkpoint, and running again goes on.
ENDS = (AccessError, HubError, InterruptedRun)


@dataclass(slots=True)
class Outcome:
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
        except ENDS:
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


def unfinished(outcome: Outcome, meter: Meter) -> str | None:
    """Why a rule did not look at everything it was asked about; None where it did."""
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
