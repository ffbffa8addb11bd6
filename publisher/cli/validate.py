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
    click.option("--sample", type=click.IntRange(min=1), metavar="N", help="At level full, N blocks of each module."),
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
    sample: int | None,
    select: tuple[str, ...],
    waivers: tuple[str, ...],
    form: str,
    reports: tuple[str, ...],
    verbose: bool,
) -> None:
    """Check the checkpoint at PATH, a folder or hf://org/name[@revision].

    A folder is read in full, a repository by its headers unless --level or --sample asks for more; what has been
    fetched is kept, so that running again goes on. Ends with 1 when errors are left without a waiver.
    """
    from publisher import rules
    from publisher.cli.reading import Reading
    from publisher.reports.files import destinations
    from publisher.subjects import Evidence

    if sample and level not in (None, "full"):
        raise click.UsageError(
            f"--sample takes blocks of weights, which --level {level} does not read; give one of the two."
        )
    output, wanted = Output(form), destinations(reports)
    chosen = tuple(code.upper() for code in select)
    with Display(output) as display:
        reading = Reading(display, "validate")
        place, checkpoint = reading.open(path)
        original, before = reading.open(source) if source else (None, None)
        evidence = Evidence(
            checkpoint=checkpoint,
            source=before,
            base_model=original.repo if original else None,
            settings={"gated": place.gated, "private": place.private} if place.repo else None,
            repo=place.repo,
            source_gate="off" if place.private else original.gate if original else None,
            sample=sample,
        )
        depth = level or ("full" if place.folder or sample else "headers")
        reading.announce(evidence, rules.evidence_asked(evidence, depth, chosen), depth)
        with reading.interruptible():
            report = rules.run(
                evidence, level=depth, select=chosen, waivers=parse_waivers(waivers), progress=reading.progress
            )
        report = reading.counted(report)
    label = path if place.folder else place.label
    tell_report(output, report, evidence.checkpoint, label=label, level=depth, wanted=wanted, verbose=verbose)
    raise click.exceptions.Exit(0 if report.publishable else 1)
