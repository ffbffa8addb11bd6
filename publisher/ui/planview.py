"""A plan, as `publisher plan --format json` prints it, made ready to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from publisher.errors import PublisherError
from publisher.plan.model import ClassSummary, Decision, Plan, Recipe
from publisher.plan.render import PlanRow, plan_facts, plan_table
from publisher.ui import markup
from publisher.ui.markup import Html

SHOWN = 200  # classes; a model has tens
PATTERNS = 40


def read_plan(document: Mapping[str, Any], recipe: Recipe) -> Plan:
    """The plan a JSON document holds.

    Args:
        document: as the command line printed it.
        recipe: what it was asked to plan.

    Raises:
        PublisherError: the document is no plan, because another version printed it.
    """
    try:
        fields = {name: document[name] for name in Plan.__dataclass_fields__ if name != "recipe"}
        fields["decisions"] = tuple(Decision(**row) for row in document["decisions"])
        fields["classes"] = tuple(
            ClassSummary(**{**row, "shape": tuple(row["shape"]) if row["shape"] else None})
            for row in document["classes"]
        )
        fields |= {name: tuple(document[name]) for name in ("exclude", "problems", "warnings")}
        return Plan(recipe=recipe, **fields)
    except (KeyError, TypeError, AttributeError) as error:
        raise PublisherError(
            f"The plan cannot be read: {type(error).__name__} {error}.", hint="Start the page again after an update."
        ) from None


def plan_html(plan: Plan, machine: Sequence[Mapping[str, Any]]) -> Html:
    """The plan on one page: what stands in its way first, then what it amounts to, then every class.

    Args:
        plan: what will happen.
        machine: what this machine lacks, as the command line says; empty where another machine will do it.
    """
    pieces = []
    if plan.problems:
        pieces.append(markup.notice("error", "This plan cannot work", plan.problems, "Change the form and plan again."))
    for lack in machine:
        kind = "error" if lack.get("fatal") else "warning"
        pieces.append(markup.notice(kind, f"This machine: {lack.get('message')}", hint=str(lack.get("hint", ""))))
    if plan.warnings:
        pieces.append(markup.notice("warning", "Worth knowing", plan.warnings))
    pieces.append(_size(plan))
    rows = plan_table(plan)
    pieces.append(
        markup.table(
            ("Modules", "Count", "Shape", "Action", "Size"),
            [_row(row) for row in rows[:SHOWN]],
            caption=f"Every class of modules{'' if len(rows) <= SHOWN else f', the first {SHOWN} of {len(rows)}'}",
            kind="plan",
        )
    )
    pieces.append(markup.details(markup.text("All facts"), markup.facts(plan_facts(plan)), _exclude(plan)))
    return markup.element("div", *pieces, kind="page")


def _row(row: PlanRow) -> list[Html]:
    action = markup.badge("quantize" if row.action == "quantize" else "keep", row.action)
    size = row.before if row.before == row.after else f"{row.before} → {row.after}"
    role = markup.element("span", markup.text(row.role), kind="role")
    return [
        markup.join((markup.code(row.pattern), role)),
        markup.text(f"{row.modules:,}"),
        markup.text(row.shape),
        markup.join((action, markup.element("span", markup.text(row.decided_by), kind="role"))),
        markup.text(size),
    ]


def _size(plan: Plan) -> Html:
    """Before and after as two bars with their numbers."""
    found = dict(plan_facts(plan))
    share = plan.bytes_after / plan.bytes_before if plan.bytes_before else 1.0
    before, _, after = found["tensor bytes"].partition(" → ")
    bars = [_bar("before", before, 1.0), _bar("after", after, min(share, 1.0))]
    tiles = [
        markup.element(
            "div", markup.element("b", markup.text(found[key])), markup.element("span", markup.text(key)), kind="tile"
        )
        for key in ("modules", "shards", "disk needed", "memory needed")
    ]
    return markup.element(
        "div",
        markup.element("div", *bars, kind="bars"),
        markup.element("div", *tiles, kind="tiles"),
        kind="summary",
    )


def _bar(name: str, label: str, share: float) -> Html:
    return markup.element(
        "div",
        markup.element("span", markup.text(name), kind="name"),
        markup.element("span", markup.element("i", style=f"width:{share:.1%}"), kind=f"track {name}"),
        markup.element("span", markup.text(label), kind="value"),
        kind="bar",
    )


def _exclude(plan: Plan) -> Html:
    """The exclude list as it will be written."""
    shown = [markup.code(pattern) for pattern in plan.exclude[:PATTERNS]]
    more = f" and {len(plan.exclude) - PATTERNS:,} more" if len(plan.exclude) > PATTERNS else ""
    written = markup.join(shown, ", ") if shown else markup.text("empty")
    return markup.element("p", markup.text("Exclude list as written: "), written, markup.text(more))
