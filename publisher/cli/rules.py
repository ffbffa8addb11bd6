"""`publisher rules`: every rule with its cost, severity and precedent; one of them explained."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import click

from publisher.cli import parameters
from publisher.cli.output import Output, format_option
from publisher.errors import PublisherError

COLUMNS = ("code", "slug", "severity", "reads", "summary")


@click.command(
    "rules",
    epilog="Examples: publisher rules   publisher rules list SV   publisher rules explain nan-block-scale",
)
@parameters(
    click.argument("action", type=click.Choice(["list", "explain"]), default="list"),
    click.argument("names", nargs=-1, metavar="[CODE|SLUG]..."),
    format_option,
)
def command(action: str, names: tuple[str, ...], form: str) -> None:
    """List the rules, all or those named, or explain some: why, how to fix it, where it was seen, who breaks.

    A family is named by its letters, such as SV. The format quiet prints codes, one a line.
    """
    from publisher import catalogue, rules

    output = Output(form)
    if action == "list":
        codes = rules.chosen(names)
        _list(output, [row for row in catalogue.table() if row["code"] in codes])
        return
    if not names:
        raise PublisherError("No rule is named.", hint="Write publisher rules explain CODE.")
    rows = [_row(name) for name in names]
    output.data(rows[0] if len(rows) == 1 else rows)
    for number, row in enumerate(rows):
        if number:
            output.say("")
        _explain(output, row)


def _list(output: Output, rows: Sequence[dict[str, Any]]) -> None:
    output.data(rows)
    output.table(COLUMNS, [[row[name] for name in COLUMNS] for row in rows])
    if output.form == "quiet":
        for row in rows:
            click.echo(row["code"])


def _row(name: str) -> dict[str, Any]:
    """The rule with this code or slug.

    Raises:
        PublisherError: there is none; near ones are named.
    """
    from publisher import catalogue

    table = catalogue.table()
    for row in table:
        if name.upper() == row["code"] or name.lower() == row["slug"]:
            return row
    known = [word for row in table for word in (row["code"], row["slug"])]
    near = [*difflib.get_close_matches(name.lower(), known, 2), *difflib.get_close_matches(name.upper(), known, 1)]
    hint = f"Near it: {', '.join(dict.fromkeys(near))}." if near else "`publisher rules` lists them."
    raise PublisherError(f"There is no rule {name[:60]!r}.", hint=hint)


def _explain(output: Output, row: dict[str, Any]) -> None:
    output.say(f"{row['code']} {row['slug']}", "bold")
    output.say(f"{row['severity']}, {row['family'].lower()}; {_cost(row)}")
    output.say("")
    output.say(row["summary"])
    for name in ("why", "fix", "seen"):
        if row[name]:
            output.say(f"{name.capitalize()}: {row[name]}")
    wrong = [engine for engine in row["engines"] if engine not in row["refused_by"]]
    for verb, engines in (("Refuses to load", row["refused_by"]), ("Loads and computes wrong", wrong)):
        if engines:
            output.say(f"{verb}: {', '.join(engines)}")
    output.say(f"Check it alone: publisher validate PATH --select {row['code']}", "dim")
    output.say(f"Waive it: publisher validate PATH --ignore '{row['code']}=why it is right here'", "dim")


def _cost(row: dict[str, Any]) -> str:
    """What the rule must be given, and at which level it looks."""
    from publisher.rules import load_rules
    from publisher.subjects import KINDS

    kind = KINDS[load_rules()[row["code"]].evidence]
    needs = [f"at --level {kind.level}"] if kind.level != "headers" else ["at every level"]
    needs += ["with --source"] if kind.source else []
    needs += ["with a model card"] if kind.card else []
    return f"reads {row['reads']}, {', '.join(needs)}"
