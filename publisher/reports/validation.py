"""What a report is written of: the rules' outcome, what was looked at, and the numbers around it.

Findings are grouped by rule, the most useful first: errors before warnings, what engines refuse before what they
compute wrong, the container before the configuration and that before names and numbers, since one causes the next.
What an engine makes of the checkpoint and how far modules are from their source stand in the report where the rules
that find them ran; a report without them is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from publisher.catalogue import table as rule_table
from publisher.findings import ERROR, INFO, WARNING, Finding, Report, Severity
from publisher.reports.overview import Overview
from publisher.rules import ENGINES

FAMILIES = ("CN", "CF", "NM", "FU", "SV", "KV", "TP", "SD", "NU", "LC")  # causes before what follows from them
INAPPLICABLE = "nothing to judge"  # how the runner says that there is no subject of a rule's kind
_RANK = {ERROR: 0, WARNING: 1, INFO: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """One validation, ready to be told.

    Args:
        report: what the rules found.
        label: what was looked at: a folder as the person named it, or `hf://org/name@commit`.
        overview: the checkpoint in numbers; None where nobody asked for it.
        date: the day of the validation, empty where it does not matter.
    """

    report: Report
    label: str
    overview: Overview | None = None
    date: str = ""

    @property
    def title(self) -> str:
        """The label for pages that strangers read: of a folder only its own name, not where it lies."""
        if not self.label or "://" in self.label:
            return self.label
        path = Path(self.label)
        return path.name if path.name not in ("", "..") else path.resolve().name


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One way to tell a validation.

    Args:
        write: makes the text.
        told: what it is for, for listings.
        pictures: whether it needs the checkpoint in numbers (`Validation.overview`).
    """

    write: Callable[[Validation], str]
    told: str
    pictures: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The findings of one rule with one severity and one waiver, and the rule's own words.

    Args:
        code: the rule.
        slug: its name.
        severity: of these findings.
        waived: why a person waived them, None when nobody did.
        findings: the places listed.
        places: how many there are in all.
        engines: engines that break on any of them.
        refuses: those that refuse to load.
        rule: the rule's facts as `catalogue.table` gives them; empty for a rule of another version.
    """

    code: str
    slug: str
    severity: Severity
    waived: str | None
    findings: tuple[Finding, ...]
    places: int
    engines: tuple[str, ...]
    refuses: tuple[str, ...]
    rule: Mapping[str, Any]

    @property
    def listed(self) -> tuple[Finding, ...]:
        """The findings that name a place, without the one that counts the rest."""
        return tuple(finding for finding in self.findings if finding.places == 1)

    @property
    def summary(self) -> str:
        """The defect in one sentence."""
        return str(self.rule.get("summary", ""))

    @property
    def fix(self) -> str:
        """The next step."""
        return str(self.rule.get("fix", ""))

    @property
    def blocks(self) -> bool:
        """Whether it keeps the checkpoint from being published."""
        return self.severity is ERROR and self.waived is None

    @property
    def breaks(self) -> str:
        """What engines do with it, in words; empty where no engine minds."""
        wrong = [engine for engine in self.engines if engine not in self.refuses]
        told = [f"{', '.join(self.refuses)} refuse{'s' if len(self.refuses) == 1 else ''} to load"]
        told = told if self.refuses else []
        if wrong:
            told.append(f"{', '.join(wrong)} compute{'s' if len(wrong) == 1 else ''} wrong")
        return "; ".join(told)


def groups(report: Report) -> tuple[Group, ...]:
    """The findings by rule, what blocks first, what is waived last."""
    table = {row["code"]: row for row in rule_table()}
    found: dict[tuple[str, Severity, str | None], list[Finding]] = {}
    for finding in report.findings:
        found.setdefault((finding.code, finding.severity, finding.waived), []).append(finding)
    made = [_group(findings, table.get(code, {})) for (code, _, _), findings in found.items()]
    return tuple(sorted(made, key=_usefulness))


def _group(findings: Sequence[Finding], rule: Mapping[str, Any]) -> Group:
    first = findings[0]
    return Group(
        code=first.code,
        slug=first.slug,
        severity=first.severity,
        waived=first.waived,
        findings=tuple(findings),
        places=sum(finding.places for finding in findings),
        engines=_named(finding.engines for finding in findings),
        refuses=_named(finding.refuses for finding in findings),
        rule=rule,
    )


def _named(lists: Any) -> tuple[str, ...]:
    named = {engine for engines in lists for engine in engines}
    return tuple(engine for engine in ENGINES if engine in named)


def _usefulness(group: Group) -> tuple[Any, ...]:
    family = group.code[:2]
    place = FAMILIES.index(family) if family in FAMILIES else len(FAMILIES)
    return group.waived is not None, _RANK[group.severity], not group.refuses, place, group.code


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What versions of one engine agree about.

    Args:
        versions: those versions, oldest first.
        verdict: loads, loads wrong, refuses or unknown.
        because: the findings' codes, or the reason; empty where it loads.
    """

    versions: tuple[str, ...]
    verdict: str
    because: str


def opinions(report: Report) -> dict[str, tuple[Opinion, ...]]:
    """Engine to its opinions, one for all versions that agree."""
    found: dict[str, dict[tuple[str, str], list[str]]] = {}
    for item in report.engines:
        because = ", ".join(item.because) or ("" if item.verdict == "loads" else item.reason)
        found.setdefault(item.engine, {}).setdefault((item.verdict, because), []).append(item.version)
    return {
        engine: tuple(
            Opinion(versions=tuple(versions), verdict=verdict, because=because)
            for (verdict, because), versions in own.items()
        )
        for engine, own in found.items()
    }


def not_run(report: Report) -> dict[str, list[str]]:
    """Reason to the codes of the rules that lacked something, the commonest first."""
    reasons: dict[str, list[str]] = {}
    for entry in report.not_run:
        if not entry.reason.startswith(INAPPLICABLE):
            reasons.setdefault(entry.reason, []).append(entry.code)
    return dict(sorted(reasons.items(), key=lambda item: -len(item[1])))


def inapplicable(report: Report) -> dict[str, str]:
    """Code to what there is none of, for the rules that had everything and nothing to judge."""
    return {
        entry.code: entry.reason.removeprefix(INAPPLICABLE).strip(": ")
        for entry in report.not_run
        if entry.reason.startswith(INAPPLICABLE)
    }


def place(finding: Finding) -> str:
    """File, tensor and index of a finding on one line; empty where it has none."""
    index = f" {list(finding.index)}" if finding.index else ""
    return ": ".join(part for part in (finding.file, finding.tensor) if part) + index


def headline(report: Report) -> str:
    """The verdict in two words."""
    return "publishable" if report.publishable else "not publishable"


def counted(report: Report) -> Iterator[str]:
    """The numbers behind the verdict, each in words."""
    errors, warnings = (sum(f.places for f in found) for found in (report.errors, report.warnings))
    waived = sum(finding.places for finding in report.findings if finding.waived is not None)
    yield plural(errors, "error")
    yield plural(warnings, "warning")
    if waived:
        yield f"{waived:,} waived"
    absent, lacking = inapplicable(report), sum(map(len, not_run(report).values()))
    yield f"{plural(len(report.rules_run), 'rule')} run"
    if lacking:
        yield f"{lacking} not run"
    if absent:
        yield f"{len(absent)} do not apply"


def plural(count: int, noun: str) -> str:
    """`1 error`, `1,200 errors`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def visible(text: str) -> str:
    """Text for a terminal or a log: control and direction characters and lone surrogates are spelled out."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
