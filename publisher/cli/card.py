"""`publisher card`: the model card, rendered from the files, and any card compared with the files it speaks of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from publisher.cli import parameters
from publisher.cli.options import ignore_option, parse_waivers
from publisher.cli.output import (
    Display,
    Output,
    format_option,
    report_format_option,
    report_option,
    tell_report,
    verbose_option,
)
from publisher.errors import PublisherError

# Rules that contradict what a card says, and those that ask for what it leaves out.
CONTRADICTED = ("LC04", "LC05", "LC09", "LC12", "LC13")
LEFT_OUT = ("LC08", "LC10", "LC11")
ORIGIN = ("LC02", "LC03")  # licence and base model as the source has them


class Card(click.Group):
    """`card PATH` renders, as it always did; `card lint PATH` compares."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `render` before arguments that name no other part of the verb."""
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["render", *args]
        return super().parse_args(ctx, args)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The help of both parts, the one without a name first."""
        for name, part in self.commands.items():
            if name == "render":
                part.format_help(click.Context(part, info_name=ctx.info_name, parent=ctx.parent), formatter)
            else:
                formatter.write("\n")
                part.format_help(click.Context(part, info_name=name, parent=ctx), formatter)


@click.group("card", cls=Card)
def command() -> None:
    """Render a checkpoint's model card, or compare a card with the files it speaks of."""


@command.command(
    "render", epilog="Example: publisher card ./checkpoint --source hf://org/model --card card.toml > README.md"
)
@parameters(
    click.argument("path"),
    click.option("--source", required=True, help="What it was quantized from: a folder or hf://org/name[@revision]."),
    click.option("--card", type=click.Path(path_type=Path), help="card.toml: what only a person can say."),
    click.option("--repo", metavar="ORG/NAME", help="The repository it will be published to."),
    click.option("--gate", type=click.Choice(["auto", "manual", "off"]), default="manual", show_default=True),
    click.option(
        "--order",
        type=click.Choice(["default", "nvidia", "amd", "redhat"]),
        help="Order and names of the sections; card.toml's, else our own.",
    ),
    click.option("--write", is_flag=True, help="Write README.md and its images into the folder instead of printing."),
    format_option,
)
def render_card(
    path: str,
    source: str,
    card: Path | None,
    repo: str | None,
    gate: str,
    order: str | None,
    write: bool,
    form: str,
) -> None:
    """Render the model card of the checkpoint at PATH, a folder or hf://org/name[@revision], and print it.

    The rules are run first, so that the card can say how they ended: on headers and scales of a folder, on the headers
    of a repository. What the engine recorded beside the folder is told too.
    """
    from publisher import jsonio, rules
    from publisher.card import images
    from publisher.card.context import card_context
    from publisher.card.facts import facts
    from publisher.card.person import read_person
    from publisher.card.render import render
    from publisher.checkpoint.open import open_checkpoint
    from publisher.checkpoint.source import resolve
    from publisher.plan.model import TargetSpec
    from publisher.subjects import Evidence

    output = Output(form)
    place, origin = resolve(path), resolve(source)
    if write and place.folder is None:
        raise PublisherError(f"{path} is no folder to write into.", hint="Leave --write away to print the card.")
    original, checkpoint = open_checkpoint(origin.files), open_checkpoint(place.files)
    evidence = Evidence(checkpoint=checkpoint, source=original, base_model=origin.repo)
    report = rules.run(evidence, level="scales" if place.folder else "headers", ignore=("LC",))
    context = card_context(
        checkpoint=checkpoint,
        original=original,
        source=origin,
        report=report.to_json(),
        quantize=_made(place.folder),
        person=read_person(card),
        target=TargetSpec(repo=repo, gate=gate) if repo else None,
        order=order,
    )
    text = render(context)
    if write and place.folder is not None:
        for name in images.write(place.folder, context.pictures):
            output.say(f"wrote {Path(path) / name}")
        jsonio.write_atomic(place.folder / "README.md", text)
        output.say(f"wrote {Path(path) / 'README.md'}")
    elif output.form == "json":
        output.data({"card": text, "publishable": report.publishable, "facts": facts(context)})
    else:
        click.echo(text, nl=False)


def _made(folder: Path | None) -> Mapping[str, Any] | None:
    """The engine's record, which lies beside a checkpoint that this program made; None without one."""
    from publisher import jsonio

    record = folder.parent / f"{folder.name}.quantize.json" if folder is not None else None
    if record is None or not record.is_file():
        return None
    document = jsonio.load_json(record)
    return document if isinstance(document, Mapping) else None


@command.command(
    "lint", epilog="Examples: publisher card lint ./checkpoint   publisher card lint hf://org/name --card README.new.md"
)
@parameters(
    click.argument("path"),
    click.option("--card", type=click.Path(path_type=Path), help="Another card than the README.md beside the files."),
    click.option(
        "--source",
        help="What it was quantized from, a folder or hf://org/name[@revision]: licence and base model are judged too.",
    ),
    click.option("--complete", is_flag=True, help="Also say what the card leaves out: tags, attribution, protocol."),
    ignore_option,
    report_format_option,
    report_option,
    verbose_option,
)
def lint_card(
    path: str,
    card: Path | None,
    source: str | None,
    complete: bool,
    waivers: tuple[str, ...],
    form: str,
    reports: tuple[str, ...],
    verbose: bool,
) -> None:
    """Compare what a card says with the checkpoint at PATH, a folder or hf://org/name[@revision].

    Any card, not only ours: its numbers, statements, tables, quoted configuration, commands and words on GPUs, against
    the headers and the configuration and against one another. What is not understood is not judged; a figure is wrong
    only beyond its rounding. Ends with 1 when errors are left without a waiver.
    """
    import dataclasses

    from publisher import jsonio, rules
    from publisher.checkpoint.replaced import Replaced
    from publisher.cli.reading import Reading
    from publisher.reports.files import destinations
    from publisher.subjects import CARD, Evidence

    output, wanted = Output(form), destinations(reports)
    with Display(output) as display:
        reading = Reading(display, "lint")
        place, checkpoint = reading.open(path)
        original, before = reading.open(source) if source else (None, None)
        if card is not None:
            contents = {CARD: jsonio.read_bytes(card)}
            checkpoint = dataclasses.replace(checkpoint, files=Replaced(checkpoint.files, contents))
        if CARD not in checkpoint.files.sizes:
            raise PublisherError(f"There is no {CARD} at {path}.", hint="Name a card with --card FILE.")
        evidence = Evidence(
            checkpoint=checkpoint, source=before, base_model=original.repo if original else None, card=True
        )
        with reading.interruptible():
            report = rules.run(
                evidence,
                level="headers",
                select=CONTRADICTED + (LEFT_OUT if complete else ()) + (ORIGIN if source else ()),
                waivers=parse_waivers(waivers),
                left_out="not about what the card says",
            )
        report = dataclasses.replace(reading.counted(report), engines=())
    label = path if place.folder else place.label
    tell_report(output, report, evidence.checkpoint, label=label, level="headers", wanted=wanted, verbose=verbose)
    raise click.exceptions.Exit(0 if report.publishable else 1)
