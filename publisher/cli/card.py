"""`publisher card`: the model card, rendered from the files."""

from __future__ import annotations

from pathlib import Path

import click

from publisher.cli import parameters
from publisher.cli.output import Output, format_option
from publisher.errors import PublisherError


@click.command(
    "card", epilog="Example: publisher card ./checkpoint --source hf://org/model --card card.toml > README.md"
)
@parameters(
    click.argument("path"),
    click.option("--source", required=True, help="What it was quantized from: a folder or hf://org/name[@revision]."),
    click.option("--card", type=click.Path(path_type=Path), help="card.toml: what only a person can say."),
    click.option("--repo", metavar="ORG/NAME", help="The repository it will be published to."),
    click.option("--gate", type=click.Choice(["auto", "manual", "off"]), default="manual", show_default=True),
    click.option("--write", is_flag=True, help="Write README.md into the folder instead of printing it."),
    format_option,
)
def command(path: str, source: str, card: Path | None, repo: str | None, gate: str, write: bool, form: str) -> None:
    """Render the model card of the checkpoint at PATH, a folder or hf://org/name[@revision], and print it.

    The rules are run first, so that the card can say how they ended: on headers and scales of a folder, on the headers
    of a repository.
    """
    from publisher import jsonio, rules
    from publisher.card.context import card_context
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
    text = render(
        card_context(
            checkpoint=checkpoint,
            original=original,
            source=origin,
            plan=None,
            report=report.to_json(),
            quantize=None,
            evaluation=None,
            person=read_person(card),
            target=TargetSpec(repo=repo, gate=gate) if repo else None,
        )
    )
    if write and place.folder is not None:
        jsonio.write_atomic(place.folder / "README.md", text)
        output.say(f"wrote {Path(path) / 'README.md'}")
    elif output.form == "json":
        output.data({"card": text, "publishable": report.publishable})
    else:
        click.echo(text, nl=False)
