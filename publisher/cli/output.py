"""Everything the command line prints: data on standard output, the rest on standard error, in three formats.

`human` is tables and sentences, `json` one document (the last line, for commands that stream), `quiet` nothing but
what was asked for. Colour and moving bars only on a terminal; elsewhere progress is a plain line now and then.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from publisher.errors import PublisherError
from publisher.findings import Report, Severity
from publisher.journal import Event, mask
from publisher.units import format_bytes, format_duration

FORMATS = ("human", "json", "quiet")
PIPE_WIDTH = 160
PLAIN_INTERVAL = 10.0  # seconds between progress lines where there is no terminal

format_option = click.option(
    "--format", "form", type=click.Choice(FORMATS), default="human", show_default=True, help="How to print the result."
)

STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}


class Output:
    """Prints results in one format.

    Args:
        form: human, json or quiet.
    """

    def __init__(self, form: str) -> None:
        self.form = form
        self.console = _console(stderr=False)
        self.side = _console(stderr=True)

    @property
    def human(self) -> bool:
        """Whether to print tables and sentences."""
        return self.form == "human"

    def data(self, value: Any) -> None:
        """Print a document on one line, in the json format only."""
        if self.form == "json":
            sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")
            sys.stdout.flush()

    def say(self, text: str, style: str = "") -> None:
        """Print a sentence of the result, in the human format only."""
        if self.human:
            self.console.print(escape(printable(text)), style=style)

    def note(self, text: str, style: str = "dim") -> None:
        """Tell something on standard error, unless quiet."""
        if self.form != "quiet":
            self.side.print(escape(printable(mask(text))), style=style)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> None:
        """Print a table, in the human format only; columns that hold numbers are set right."""
        if not self.human:
            return
        body = [[printable(str(cell)) for cell in row] for row in rows]
        table = Table(title=title or None, title_justify="left", title_style="bold", header_style="bold", box=None)
        for position, name in enumerate(columns):
            numbers = bool(body) and all(row[position][:1].isdigit() or not row[position] for row in body)
            table.add_column(name, justify="right" if numbers else "left", overflow="fold")
        for row in body:
            table.add_row(*map(escape, row))
        self.console.print(table)


def _console(*, stderr: bool) -> Console:
    """A console as wide as its terminal; into a pipe, wide enough that a sentence stays on its line."""
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


def printable(text: str) -> str:
    """The text with control characters shown as escapes: names in a checkpoint come from a stranger."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)


def print_error(error: PublisherError) -> None:
    """Print an error as one sentence and its hint on standard error."""
    message, hint = printable(mask(error.message)), printable(mask(error.hint))
    side = _console(stderr=True)
    side.print(f"[bold red]error:[/] {escape(message)}")
    if hint:
        side.print(f"  [dim]→[/] {escape(hint)}")


def print_error_document(error: PublisherError) -> None:
    """Print an error as one JSON document on standard output."""
    message, hint = printable(mask(error.message)), printable(mask(error.hint))
    body = {"error": {"message": message, "hint": hint, "exit_code": error.exit_code}}
    sys.stdout.write(json.dumps(body, ensure_ascii=False) + "\n")


def print_report(output: Output, report: Report, *, limit: int = 40) -> None:
    """Print a report: findings grouped by rule, the most severe first, then what was not run and the verdict."""
    groups: dict[tuple[str, str, Severity], list[Any]] = {}
    for finding in report.findings:
        groups.setdefault((finding.code, finding.slug, finding.severity), []).append(finding)
    for (code, slug, severity), findings in list(groups.items())[:limit]:
        waived = f"  (waived: {findings[0].waived})" if findings[0].waived else ""
        breaks = f"  breaks {', '.join(findings[0].engines)}" if findings[0].engines else ""
        output.say(f"{severity} {code} {slug}{waived}{breaks}", STYLES[severity])
        for finding in findings[:3]:
            place = ": ".join(part for part in (finding.file, finding.tensor) if part)
            output.say(f"  {place + ': ' if place else ''}{finding.message}")
        if len(findings) > 3:
            output.say(f"  … and {len(findings) - 3} more")
    if len(groups) > limit:
        output.say(f"… and {len(groups) - limit} more rules with findings (--format json lists all)")
    output.say(_verdict(report), "bold green" if report.publishable else "bold red")
    reasons: dict[str, list[str]] = {}
    for entry in report.not_run:
        reasons.setdefault(entry.reason, []).append(entry.code)
    for reason, codes in reasons.items():
        output.say(f"  not run ({reason}): {', '.join(codes)}", "dim")


def _verdict(report: Report) -> str:
    head = "publishable" if report.publishable else "not publishable"
    return (
        f"{head}: {len(report.rules_run)} rules run, {len(report.errors)} errors, {len(report.warnings)} warnings, "
        f"{len(report.not_run)} rules not run; {format_bytes(report.bytes_read)} read in {report.seconds:.1f} s"
    )


class Display:
    """Shows a run's events on standard error: a moving bar on a terminal, plain lines elsewhere.

    Args:
        output: where to show them.
    """

    def __init__(self, output: Output) -> None:
        self.output = output
        self._moving = output.human and output.side.is_terminal and "NO_COLOR" not in os.environ
        self._progress = Progress(
            TextColumn("{task.description:10}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[text]}"),
            console=output.side,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._last: dict[str, float] = {}

    def __enter__(self) -> Display:
        if self._moving:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._moving:
            self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if self.output.form == "quiet":
            return
        if event.kind == "progress":
            self._show_progress(event)
        elif event.kind == "start" and "step" in event.payload:
            return  # a step's end says enough
        elif event.kind in ("start", "done", "skip", "warning", "error", "cancelled"):
            self._drop(event.stage)
            message = str(event.payload.get("message", ""))
            style = {"warning": "yellow", "error": "red", "done": "green"}.get(event.kind, "dim")
            mark = {"start": "▸", "done": "✓", "skip": "–", "warning": "!", "error": "✗"}.get(event.kind, "■")
            self.output.note(f"{mark} {event.stage:9} {message}", style)

    def _show_progress(self, event: Event) -> None:
        text, done, total = progress_text(event.payload)
        if self._moving:
            task = self._tasks.get(event.stage)
            if task is None:
                task = self._tasks[event.stage] = self._progress.add_task(event.stage, total=total, text=text)
            self._progress.update(task, completed=done, total=total, text=text)
            return
        now = time.monotonic()
        if now - self._last.setdefault(event.stage, now) >= PLAIN_INTERVAL:
            self._last[event.stage] = now
            self.output.note(f"  {event.stage:9} {text}")

    def _drop(self, stage: str) -> None:
        task = self._tasks.pop(stage, None)
        if task is not None:
            self._progress.remove_task(task)


def progress_text(payload: Mapping[str, Any]) -> tuple[str, float, float]:
    """A progress payload in words, and the numbers done and in all."""
    done, total = float(payload.get("done") or 0), float(payload.get("total") or 0)
    unit = str(payload.get("unit") or "")
    amount = (
        f"{format_bytes(done)} of {format_bytes(total)}" if unit == "bytes" else f"{done:,.0f} of {total:,.0f} {unit}"
    )
    rate, eta = payload.get("rate"), payload.get("eta")
    speed = "" if not rate else f", {format_bytes(rate)}/s" if unit == "bytes" else f", {rate:,.1f} {unit}/s"
    left = "" if eta is None or done >= total else f", {format_duration(float(eta))} left"
    return f"{amount}{speed}{left}", done, total
