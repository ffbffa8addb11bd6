"""`publisher convert`: an NVFP4 checkpoint in the other layout, its codes and block scales untouched, validated."""

from __future__ import annotations

from pathlib import Path

import click

from publisher.cli import parameters
from publisher.cli.options import ignore_option, parse_waivers
from publisher.cli.output import Display, Output, format_option, print_report


@click.command(
    "convert",
    epilog="Example: publisher convert ./checkpoint --layout compressed-tensors --out ./converted",
)
@parameters(
    click.argument("path", type=click.Path(path_type=Path)),
    click.option(
        "--layout", required=True, type=click.Choice(("modelopt", "compressed-tensors")), help="The layout to write."
    ),
    click.option("--out", required=True, type=click.Path(path_type=Path), help="The new folder."),
    click.option("--source", help="What it was quantized from: a folder or hf://org/name[@revision]."),
    ignore_option,
    format_option,
)
def command(path: Path, layout: str, out: Path, source: str | None, waivers: tuple[str, ...], form: str) -> None:
    """Write the NVFP4 checkpoint in the folder PATH in another layout.

    Codes and block scales are copied byte for byte, global scales inverted, declarations made anew; the result is
    validated, and the command ends with 1 when there are errors. A card is not carried: write a new one.
    """
    from publisher import rules
    from publisher.checkpoint.open import open_checkpoint
    from publisher.checkpoint.source import resolve
    from publisher.journal import Event
    from publisher.repair import layouts
    from publisher.subjects import Evidence

    kept = parse_waivers(waivers)
    output = Output(form)
    original = resolve(source) if source else None
    with Display(output) as display:

        def progress(done: int, total: int) -> None:
            display(Event(stage="convert", kind="progress", payload={"done": done, "total": total, "unit": "bytes"}))

        made = layouts.conversion(open_checkpoint(path), layout)
        folder = layouts.write(made, out, progress=progress)
    output.say(f"Written: {folder}, {len(made.moves):,} tensors renamed, {len(made.inverted):,} scales inverted.")
    evidence = Evidence(
        checkpoint=open_checkpoint(folder),
        source=open_checkpoint(original.files) if original else None,
        base_model=original.repo if original else None,
    )
    report = rules.run(evidence, level="full", ignore=("LC",), waivers=kept)
    output.data(
        {
            "written": str(folder),
            "layout": layout,
            "renamed": len(made.moves),
            "inverted": len(made.inverted),
            "report": report.to_json(),
        }
    )
    print_report(output, report)
    raise click.exceptions.Exit(0 if report.publishable else 1)
