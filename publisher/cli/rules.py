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
    registry = rules.load_rules()
    if action == "list":
        output.data([rule.to_json() for rule in registry.values()])
        output.table(
            ("code", "slug", "severity", "needs", "what it finds"),
            [(r.code, r.slug, str(r.severity), r.needs, r.summary) for r in registry.values()],
        )
        return
    rule = registry.get((code or "").upper())
    if rule is None:
        raise PublisherError(f"There is no rule {code!r}.", hint="`publisher rules` lists them.")
    output.data(rule.to_json())
    output.say(f"{rule.code} {rule.slug} ({rule.severity}, needs {rule.needs})", "bold")
    for name, text in (("", rule.summary), ("Why: ", rule.why), ("Fix: ", rule.fix), ("Seen: ", rule.seen)):
        if text:
            output.say(name + text)
    if rule.engines:
        output.say("Breaks: " + ", ".join(rule.engines))
