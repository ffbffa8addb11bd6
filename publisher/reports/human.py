"""A report for a terminal, one screen: the verdict, what blocks with its first places and its fix, then the rest in
one line each.

`verbose` lists every place, every warning and every rule that could not look. Lines are as wide as asked for; the
style of a line is a name, and who prints it decides whether that becomes a colour.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from publisher.findings import ERROR, INFO, WARNING, Severity
from publisher.reports import validation as told
from publisher.reports.validation import Group, Opinion, Validation
from publisher.units import format_bytes

WIDTH = 100
SCREEN = 26  # lines the errors may take before the others are only named
NAMES = 12  # rules that are named before the others are only counted
MARKS = {ERROR: "✕", WARNING: "!", INFO: "i"}
COMMANDS = ("::", "##[")  # what a line must not begin with: a CI runner would obey it


@dataclass(frozen=True, slots=True)
class Line:
    """One line; style is error, warning, info, good, dim, bold or empty."""

    text: str
    style: str = ""


def write(validation: Validation) -> str:
    """The whole report as plain text, every place listed."""
    return "".join(f"{line.text}\n" for line in lines(validation, verbose=True))


def lines(validation: Validation, *, width: int = WIDTH, verbose: bool = False) -> Iterator[Line]:
    """The report, line by line.

    Args:
        validation: what to tell.
        width: columns; long names are not broken, so that they can be copied.
        verbose: everything instead of one screen.
    """
    report = validation.report
    found = told.groups(report)
    yield from _head(validation, width)
    yield from _engines(told.opinions(report), width)
    yield from _errors([group for group in found if group.blocks], width, verbose)
    for severity in (WARNING, INFO):
        yield from _minor([g for g in found if g.severity is severity and not g.waived], severity, width, verbose)
    yield from _waived([group for group in found if group.waived], width)
    yield from _not_run(validation, width, verbose)
    yield from _next(found, width, verbose)


def _head(validation: Validation, width: int) -> Iterator[Line]:
    report = validation.report
    good = report.publishable
    label = f": {validation.label}" if validation.label else ""
    style = "good" if good else "error"
    yield from _wrapped(f"{'✓' if good else '✕'} {told.headline(report)}{label}", width, "  ", style)
    amount = f"{format_bytes(report.bytes_read)} read in {report.seconds:.1f} s"
    yield from _wrapped(f"  {', '.join(told.counted(report))}; {amount}", width, "  ")


def _engines(found: Mapping[str, Sequence[Opinion]], width: int) -> Iterator[Line]:
    """One line an engine; versions that agree stand together."""
    if found:
        yield Line("")
    indent = max(map(len, found), default=0) + 4
    for engine, own in found.items():
        said = "; ".join(_said(opinion, len(own)) for opinion in own)
        yield from _wrapped(f"  {engine:{indent - 2}}{said}", width, " " * indent, _worst(own))


def _said(own: Opinion, opinions: int) -> str:
    which = f" in {', '.join(own.versions)}" if opinions > 1 and any(own.versions) else ""
    return f"{own.verdict}{which}" + (f" ({own.because})" if own.because else "")


def _worst(own: Sequence[Opinion]) -> str:
    said = {opinion.verdict for opinion in own}
    for verdict, style in (("refuses", "error"), ("loads wrong", "error"), ("unknown", "dim")):
        if verdict in said:
            return style
    return "good"


def _errors(found: Sequence[Group], width: int, verbose: bool) -> Iterator[Line]:
    if not found:
        return
    left = SCREEN
    places = None if verbose else 3 if len(found) <= 3 else 1
    for number, group in enumerate(found):
        block = list(_block(group, places, width))
        if not verbose and number and len(block) > left:
            yield Line("")
            yield from _names(f"and {told.plural(len(found) - number, 'more rule')} with errors", found[number:], width)
            return
        left -= len(block)
        yield from block


def _block(group: Group, places: int | None, width: int) -> Iterator[Line]:
    """A rule's findings: its name, who breaks, the first places, the fix."""
    yield Line("")
    breaks = f"; {group.breaks}" if group.breaks else ""
    style = str(group.severity)
    head = f"{MARKS[group.severity]} {group.code} {group.slug}: {told.plural(group.places, 'place')}{breaks}"
    yield from _wrapped(head, width, "    ", style)
    listed = group.listed or group.findings
    for finding in listed[:places]:
        where = told.place(finding)
        yield from _wrapped(f"    {where}: {finding.message}" if where else f"    {finding.message}", width, "      ")
    shown = len(listed[:places])
    if group.places > shown:
        yield Line(f"    … and {group.places - shown:,} more", "dim")
    if group.fix:
        yield from _wrapped(f"    fix: {group.fix}", width, "      ", "bold")


def _minor(found: Sequence[Group], severity: Severity, width: int, verbose: bool) -> Iterator[Line]:
    """Warnings and information: their names on one line, or all of it."""
    if verbose:
        for group in found:
            yield from _block(group, None, width)
    elif found:
        count = sum(group.places for group in found)
        noun = told.plural(count, "warning") if severity is WARNING else f"{count:,} for information"
        yield Line("")
        yield from _names(f"{MARKS[severity]} {noun}", found, width, str(severity))


def _names(head: str, found: Sequence[Group], width: int, style: str = "") -> Iterator[Line]:
    named = [f"{g.code} {g.slug}" + (f" ×{g.places:,}" if g.places > 1 else "") for g in found[:NAMES]]
    named += [f"and {len(found) - NAMES} more rules"] if len(found) > NAMES else []
    yield from _wrapped(f"{head}: {', '.join(named)}", width, "    ", style)


def _waived(found: Sequence[Group], width: int) -> Iterator[Line]:
    if found:
        yield Line("")
    for group in found:
        yield from _wrapped(
            f"– {group.code} {group.slug}: {told.plural(group.places, 'place')}, waived: {group.waived}",
            width,
            "    ",
            "dim",
        )


def _not_run(validation: Validation, width: int, verbose: bool) -> Iterator[Line]:
    """Rules that lacked something, by what they lacked; those with nothing to judge are only counted."""
    reasons, absent = told.not_run(validation.report), told.inapplicable(validation.report)
    if reasons:
        yield Line("")
        count = sum(map(len, reasons.values()))
        yield Line(f"not run, which is not passed: {told.plural(count, 'rule')}", "dim")
    for reason, codes in reasons.items():
        listed = ", ".join(codes if verbose else codes[:6])
        more = "" if verbose or len(codes) <= 6 else f" and {len(codes) - 6} more"
        yield from _wrapped(f"  {reason}: {listed}{more}", width, "    ", "dim")
    if absent and verbose:
        yield Line("")
        yield Line(f"nothing to judge: {told.plural(len(absent), 'rule')}", "dim")
        for code, reason in absent.items():
            yield from _wrapped(f"  {code}: {reason}", width, "    ", "dim")


def _next(found: Sequence[Group], width: int, verbose: bool) -> Iterator[Line]:
    first = next((group for group in found if group.blocks), None)
    hints = [] if first is None else [f"`publisher rules explain {first.code}` says why"]
    if not verbose and found:
        hints.append("`-v` lists every place")
    if hints:
        yield Line("")
        yield from _wrapped("; ".join(hints) + ".", width, "", "dim")


def _wrapped(text: str, width: int, indent: str, style: str = "") -> Iterator[Line]:
    """Text as lines of at most `width` columns where words allow it."""
    text = told.visible(text)
    start = text[: len(text) - len(text.lstrip())]
    parts: Iterable[str] = textwrap.wrap(
        text.strip(),
        max(width, 20),
        initial_indent=start,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [""]
    for part in parts:
        bare = part.lstrip()
        yield Line(f"{part[: len(part) - len(bare)]}\\{bare}" if bare.startswith(COMMANDS) else part, style)
