"""`publisher jobs`: runs on this machine, how they go and how they ended."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from publisher.cli import parameters
from publisher.cli.output import Display, Output, format_option
from publisher.errors import PublisherError
from publisher.units import format_duration

if TYPE_CHECKING:
    from publisher.runners.local import Job


@click.command("jobs", epilog="Examples: publisher jobs   publisher jobs logs RUN   publisher jobs cancel RUN")
@parameters(
    click.argument("action", type=click.Choice(["list", "logs", "cancel"]), default="list"),
    click.argument("run", required=False),
    click.option("--runs", type=click.Path(path_type=Path), default=Path(".publisher/runs"), show_default=True),
    click.option("--follow", is_flag=True, help="Keep showing what happens until the run ends."),
    format_option,
)
def command(action: str, run: str | None, runs: Path, follow: bool, form: str) -> None:
    """List runs, show the events of one, or stop one; a stopped run goes on when it is started again."""
    from publisher.runners import local

    output = Output(form)
    if action == "list":
        _list(output, local.jobs(runs))
        return
    path = Path(run) if run and Path(run).is_dir() else runs / (run or "")
    if not run or not path.is_dir():
        raise PublisherError(f"There is no run {run!r} in {runs}.", hint="`publisher jobs` lists them.")
    if action == "cancel":
        stopped = local.cancel(path)
        output.data({"run": path.name, "cancelled": stopped})
        output.say(f"asked {path.name} to stop" if stopped else f"{path.name} is not running")
        return
    _logs(output, path, follow)


def _list(output: Output, found: list[Job]) -> None:
    output.data([job.to_json() for job in found])
    rows = []
    for job in found:
        took = format_duration((job.ended or time.time()) - job.started) if job.started else ""
        when = datetime.fromtimestamp(job.started).strftime("%Y-%m-%d %H:%M") if job.started else ""
        rows.append((job.name, job.status, job.stage, when, took, job.message[:80]))
    output.table(("run", "status", "stage", "started", "took", "last said"), rows)
    if not found:
        output.say("no runs yet; `publisher push RECIPE` makes one")


def _logs(output: Output, path: Path, follow: bool) -> None:
    from publisher import journal
    from publisher.journal import RunDirectory

    directory, offset = RunDirectory(path), 0
    with Display(output) as display:
        while True:
            busy = directory.busy
            events, offset = journal.read(directory.events, offset)
            for event in events:
                output.data(event.to_json())
                if output.human:
                    display(event)
            if not follow or not busy:
                return
            time.sleep(0.5)
