"""`publisher validate`: any checkpoint against the rules, a folder or a repository."""

from __future__ import annotations

import click

from publisher.cli import parameters
from publisher.cli.options import ignore_option, level_option, parse_waivers
from publisher.cli.output import (
    Display,
    Output,
    report_format_option,
    report_option,
    tell_report,
    verbose_option,
)


@click.command(
    "validate",
    epilog="Examples: publisher validate ./checkpoint --source hf://org/model   publisher validate hf://org/name",
)
@parameters(
    click.argument("path"),
    click.option("--source", help="What it was quantized from: a folder or hf://org/name[@revision]."),
    level_option,
    click.option("--select", multiple=True, metavar="CODE", help="Run only these rules or families (SV, CN01)."),
    ignore_option,
    report_format_option,
    report_option,
    verbose_option,
)
def command(
    path: str,
    source: str | None,
    level: str | None,
    select: tuple[str, ...],
    waivers: tuple[str, ...],
    form: str,
    reports: tuple[str, ...],
    verbose: bool,
) -> None:
    """Check the checkpoint at PATH, a folder or hf://org/name[@revision].

    A folder is read in full, a repository by its headers. Ends with 1 when errors are left without a waiver.
    """
    from publisher import rules
    from publisher.checkpoint.open import open_checkpoint
    from publisher.checkpoint.source import resolve
    from publisher.journal import Event
    from publisher.reports.files import destinations
    from publisher.subjects import Evidence

    output, wanted = Output(form), destinations(reports)
    with Display(output) as display:

        def progress(done: int, total: int) -> None:
            display(Event(stage="validate", kind="progress", payload={"done": done, "total": total, "unit": "bytes"}))

        place = resolve(path)
        original = resolve(source) if source else None
        evidence = Evidence(
            checkpoint=open_checkpoint(place.files),
            source=open_checkpoint(original.files) if original else None,
            base_model=original.repo if original else None,
            settings={"gated": place.gated} if place.repo else None,
        )
        depth = level or ("full" if place.folder else "headers")
        report = rules.run(
            evidence,
            level=depth,
            select=tuple(code.upper() for code in select),
            waivers=parse_waivers(waivers),
            progress=progress,
        )
    label = path if place.folder else place.label
    tell_report(output, report, evidence.checkpoint, label=label, level=depth, wanted=wanted, verbose=verbose)
    raise click.exceptions.Exit(0 if report.publishable else 1)
