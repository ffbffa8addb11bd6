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
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from publisher.errors import PublisherError
from publisher.findings import Report
from publisher.journal import Event, mask
from publisher.units import format_bytes, format_duration

if TYPE_CHECKING:
    from publisher.checkpoint.open import Checkpoint
    from publisher.reports.files import Destination

FORMATS = ("human", "json", "quiet")
PIPE_WIDTH = 160
MAX_CELL = 500  # characters of a table's cell
PLAIN_INTERVAL = 10.0  # seconds between progress lines where there is no terminal

format_option = click.option(
    "--format", "form", type=click.Choice(FORMATS), default="human", show_default=True, help="How to print the result."
)

# What `validate` can print, as `publisher.reports.REPORTS` names it; written out so that `--help` loads no report.
REPORT_FORMS = ("human", "json", "quiet", "jsonl", "sarif", "junit", "github", "markdown", "html")
report_format_option = click.option(
    "--format",
    "form",
    type=click.Choice(REPORT_FORMS),
    default="human",
    show_default=True,
    metavar="FORM",
    help=f"How to print the report: {', '.join(REPORT_FORMS)}.",
)
report_option = click.option(
    "--report",
    "reports",
    multiple=True,
    metavar="[FORM:]FILE",
    help="Also write the report to FILE (.html, .sarif, .xml for JUnit, .md, .jsonl, .json, .txt). Repeatable.",
)
verbose_option = click.option("-v", "--verbose", is_flag=True, help="Print every place, warning and rule not run.")

REPORT_STYLES = {"error": "bold red", "warning": "yellow", "info": "cyan", "good": "bold green"}


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

    def line(self, text: str, style: str = "") -> None:
        """Print one line as it is, never folded, in the human format only."""
        if self.human:
            self.console.print(escape(printable(mask(text))), style=style, soft_wrap=True)

    def note(self, text: str, style: str = "dim") -> None:
        """Tell something on standard error, unless quiet."""
        if self.form != "quiet":
            self.side.print(escape(printable(mask(text))), style=style)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> None:
        """Print a table, in the human format only; columns that hold numbers are set right."""
        if not self.human:
            return
        body = [[printable(_cut(str(cell))) for cell in row] for row in rows]
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


def _cut(cell: str) -> str:
    """A cell that fits a screen: a stranger's name may be of any length."""
    return cell if len(cell) <= MAX_CELL else f"{cell[:MAX_CELL]}…"


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


def print_report(output: Output, report: Report, *, label: str = "", verbose: bool = False) -> None:
    """Print a report for people: one screen, or everything.

    Args:
        output: where to; nothing is printed in the other formats.
        report: what to print.
        label: what was looked at.
        verbose: every place, every warning and every rule that could not look.
    """
    from publisher.reports.human import lines
    from publisher.reports.validation import Validation

    if output.human:
        validation = Validation(report=report, label=label)
        for line in lines(validation, width=output.console.width, verbose=verbose):
            output.line(line.text, REPORT_STYLES.get(line.style, line.style))


def tell_report(
    output: Output,
    report: Report,
    checkpoint: Checkpoint,
    *,
    label: str,
    level: str,
    wanted: Sequence[Destination] = (),
    verbose: bool = False,
) -> None:
    """Print a report in the form asked for and write the files asked for.

    Args:
        output: where to print.
        report: what to tell.
        checkpoint: what was looked at, for reports with pictures.
        label: what to call it.
        level: how much of it may be read for pictures.
        wanted: files, as `reports.files.destinations` makes them of `--report`.
        verbose: as in `print_report`.

    Raises:
        PublisherError: a file cannot be written.
    """
    from publisher.reports import REPORTS
    from publisher.reports.files import render, write
    from publisher.reports.overview import look
    from publisher.reports.validation import Validation

    forms = {output.form, *(item.form for item in wanted)}
    pictures = any(form.pictures for name, form in REPORTS.items() if name in forms)
    validation = Validation(
        report=report,
        label=label,
        overview=look(checkpoint, level=level) if pictures else None,
        date=time.strftime("%Y-%m-%d", time.gmtime()),
    )
    for path in write(wanted, validation):
        output.note(f"report: {path}")
    if output.form in ("human", "quiet"):
        print_report(output, report, label=label, verbose=verbose)
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(render(output.form, validation).encode("utf-8", "backslashreplace"))
        sys.stdout.buffer.flush()


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
        elif event.kind == "log" and "step" in event.payload:
            self._show_log(event)
        elif event.kind in ("start", "done", "skip", "warning", "error", "cancelled"):
            self._drop(event.stage)
            message = str(event.payload.get("message", ""))
            style = {"warning": "yellow", "error": "red", "done": "green"}.get(event.kind, "dim")
            mark = {"start": "▸", "done": "✓", "skip": "–", "warning": "!", "error": "✗"}.get(event.kind, "■")
            self.output.note(f"{mark} {event.stage:9} {message}", style)

    def _show_log(self, event: Event) -> None:
        """What a step of the push is about to do to what others see; the lines of other stages are in the journal."""
        self.output.note(f"· {event.stage:9} {event.payload.get('message', '')}")
        changes = event.payload.get("changes")
        for line in changes if isinstance(changes, list) else ():
            self.output.note(f"  {event.stage:9}   {line}")

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
    if payload.get("files_total"):
        amount += f", {payload.get('files') or 0:,} of {payload['files_total']:,} files"
    rate, eta = payload.get("rate"), payload.get("eta")
    speed = "" if not rate else f", {format_bytes(rate)}/s" if unit == "bytes" else f", {rate:,.1f} {unit}/s"
    left = "" if eta is None or done >= total else f", {format_duration(float(eta))} left"
    return f"{amount}{speed}{left}", done, total
