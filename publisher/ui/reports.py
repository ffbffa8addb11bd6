"""What the rules found, from the JSON of `publisher validate` or of a run directory, as a table one can filter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from publisher.ui import markup
from publisher.ui.markup import Html
from publisher.units import format_bytes

ALL = "all"
SEVERITIES = ("error", "warning", "info")
MARKS = {"error": "✕ error", "warning": "! warning", "info": "i info"}
VERDICTS = {"loads": "good", "loads wrong": "error", "refuses": "error"}
SHOWN = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One finding, ready to print."""

    severity: str
    code: str
    slug: str
    place: str
    message: str
    engines: str
    waived: str

    def holds(self, words: Sequence[str]) -> bool:
        """Whether every word occurs somewhere in the row."""
        everything = " ".join((self.severity, self.code, self.slug, self.place, self.message, self.engines)).lower()
        return all(word in everything for word in words)


def rows(reports: Iterable[Mapping[str, Any]]) -> list[Row]:
    """The findings of several reports, the most severe first; what is no finding is passed over."""
    found = [_row(item) for report in reports for item in report.get("findings", ()) if isinstance(item, Mapping)]
    order = {severity: position for position, severity in enumerate(SEVERITIES)}
    return sorted(found, key=lambda row: (bool(row.waived), order.get(row.severity, len(order)), row.code))


def _row(item: Mapping[str, Any]) -> Row:
    where = item.get("where") if isinstance(item.get("where"), Mapping) else {}
    place = [str(where[key]) for key in ("file", "tensor") if where and where.get(key)]
    index = where.get("index") if where else None
    if isinstance(index, list):
        place.append(str(index))
    engines = item.get("engines")
    return Row(
        severity=str(item.get("severity", "")),
        code=str(item.get("code", "")),
        slug=str(item.get("slug", "")),
        place=" · ".join(place),
        message=str(item.get("message", "")),
        engines=", ".join(map(str, engines)) if isinstance(engines, list) else "",
        waived=str(item.get("waived") or ""),
    )


def report_html(reports: Sequence[Mapping[str, Any]], *, severity: str = ALL, search: str | None = None) -> Html:
    """The verdict, the findings that pass the filter, and what was not run and why."""
    if not reports:
        return markup.element("p", markup.text("The rules have not been run yet."), kind="empty")
    found = rows(reports)
    words = (search or "").lower().split()
    shown = [row for row in found if severity in (ALL, row.severity) and row.holds(words)]
    pieces = [_verdict(reports), *_engines(reports)]
    if shown:
        pieces.append(_table(shown, len(found)))
    elif found:
        pieces.append(markup.element("p", markup.text("No finding passes this filter."), kind="empty"))
    else:
        pieces.append(markup.element("p", markup.text("The rules found nothing to say."), kind="empty"))
    pieces += list(_not_run(reports))
    return markup.element("div", *pieces, kind="page")


def _table(shown: Sequence[Row], total: int) -> Html:
    caption = f"{len(shown)} of {total} findings" + (f", the first {SHOWN}" if len(shown) > SHOWN else "")
    body = [
        [
            markup.badge(row.severity, MARKS.get(row.severity, row.severity)),
            markup.join((markup.code(row.code), markup.element("span", markup.text(row.slug), kind="role"))),
            _message(row),
            markup.code(row.place) if row.place else markup.text("–"),
            markup.text(row.engines or "–"),
        ]
        for row in shown[:SHOWN]
    ]
    return markup.table(("Severity", "Rule", "What", "Where", "Breaks"), body, caption=caption, kind="findings")


def _message(row: Row) -> Html:
    waiver = [markup.element("span", markup.text(f"waived: {row.waived}"), kind="role")] if row.waived else []
    return markup.join((markup.text(row.message), *waiver))


def _verdict(reports: Sequence[Mapping[str, Any]]) -> Html:
    summaries = [report.get("summary", {}) for report in reports]

    def total(key: str) -> int:
        return sum(int(summary.get(key) or 0) for summary in summaries)

    publishable = all(report.get("publishable") is True for report in reports)
    counted = (
        f"{total('rules_run')} rules run, {total('errors')} errors, {total('warnings')} warnings; "
        f"{format_bytes(total('bytes_read'))} read"
    )
    return markup.notice(
        "good" if publishable else "error", "Publishable" if publishable else "Not publishable", [], counted
    )


def _engines(reports: Sequence[Mapping[str, Any]]) -> Iterator[Html]:
    """What each engine makes of the checkpoint, by the first report that says; versions that agree in one row."""
    found: dict[tuple[str, str, str], list[str]] = {}
    told = next((report["engines"] for report in reports if report.get("engines")), ())
    for item in (item for item in told if isinstance(item, Mapping)):
        because = ", ".join(map(str, item.get("because") or ())) or str(item.get("reason") or "")
        verdict = str(item.get("verdict", ""))
        key = str(item.get("engine", "")), verdict, "" if verdict == "loads" else because
        found.setdefault(key, []).append(str(item.get("version", "")))
    if found:
        rows = [
            [
                markup.text(engine),
                markup.text(", ".join(versions)),
                markup.badge(VERDICTS.get(verdict, "quiet"), verdict),
                markup.text(because or "–"),
            ]
            for (engine, verdict, because), versions in found.items()
        ]
        yield markup.table(("Engine", "Version", "Verdict", "Because"), rows, caption="What engines make of it")


def _not_run(reports: Sequence[Mapping[str, Any]]) -> Iterator[Html]:
    """Rules that could not look, by reason; a rule that ran in one of the reports is not among them."""
    told = {code for report in reports for code in report.get("summary", {}).get("rules", ())}
    reasons: dict[str, list[str]] = {}
    for report in reports:
        for item in report.get("not_run", ()):
            code = str(item.get("code", ""))
            if code not in told:
                told.add(code)
                reasons.setdefault(str(item.get("reason", "")), []).append(code)
    count = sum(map(len, reasons.values()))
    if count:
        inner = [
            markup.element("p", markup.element("b", markup.text(reason)), markup.text(": " + ", ".join(codes)))
            for reason, codes in reasons.items()
        ]
        yield markup.details(markup.text(f"{count} rules were not run, which is not the same as passed"), *inner)
