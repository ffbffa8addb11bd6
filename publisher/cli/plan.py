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
@parameters(
    RECIPE,
    run_dir_option,
    click.option("--scan", "scanned", is_flag=True, help="Also read the weights: all-zero, NaN and infinite ones."),
    format_option,
)
def command(recipe: Path, run_dir: Path | None, scanned: bool, form: str) -> None:
    """Say what RECIPE would do, module by module, and refuse what cannot work.

    Reads headers and configuration only, a Hub source is not downloaded; --scan reads every weight to be quantized.
    """
    from publisher import pipeline
    from publisher.errors import PublisherError
    from publisher.journal import Event, Journal
    from publisher.plan.notices import notices
    from publisher.plan.preflight import preflight
    from publisher.plan.render import COLUMNS, plan_facts, plan_table
    from publisher.plan.scan import scan, sentences, weights_of

    output = Output(form)
    with Display(output) as display:
        prepared = pipeline.prepare(recipe_order(recipe), journal=Journal(None, display))
        plan, original = prepared.plan, prepared.original
        if plan is None:
            return

        def progress(done: int, total: int) -> None:
            display(Event(stage="plan", kind="progress", payload={"done": done, "total": total, "unit": "bytes"}))

        dead = list(sentences(scan(original, weights_of(plan, original), progress=progress))) if scanned else []
    terms, advice = pipeline.licence_advice(prepared)
    facts = list(notices(plan, original))
    lacks = preflight(plan, run_dir or prepared.default_directory)
    machine = [{"kind": lack.kind, "message": lack.message, "hint": lack.hint, "fatal": lack.fatal} for lack in lacks]
    document = {**plan.to_json(), "run_dir": str(run_dir or prepared.default_directory), "machine": machine}
    document |= {"notices": dict(facts), "licence": [*terms.warnings, *advice], "scan": dead if scanned else None}
    output.data(document)
    output.table(COLUMNS, [row.cells() for row in plan_table(plan)], title=f"{plan.recipe.name}: {plan.source_label}")
    output.table(("", ""), [*plan_facts(plan), *facts, ("licence", terms.title)])
    output.say(f"exclude list as written: {', '.join(plan.exclude) or 'empty'}")
    for warning in (*plan.warnings, *terms.warnings, *advice):
        output.say(f"warning: {warning}", "yellow")
    for lack in lacks:
        output.say(f"this machine: {lack.message} {lack.hint}", "red" if lack.fatal else "yellow")
    if dead:
        raise PublisherError(" ".join(f"{sentence}." for sentence in dead), hint="Nothing was started.")
    pipeline.require_plan(plan)
    pipeline.require_words(prepared)
    where = ", once nothing of the above is in its way" if any(lack.fatal for lack in lacks) else ""
    output.say(f"next: publisher push {recipe}{where}", "dim")
