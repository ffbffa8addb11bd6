"""A report as Markdown, for a comment on a pull request or a page beside a card.

The verdict, what engines make of it, what blocks with its fix; the rest folds. Text of strangers is made inert as cards
do it (`card.escape`), so that no name mentions a person, links, or breaks a table. The result stays below what a
comment may hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from publisher.card import escape
from publisher.findings import ERROR, INFO, WARNING
from publisher.reports import validation as told
from publisher.reports.validation import Group, Opinion, Validation
from publisher.units import format_bytes

MAX_SIZE = 60_000  # characters; GitHub refuses comments above 65,536
PLACES = 3
MARKS = {ERROR: "❌", WARNING: "⚠️", INFO: "ℹ️"}
VERDICTS = {"loads": "✅", "loads wrong": "❌", "refuses": "❌", "unknown": "❔"}
_REFERENCE = re.compile(r"\\@|(?<!&)#(?=\d)|\bgh-(?=\d)", re.IGNORECASE)


def write(validation: Validation) -> str:
    """The page; of very long ones the end is left out and said to be."""
    parts, size = [], 0
    for part in _parts(validation):
        size += len(part) + 2
        if size > MAX_SIZE:
            parts.append("*The rest is left out here; the JSON report holds it.*")
            break
        parts.append(part)
    return "\n\n".join(parts) + "\n"


def _parts(validation: Validation) -> Iterator[str]:
    report = validation.report
    found = told.groups(report)
    mark = "✅" if report.publishable else "❌"
    yield f"## {mark} {told.headline(report).capitalize()}" + (
        f": {escape.code(validation.title)}" if validation.label else ""
    )
    amount = f"{format_bytes(report.bytes_read)} read in {report.seconds:.1f} s"
    yield f"{', '.join(told.counted(report))}; {amount}."
    opinions = told.opinions(report)
    if opinions:
        yield _engines(opinions)
    blocking = [group for group in found if group.blocks]
    if blocking:
        yield _table(blocking)
    for severity, noun in ((WARNING, "warnings"), (INFO, "for information")):
        minor = [group for group in found if group.severity is severity and group.waived is None]
        if minor:
            yield _folded(f"{sum(group.places for group in minor):,} {noun}", _table(minor))
    waived = [group for group in found if group.waived is not None]
    if waived:
        yield _folded(f"{len(waived)} waived", "\n".join(map(_waiver, waived)))
    reasons, absent = told.not_run(report), told.inapplicable(report)
    if reasons:
        lines = [f"- {_text(reason)}: {_text(', '.join(codes))}" for reason, codes in reasons.items()]
        count = sum(map(len, reasons.values()))
        yield _folded(f"{told.plural(count, 'rule')} not run, which is not passed", "\n".join(lines))
    if absent:
        yield _folded(f"{told.plural(len(absent), 'rule')} with nothing to judge", _text(", ".join(absent)))
    if validation.date or report.tool:
        tool = " ".join(str(report.tool[key]) for key in ("name", "version") if key in report.tool)
        yield f"<sub>{_text(', '.join(filter(None, (tool, validation.date))))}</sub>"


def _engines(found: Mapping[str, Sequence[Opinion]]) -> str:
    rows = ["| engine | versions | verdict | because |", "|---|---|---|---|"]
    for engine, opinions in found.items():
        for own in opinions:
            said = f"{VERDICTS.get(own.verdict, '')} {_text(own.verdict)}".strip()
            because = _text(own.because) if own.because else ""
            versions = ", ".join(filter(None, own.versions)) or "–"
            rows.append(f"| {_text(engine)} | {_text(versions)} | {said} | {because} |")
    return "\n".join(rows)


def _table(found: Sequence[Group]) -> str:
    rows = ["| | rule | what and where | fix |", "|---|---|---|---|"]
    for group in found:
        breaks = f"<br>{_text(group.breaks)}" if group.breaks else ""
        rule = f"**{_text(group.code)}** {_text(group.slug)}{breaks}"
        fix = _text(group.fix) if group.fix else ""
        rows.append(f"| {MARKS[group.severity]} | {rule} | {_where(group)} | {fix} |")
    return "\n".join(rows)


def _where(group: Group) -> str:
    listed = (group.listed or group.findings)[:PLACES]
    lines = []
    for finding in listed:
        where = told.place(finding)
        lines.append(f"{escape.code(where)} {_text(finding.message)}" if where else _text(finding.message))
    if group.places > len(listed):
        lines.append(f"… and {group.places - len(listed):,} more")
    return "<br>".join(lines)


def _text(value: str) -> str:
    """Text that is inert, and in which GitHub finds no person and no issue, which it looks for after rendering."""
    return _REFERENCE.sub(lambda match: f"{match.group()}&#8203;", escape.text(value))


def _waiver(group: Group) -> str:
    return f"- **{_text(group.code)}** {_text(group.slug)}: {_text(group.waived or '')}"


def _folded(summary: str, body: str) -> str:
    return f"<details><summary>{_text(summary)}</summary>\n\n{body}\n\n</details>"
