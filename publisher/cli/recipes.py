"""`publisher recipes`: ready recipes that follow published checkpoints: listed, shown, written out to be edited."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from publisher.cli import parameters
from publisher.cli.output import Output, format_option
from publisher.errors import PublisherError

COLUMNS = ("name", "format", "layout", "what", "follows")


@click.group("recipes", epilog="Example: publisher recipes write kimi-k2.6-nvfp4 --source ./Kimi-K2.6 > recipe.yaml")
def command() -> None:
    """List the ready recipes, show one, or write one out with your source in it.

    Each follows a published checkpoint and says what its card says, what is ours and what is not known. Each
    subcommand takes --format.
    """


@command.command("list")
@format_option
def list_recipes(form: str) -> None:
    """List the ready recipes; the format quiet prints their names, one a line."""
    from publisher.plan.library import ready_recipes

    output, found = Output(form), ready_recipes().values()
    documents = {ready.name: ready.document for ready in found}
    output.data([_row(ready, documents[ready.name]) for ready in found])
    rows = [[r.name, *(documents[r.name][key] for key in ("format", "layout")), r.title, r.repository] for r in found]
    output.table(COLUMNS, rows)
    for ready in found:
        if output.form == "quiet":
            click.echo(ready.name)
    output.say("next: publisher recipes show NAME", "dim")


@command.command("show")
@click.argument("name")
@format_option
def show(name: str, form: str) -> None:
    """Print the ready recipe NAME as it is, comments included."""
    from publisher.plan.library import ready_recipe

    output, ready = Output(form), ready_recipe(name)
    output.data({**_row(ready, ready.document), "text": ready.text})
    if output.form != "json":
        click.echo(ready.text, nl=False)


@command.command(
    "write", epilog="Example: publisher recipes write kimi-k2.6-mxfp4 --source hf://moonshotai/Kimi-K2.6 > recipe.yaml"
)
@parameters(
    click.argument("name"),
    click.option("--source", help="The model: a folder or hf://org/name[@revision].  [default: the published one's]"),
    click.option("--statistics", help="What `publisher calibrate` wrote.  [default: beside the recipe]"),
    click.option("--name", "called", help="Name of the run.  [default: NAME]"),
    click.option("--repo", metavar="ORG/NAME", help="The repository to publish to, behind a gate opened by hand."),
    click.option("--card", help="card.toml: what only a person can say."),
    click.option("--output", type=click.Path(path_type=Path), help="Write this new file instead of printing."),
)
def write(
    name: str,
    source: str | None,
    statistics: str | None,
    called: str | None,
    repo: str | None,
    card: str | None,
    output: Path | None,
) -> None:
    """Write the ready recipe NAME out as a recipe of your own, to be edited and run.

    Paths given here are taken from where you are and written out in full.
    """
    from publisher import jsonio
    from publisher.plan.library import ready_recipe, written

    ready = ready_recipe(name)
    changes: dict[str, Any] = {"name": called, "source": _place(source), "statistics": _place(statistics)}
    changes |= {"card": _place(card), "target": {"repo": repo, "gate": "manual"} if repo else None}
    if statistics and "statistics" not in ready.document:
        raise PublisherError(f"{name} does not use statistics.", hint="Leave --statistics away.")
    text = written(ready, {key: value for key, value in changes.items() if value is not None})
    if output is None:
        click.echo(text, nl=False)
        return
    if output.exists():
        raise PublisherError(f"{output} is there already.", hint="Name another file, or remove it first.")
    jsonio.write_atomic(output, text)
    Output("human").say(f"wrote {output}; next: publisher plan {output}")


def _place(given: str | None) -> str | None:
    """A path in full, so that it means the same wherever the recipe lies; a repository as it is."""
    if given is None or "://" in given:
        return given
    return os.path.abspath(os.path.expanduser(given))


def _row(ready: Any, document: dict[str, Any]) -> dict[str, Any]:
    facts = {key: getattr(ready, key) for key in ("name", "title", "repository", "base_model", "modules", "gigabytes")}
    return {**facts, "recipe": document}
