"""`publisher rules`: every rule with its cost, severity and precedent."""

from __future__ import annotations

import click

from publisher.cli import parameters
from publisher.cli.output import Output, format_option
from publisher.errors import PublisherError


@click.command("rules", epilog="Examples: publisher rules   publisher rules explain SV01")
@parameters(
    click.argument("action", type=click.Choice(["list", "explain"]), default="list"),
    click.argument("code", required=False),
    format_option,
)
def command(action: str, code: str | None, form: str) -> None:
    """List the rules, or explain one: why it matters, how to fix it, where it was seen."""
    from publisher import rules

    output = Output(form)
    table = rules.table()
    if action == "list":
        output.data(table)
        columns = ("code", "slug", "severity", "reads", "summary")
        output.table(columns, [[row[name] for name in columns] for row in table])
        return
    rule = next((row for row in table if row["code"] == (code or "").upper()), None)
    if rule is None:
        raise PublisherError(f"There is no rule {code!r}.", hint="`publisher rules` lists them.")
    output.data(rule)
    output.say(f"{rule['code']} {rule['slug']} ({rule['severity']}, reads {rule['reads']})", "bold")
    output.say(rule["summary"])
    for name in ("why", "fix", "seen"):
        if rule[name]:
            output.say(f"{name.capitalize()}: {rule[name]}")
    if rule["engines"]:
        output.say("Breaks: " + ", ".join(rule["engines"]))
