"""Whether the statistics a recipe names are those of what it quantizes, before anything is downloaded or started.

The engine asks the same once more of the file it reads. Whole stacks of experts have one input scale made of all their
experts' and are left to it. Statistics of another commit of the source are told and do not stop a plan.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from publisher.checkpoint import statistics
from publisher.checkpoint.experts import STACKS
from publisher.checkpoint.statistics import Statistics
from publisher.errors import CheckpointError
from publisher.formats.fp8 import BESIDE
from publisher.plan.model import Decision, Plan
from publisher.plan.obstacles import by_class
from publisher.plan.sparsity import prunable, pruned

_AGAIN = "Calibrate this source again, or correct `statistics` in the recipe."


def misfits(plan: Plan) -> Iterator[tuple[str, str, bool]]:
    """What the file of statistics lacks: message, hint, and whether the plan cannot be carried out with it.

    Args:
        plan: its recipe may name statistics; a file that is not there is none of this module's business.
    """
    path = plan.recipe.statistics
    if path is None or not path.is_file() or not path.stat().st_size:
        return
    try:
        seen = statistics.read(path)
        _ranges(plan, seen)
    except CheckpointError as error:
        yield error.message, error.hint, True
        return
    without = sorted(name for name in _weighed(plan, seen) if seen.mean_squares.length(name) is None)
    if without:
        yield f"{path} has no mean squares of {by_class(without)}.", f"Say --second-moments. {_AGAIN}", True
    measured = seen.metadata.get("source_commit")
    if measured and plan.source_commit and measured != plan.source_commit:
        yield f"{path} was measured on commit {measured[:40]}, the source is at {plan.source_commit}.", _AGAIN, False


def _ranges(plan: Plan, seen: Statistics) -> None:
    if plan.recipe.activations != "calibrated":
        return
    beside = BESIDE.get(plan.recipe.layout)
    asked = [d for d in plan.quantized if (d.format is None or (beside and beside.inputs)) and not _is_stack(d)]
    groups: dict[str, list[str]] = defaultdict(list)
    for decision in asked:
        if decision.group:
            groups[decision.group].append(decision.module)
    statistics.input_ranges(seen, [decision.module for decision in asked], groups)


def _is_stack(decision: Decision) -> bool:
    parent, _, last = decision.module.rpartition(".")
    return last in STACKS and parent.rpartition(".")[2] == "experts"


def _weighed(plan: Plan, seen: Statistics) -> Iterator[str]:
    """The modules whose pruning weighs by mean squares; those no token reached are pruned by magnitude."""
    if plan.recipe.sparsity is None or plan.recipe.sparsity.choose != "hessian":
        return
    for name in pruned(plan.recipe, prunable(plan.decisions)):
        if name not in seen.modules or seen.modules[name].tokens:
            yield name
