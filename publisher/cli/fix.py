"""`publisher fix`: repair what is safe to repair, into a new folder or beside a backup, and validate the result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from publisher.cli import parameters
from publisher.cli.options import ignore_option, parse_waivers
from publisher.cli.output import Display, Output, format_option, print_report

if TYPE_CHECKING:
    from publisher.checkpoint.open import Checkpoint


@click.command(
    "fix",
    epilog="Examples: publisher fix ./checkpoint --source ./bf16   publisher fix ./checkpoint --out ./fixed --equalize",
)
@parameters(
    click.argument("path", type=click.Path(path_type=Path)),
    click.option("--source", help="What it was quantized from: a folder or hf://org/name[@revision]."),
    click.option("--out", type=click.Path(path_type=Path), help="Write the repaired checkpoint to this new folder."),
    click.option("--in-place", is_flag=True, help="Change PATH itself; the old files are kept in a folder beside it."),
    click.option("--only", multiple=True, metavar="REPAIR", help="index, config, declaration, ignore, side-files."),
    click.option(
        "--equalize", is_flag=True, help="Also give fused layers one global scale by rescaling their block scales."
    ),
    click.option("--link", is_flag=True, help="With --out: hard-link files that do not change instead of copying."),
    ignore_option,
    format_option,
)
def command(
    path: Path,
    source: str | None,
    out: Path | None,
    in_place: bool,
    only: tuple[str, ...],
    equalize: bool,
    link: bool,
    waivers: tuple[str, ...],
    form: str,
) -> None:
    """Repair the checkpoint in the folder PATH: index, declarations, exclude list, side files; never a weight.

    Without --out or --in-place it only says what it would change, and ends with 1 when there is something. With one of
    them it writes, validates the result, and ends with 1 when errors are left.
    """
    from publisher import repair
    from publisher.checkpoint.open import open_checkpoint
    from publisher.checkpoint.source import resolve
    from publisher.errors import PublisherError
    from publisher.journal import Event

    if out is not None and in_place:
        raise PublisherError("--out and --in-place exclude each other.", hint="Name one of them.")
    kept = parse_waivers(waivers)
    output = Output(form)
    with Display(output) as display:

        def progress(done: int, total: int) -> None:
            display(Event(stage="fix", kind="progress", payload={"done": done, "total": total, "unit": "bytes"}))

        original = resolve(source) if source else None
        origin = open_checkpoint(original.files) if original else None
        proposal = repair.propose(open_checkpoint(path), source=origin, only=only, scales=equalize)
        backup, fixed = None, path
        if proposal.changes and out is not None:
            fixed = repair.into(proposal, out, link=link, progress=progress)
        elif proposal.changes and in_place:
            backup = repair.in_place(proposal, progress=progress)
    for change in proposal.changes:
        output.say(f"{change.repair}: {change.message}")
    for change in proposal.refused:
        output.say(f"{change.repair}: not repaired. {change.message}")
    if not proposal.changes:
        output.say("There is nothing to repair.")
    done = bool(proposal.changes) and (out is not None or in_place)
    record = {**proposal.to_json(), "written": str(fixed) if done else None, "backup": str(backup) if backup else None}
    if not done:
        output.data(record)
        if proposal.changes:
            output.say("Nothing was written. Name --out FOLDER, or --in-place to keep the old files in a backup.")
        raise click.exceptions.Exit(1 if proposal.changes or proposal.refused else 0)
    output.say(f"Written: {fixed}" + (f"; the old files are in {backup}." if backup else "."))
    _validated(output, fixed, origin, original.repo if original else None, kept, record)


def _validated(
    output: Output,
    fixed: Path,
    origin: Checkpoint | None,
    base_model: str | None,
    waivers: dict[str, str],
    record: dict[str, object],
) -> None:
    from publisher import rules
    from publisher.checkpoint.open import open_checkpoint
    from publisher.subjects import Evidence

    evidence = Evidence(checkpoint=open_checkpoint(fixed), source=origin, base_model=base_model)
    report = rules.run(evidence, level="full", waivers=waivers)
    output.data({**record, "report": report.to_json()})
    print_report(output, report)
    raise click.exceptions.Exit(0 if report.publishable else 1)
