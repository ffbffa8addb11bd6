"""`publisher plan`: what a recipe would do, before any work starts."""

from __future__ import annotations

from pathlib import Path

import click

from publisher.cli import parameters
from publisher.cli.options import RECIPE, recipe_order, run_dir_option
from publisher.cli.output import Display, Output, format_option, size


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
    from publisher.plan import preflight
    from publisher.plan.render import plan_table

    output = Output(form)
    with Display(output) as display:
        prepared = pipeline.prepare(recipe_order(recipe), journal=Journal(None, display))
    plan = prepared.plan
    if plan is None:
        return
    machine = preflight.check(plan, run_dir or prepared.default_directory)
    output.data({**plan.to_json(), "run_dir": str(run_dir or prepared.default_directory), "machine": machine})
    rows = plan_table(plan)
    output.table(rows.columns, rows.rows, title=f"{plan.recipe.name}: {plan.source_label}")
    ratio = plan.bytes_before / max(plan.bytes_after, 1)
    output.say(
        f"{size(plan.bytes_before)} become {size(plan.bytes_after)} ({ratio:.2f}x smaller) in {plan.shards} shard(s); "
        f"disk needed {size(plan.disk_needed)}, memory about {size(plan.memory_needed)}"
    )
    output.say(f"exclude list: {', '.join(plan.exclude) or 'empty'}")
    for warning in plan.warnings:
        output.say(f"warning: {warning}", "yellow")
    for sentence in machine:
        output.say(f"this machine: {sentence}", "yellow")
    pipeline.require_plan(plan)
    output.say(f"next: publisher push {recipe}", "dim")
