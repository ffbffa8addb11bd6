"""A plan as rows of strings, for the command line and the pages alike; nothing is printed here."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from publisher.plan.model import ClassSummary, Plan
from publisher.units import format_bytes

COLUMNS = ("modules", "count", "role", "shape", "action", "decided by", "before", "after")


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One class of modules, ready to print; the fields are `COLUMNS` in order."""

    pattern: str
    modules: int
    role: str
    shape: str
    action: str
    decided_by: str
    before: str
    after: str

    def cells(self) -> tuple[str, ...]:
        """The row as strings in the order of `COLUMNS`."""
        return (
            self.pattern,
            f"{self.modules:,}",
            self.role,
            self.shape,
            self.action,
            self.decided_by,
            self.before,
            self.after,
        )


def plan_table(plan: Plan) -> list[PlanRow]:
    """One row a class: what is quantized first, each by name."""
    ordered = sorted(plan.classes, key=lambda item: (item.action != "quantize", item.pattern))
    return [_row(item) for item in ordered]


def _row(item: ClassSummary) -> PlanRow:
    return PlanRow(
        pattern=item.pattern,
        modules=item.modules,
        role=item.role.replace("_", " "),
        shape="×".join(map(str, item.shape)) if item.shape else "various",
        action=item.action,
        decided_by=item.decided_by,
        before=format_bytes(item.bytes_before),
        after=format_bytes(item.bytes_after),
    )


def plan_facts(plan: Plan) -> list[tuple[str, str]]:
    """Label and value of what a plan amounts to."""
    ratio = plan.bytes_after / plan.bytes_before if plan.bytes_before else 1.0
    recipe = plan.recipe
    return [
        ("source", plan.source_label),
        ("format", f"{recipe.format} in {recipe.layout} layout, mode {recipe.mode}{_beside(plan)}"),
        ("engine", recipe.engine),
        ("activations", recipe.activations),
        ("KV cache", recipe.kv_cache),
        ("modules", f"{len(plan.quantized):,} quantized, {len(plan.kept):,} kept"),
        ("tensor bytes", f"{format_bytes(plan.bytes_before)} → {format_bytes(plan.bytes_after)} ({ratio:.0%})"),
        ("shards", f"{plan.shards:,}"),
        ("exclude list", f"{len(plan.exclude):,} entries"),
        ("disk needed", format_bytes(plan.disk_needed)),
        ("memory needed", format_bytes(plan.memory_needed)),
    ]


def _beside(plan: Plan) -> str:
    """The formats some modules get instead, with how many."""
    counts = Counter(decision.format for decision in plan.quantized if decision.format)
    return "".join(f"; {form} for {count:,} modules" for form, count in counts.items())
