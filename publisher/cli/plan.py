"""`publisher plan`: what a recipe would do, before any work starts."""

from __future__ import annotations

from pathlib import Path

import click

from publisher.cli import parameters
from publisher.cli.options import RECIPE, recipe_order, run_dir_option
from publisher.cli.output import Display, Output, format_option


@click.command(
    "plan",
    epilog="Example: publisher plan recipe.yaml --format json | jq .classes",
)
@parameters(RECIPE, run_dir_option, format_option)
def command(recipe: Path, run_dir: Path | None, form: str) -> None:
    """Say what RECIPE would do, module by module, and refuse what cannot work.

    Reads headers and configuration only: a Hub source is not downloaded.
    """
    from publisher import pipeline
    from publisher.journal import Journal
    from publisher.plan.preflight import preflight
    from publisher.plan.render import COLUMNS, plan_facts, plan_table

    output = Output(form)
    with Display(output) as display:
        prepared = pipeline.prepare(recipe_order(recipe), journal=Journal(None, display))
    plan = prepared.plan
    if plan is None:
        return
    lacks = preflight(plan, run_dir or prepared.default_directory)
    machine = [{"kind": lack.kind, "message": lack.message, "hint": lack.hint, "fatal": lack.fatal} for lack in lacks]
    output.data({**plan.to_json(), "run_dir": str(run_dir or prepared.default_directory), "machine": machine})
    output.table(COLUMNS, [row.cells() for row in plan_table(plan)], title=f"{plan.recipe.name}: {plan.source_label}")
    output.table(("", ""), plan_facts(plan))
    output.say(f"exclude list as written: {', '.join(plan.exclude) or 'empty'}")
    for warning in plan.warnings:
        output.say(f"warning: {warning}", "yellow")
    for lack in lacks:
        output.say(f"this machine: {lack.message} {lack.hint}", "red" if lack.fatal else "yellow")
    pipeline.require_plan(plan)
    pipeline.require_words(prepared)
    output.say(f"next: publisher push {recipe}", "dim")
