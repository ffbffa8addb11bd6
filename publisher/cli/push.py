"""`publisher push`: the headless mode, everything from the source to a proven repository."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from publisher.cli import parameters
from publisher.cli.options import (
    device_option,
    ignore_option,
    on_nan_option,
    parse_waivers,
    recipe_order,
    run_dir_option,
    workers_option,
)
from publisher.cli.output import Display, Output, format_option
from publisher.errors import PublisherError
from publisher.units import format_bytes


@click.command(
    "push",
    epilog="Examples: publisher push recipe.yaml --to folder:./out   "
    "publisher push --checkpoint ./ckpt --source hf://org/model --repo me/model-NVFP4",
)
@parameters(
    click.argument("recipe", type=click.Path(path_type=Path), required=False),
    click.option("--checkpoint", type=click.Path(path_type=Path), help="Publish a checkpoint that was made elsewhere."),
    click.option("--source", help="What that checkpoint was quantized from."),
    click.option("--card", type=click.Path(path_type=Path), help="card.toml: what only a person can say."),
    click.option("--repo", metavar="ORG/NAME", help="The repository to publish to."),
    click.option("--to", default="hf", show_default=True, help="hf, or folder:DIR."),
    click.option("--gate", type=click.Choice(["auto", "manual", "off"]), help="Who approves downloads."),
    click.option("--private", is_flag=True, help="Keep the repository private at the end."),
    click.option("--dry-run", is_flag=True, help="Do everything but the push; say what the push would do."),
    click.option("--yes", is_flag=True, help="Do not ask before the repository becomes visible."),
    run_dir_option,
    device_option,
    workers_option,
    on_nan_option,
    ignore_option,
    format_option,
)
def command(
    recipe: Path | None, to: str, dry_run: bool, yes: bool, run_dir: Path | None, form: str, **options: Any
) -> None:
    """Quantize, validate, write the card, publish and prove what arrived.

    Runs whatever stages are missing and goes on after a kill. Ends with 0 only when the published tree was read back
    and equals the manifest.
    """
    from publisher import pipeline
    from publisher.journal import Journal, RunDirectory

    output = Output(form)
    order = _order(recipe, options)
    order = pipeline.with_target(
        replace(order, to=to), repo=options["repo"], gate=options["gate"], private=options["private"]
    )
    with Display(output) as display:
        prepared = pipeline.prepare(order, journal=Journal(None, display))
        directory = RunDirectory(run_dir or prepared.default_directory)
        work = pipeline.Run(prepared=prepared, directory=directory, journal=Journal(None))
        target = work.target()  # a target that does not exist is refused before hours of work
        _confirm(order, target.url, yes=yes or dry_run or not output.human)
        work = pipeline.run(prepared, directory, display, until="manifest" if dry_run else "push")
    if dry_run:
        _print_intention(output, pipeline.dry_run(work))
        return
    record = pipeline.record(directory)
    output.data(record)
    output.say(f"published and verified: {record['url']} ({record['visibility']}, gate {record['gate']})", "bold green")
    output.say(
        f"  {record['files']} files, {format_bytes(record['bytes'])}, root digest {record['root_digest']}; "
        f"{len(record['sent'])} sent now"
    )


def _order(recipe: Path | None, options: dict[str, Any]) -> Any:
    from publisher.pipeline import Order

    checkpoint, source = options["checkpoint"], options["source"]
    if (recipe is None) == (checkpoint is None):
        raise click.UsageError("Give either a RECIPE or --checkpoint DIR with --source ID.")
    if recipe is not None:
        if source or options["card"]:
            raise click.UsageError("--source and --card belong to --checkpoint; a recipe names its own.")
        more = {"workers": options["workers"], "on_nan": options["on_nan"]}
        return recipe_order(recipe, options["waivers"], options["device"], **more)
    if not source:
        raise click.UsageError("--checkpoint needs --source: what the checkpoint was quantized from.")
    return Order(
        checkpoint=checkpoint.absolute(),
        source=source,
        card=options["card"],
        waivers=parse_waivers(options["waivers"]),
        device=options["device"],
    )


def _confirm(order: Any, url: str, *, yes: bool) -> None:
    """Ask once, on a terminal, before anything that others will see."""
    import sys

    target = order.target
    if yes or target.private or not sys.stdin.isatty():
        return
    opened = "open to everybody" if target.gate == "off" else f"visible to everybody, gated ({target.gate})"
    if not click.confirm(f"{url} will be {opened}. Go on?", err=True):
        raise PublisherError("Nothing was started.", hint="Answer y, give --yes, or keep it hidden with --private.")


def _print_intention(output: Output, intended: dict[str, Any]) -> None:
    output.data(intended)
    output.say(f"now: {intended['current'] or 'no such repository'}; afterwards: {intended['wanted']}")
    for name, paths in intended["groups"].items():
        output.say(f"send {name}: {', '.join(paths) or 'nothing, it is there'}")
    if intended["remove"]:
        output.say(f"remove: {', '.join(intended['remove'])}")
    output.say(f"{format_bytes(intended['bytes'])} would be sent; nothing was changed")
    for problem in intended["problems"]:
        output.say(f"problem: {problem['message']} {problem['hint']}", "red")
