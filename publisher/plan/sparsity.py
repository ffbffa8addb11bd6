"""What a recipe's `sparsity` comes to: which of the quantized modules are pruned, and how the result says so.

The statement stands in config.json under `sparsity`, beside the quantization block and not in it: engines pass over a
key they do not know there, while a `sparsity_config` with targets stops vLLM, and compressed-tensors announces to
refuse unknown keys of its block. The weights are stored densely, so an engine needs to know nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from publisher.matching import Globs
from publisher.plan.matrix import Matrix
from publisher.plan.model import QUANTIZE, Decision, Recipe
from publisher.plan.obstacles import by_class

KEY = "sparsity"  # of config.json
DENSE = "dense"


def pruned(recipe: Recipe, quantized: Iterable[str]) -> tuple[str, ...]:
    """Those of the quantized modules that are pruned, in their order."""
    if recipe.sparsity is None:
        return ()
    globs = Globs(recipe.sparsity.modules)
    return tuple(name for name in quantized if globs.first_match(name) is not None)


def statement(recipe: Recipe) -> dict[str, Any] | None:
    """What config.json says of it; None where nothing is pruned."""
    if recipe.sparsity is None:
        return None
    return {"pattern": recipe.sparsity.pattern, "storage": DENSE, "modules": list(recipe.sparsity.modules)}


def prunable(decisions: Iterable[Decision]) -> tuple[str, ...]:
    """The modules that get the recipe's own format; those in FP8 beside it are not pruned."""
    return tuple(d.module for d in decisions if d.action == QUANTIZE and d.format is None)


def problems(recipe: Recipe, matrices: Sequence[Matrix], decisions: Sequence[Decision]) -> Iterator[str]:
    """Patterns that reach nothing that is quantized, and modules that are not pruned one by one."""
    if recipe.sparsity is None:
        return
    names = prunable(decisions)
    for pattern in Globs(recipe.sparsity.modules).unused(names):
        yield f"the sparsity pattern {pattern!r} matches none of the modules to be quantized; correct it"
    chosen = frozenset(pruned(recipe, names))
    odd = [m.name for m in matrices if m.name in chosen and (m.experts or _taken_over(recipe, m))]
    if odd:
        yield (
            f"{by_class(odd)} would be pruned, but stay experts in one tensor or have their codes taken over as they "
            "are; leave them out of `sparsity.modules`, or choose a layout or a format that stores them one by one"
        )


def _taken_over(recipe: Recipe, matrix: Matrix) -> bool:
    stored = matrix.fused or matrix.encoded
    return stored is not None and stored.form == recipe.format


def warnings(recipe: Recipe, quantized: Iterable[str]) -> Iterator[str]:
    """What pruning costs, said before it is done."""
    count = len(pruned(recipe, quantized))
    if recipe.sparsity is not None and count:
        yield (
            f"half of the weights of {count:,} modules are set to zero ({recipe.sparsity.pattern}, by "
            f"{recipe.sparsity.choose}); that costs accuracy unless the model was trained for it, and saves nothing "
            "in this file or in today's engines"
        )
