"""`publisher push`: the headless mode, everything from the source to a proven repository."""

from __future__ import annotations

import shlex
import sys
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

SHOWN = 20  # names in one line


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
    click.option("--revision", metavar="BRANCH", default=None, help="Publish to this branch instead of main."),
    click.option("--create-pr", is_flag=True, help="Stop when everything is proven in a pull request; merge nothing."),
    click.option("--tag", metavar="NAME", help="Name of the tag to set; by default publisher-<root digest>."),
    click.option("--no-tag", is_flag=True, help="Set no tag."),
    click.option(
        "--no-public-staging",
        is_flag=True,
        help="Fail where private storage is too small, instead of preparing in public behind a manual gate.",
    ),
    click.option("--dry-run", is_flag=True, help="Do everything but the push; say what the push would do."),
    click.option("--yes", is_flag=True, help="Do not ask before something becomes visible or changes."),
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
        replace(order, to=to, manner=_manner(options)),
        repo=options["repo"],
        gate=options["gate"],
        private=options["private"],
    )
    ask = output.human and not (yes or dry_run) and sys.stdin.isatty()
    with Display(output) as display:
        prepared = pipeline.prepare(order, journal=Journal(None, display))
        directory = RunDirectory(run_dir or prepared.default_directory)
        work = pipeline.Run(prepared=prepared, directory=directory, journal=Journal(None))
        target = work.target()  # a target that does not exist is refused before hours of work
        if ask:
            _confirm(order, target.url)
            work.require_access()
        work = pipeline.run(prepared, directory, display, until="manifest" if dry_run or ask else "push")
    if dry_run:
        _print_intention(output, pipeline.dry_run(work))
        return
    if ask:
        intended = pipeline.dry_run(work)
        _confirm_changes(output, intended)
        manner = replace(prepared.order.manner, agreed=frozenset(intended["seen"]))
        prepared = replace(prepared, order=replace(prepared.order, manner=manner))
        with Display(output) as display:
            pipeline.run(prepared, directory, display, since="push")
    _print_record(output, pipeline.record(directory))


def _manner(options: dict[str, Any]) -> Any:
    from publisher.hub.target import DERIVED, MAIN, Manner

    if options["tag"] and options["no_tag"]:
        raise click.UsageError("Give either --tag NAME or --no-tag.")
    return Manner(
        tag=None if options["no_tag"] else options["tag"] or DERIVED,
        revision=MAIN if options["revision"] is None else options["revision"],
        propose=options["create_pr"],
        public_staging=not options["no_public_staging"],
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


def _confirm(order: Any, url: str) -> None:
    """Ask, before hours of work, whether others shall see what they make."""
    target = order.target
    if target.private or order.manner.propose:
        return
    opened = "open to everybody" if target.gate == "off" else f"visible to everybody, gated ({target.gate})"
    if not click.confirm(f"{url} will be {opened}. Go on?", err=True):
        raise PublisherError("Nothing was started.", hint="Answer y, give --yes, or keep it hidden with --private.")


def _confirm_changes(output: Output, intended: dict[str, Any]) -> None:
    """Show what an update changes of what users see, and ask."""
    if not intended["changed"] or intended["problems"]:  # the push refuses problems, all of them at once
        return
    for line in intended["changed"]:
        output.line(line)
    if not click.confirm("Publish these changes?", err=True):
        raise PublisherError("Nothing was changed.", hint="Answer y, or give --yes.")


def _print_record(output: Output, record: dict[str, Any]) -> None:
    output.data(record)
    if not record["released"]:
        again = shlex.join(["publisher", *(word for word in sys.argv[1:] if word != "--create-pr")])
        output.say(f"proven, not merged: {record['pull_request']}", "bold green")
        output.say("  merge it by the same command without --create-pr, which looks at it again:")
        output.line(f"  {again}")
        return
    output.say(f"published and verified: {record['url']} ({record['visibility']}, gate {record['gate']})", "bold green")
    tag = f", tag {record['tag']}" if record["tag"] else ""
    output.say(
        f"  {record['files']} files, {format_bytes(record['bytes'])}, root digest {record['root_digest']}; "
        f"{len(record['sent'])} sent now{tag}"
    )


def _print_intention(output: Output, intended: dict[str, Any]) -> None:
    output.data(intended)
    output.say(f"now: {intended['current'] or 'no such repository'}; afterwards: {intended['wanted']}")
    for line in intended["changed"]:
        output.line(f"  {line}")
    for name, paths in intended["groups"].items():
        output.line(f"send {name}: {_named(paths)}")
    if intended["remove"]:
        output.line(f"remove: {_named(intended['remove'])}")
    output.say("what would be asked, in order:" if intended["requests"] else "nothing would be asked")
    for number, act in enumerate(intended["requests"], 1):
        output.line(f"  {number}. {' — '.join(filter(None, (act['request'], act['does'])))}")
    output.say(f"{format_bytes(intended['bytes'])} would be sent; nothing was changed")
    for problem in intended["problems"]:
        output.say(f"problem: {problem['message']} {problem['hint']}", "red")


def _named(paths: list[str]) -> str:
    """A list that fits a screen."""
    more = f" and {len(paths) - SHOWN:,} more" if len(paths) > SHOWN else ""
    return ", ".join(paths[:SHOWN]) + more if paths else "nothing, it is there"
