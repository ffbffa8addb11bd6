"""What a checkpoint says of pruned weights: the pattern, how the zeros were chosen, how they are stored.

Three places speak of it: `sparsity` of config.json, which this program writes; `sparsity_config` of a
compressed-tensors block; and the recipe, which alone knows how the zeros were chosen. Where none does, nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from publisher.card.value import Row, Value, count
from publisher.checkpoint.open import Checkpoint
from publisher.plan.model import QUANTIZE, Plan
from publisher.plan.sparsity import KEY, pruned

CHOSEN = {
    "magnitude": "the smallest pairs of each eight weights, by magnitude",
    "hessian": "the pairs whose loss changes the output least, by magnitude weighted with the inputs' mean squares",
}
PAIRED = "paired-4:8"
MEANINGS = {
    PAIRED: "of every 8 weights along the input, 2 of the 4 neighbouring pairs are zero",
    "2:4": "of every 4 weights along the input, 2 are zero",
}
SPARSE = (
    "sparsely: the kept pairs and where they were; no serving engine loads this form, `publisher convert --to dense` "
    "gives back the one engines load"
)
DENSE = "densely: zeros are FP4 zero codes in the packed weights, so the file is as large as without pruning"


def sparsity_rows(checkpoint: Checkpoint, plan: Plan | None) -> tuple[Row, ...]:
    """Rows of the card; empty where nothing speaks of pruning."""
    return tuple(_rows(checkpoint, plan))


def pattern_of(checkpoint: Checkpoint, plan: Plan | None) -> str | None:
    """The pattern's name; None where nothing is pruned."""
    return _told(checkpoint, plan)[0]


def _told(checkpoint: Checkpoint, plan: Plan | None) -> tuple[str | None, str, str, str]:
    """Pattern, storage, where it says so, and what it is about."""
    own = checkpoint.config.get(KEY)
    if isinstance(own, Mapping) and isinstance(own.get("pattern"), str):
        modules = own.get("modules")
        about = ", ".join(m for m in modules if isinstance(m, str)) if isinstance(modules, list) else ""
        return own["pattern"], _word(own.get("storage")), f"config.json: {KEY}", about
    declared = _compressed(checkpoint)
    if declared is not None:
        targets = declared.get("targets")
        about = ", ".join(t for t in targets if isinstance(t, str)) if isinstance(targets, list) else ""
        pattern, storage = declared["sparsity_structure"], _word(declared.get("format"))
        return pattern, storage, "config.json: quantization_config.sparsity_config", about
    if plan is not None and plan.recipe.sparsity is not None:
        return plan.recipe.sparsity.pattern, "dense", "recipe.yaml: sparsity", ", ".join(plan.recipe.sparsity.modules)
    return None, "", "", ""


def _compressed(checkpoint: Checkpoint) -> Mapping[str, Any] | None:
    quant = checkpoint.quant
    declared = quant.body.get("sparsity_config") if quant is not None else None
    if not isinstance(declared, Mapping) or not isinstance(declared.get("sparsity_structure"), str):
        return None
    return declared if declared["sparsity_structure"] not in ("", "unstructured", "0:0") else None


def _word(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _rows(checkpoint: Checkpoint, plan: Plan | None) -> Iterator[Row]:
    pattern, storage, origin, about = _told(checkpoint, plan)
    if pattern is None:
        return
    meaning = MEANINGS.get(pattern)
    yield Row("Sparsity", Value(f"{pattern}: {meaning}" if meaning else pattern, origin))
    asked = plan.recipe.sparsity if plan is not None else None
    if plan is not None and asked is not None:
        names = pruned(plan.recipe, (d.module for d in plan.decisions if d.action == QUANTIZE))
        text = f"{count(len(names))} modules ({', '.join(asked.modules)})"
        yield Row("Pruned", Value(text, "plan.json, recipe.yaml: sparsity"))
        how = CHOSEN.get(asked.choose, asked.choose)
        yield Row("How the zeros were chosen", Value(how, "recipe.yaml: sparsity.choose"))
    elif about:
        yield Row("Pruned", Value(about, origin))
    if storage:
        told = {"dense": DENSE, "sparse": SPARSE}.get(storage, f"compressed ({storage}): zeros are not stored")
        yield Row("Stored", Value(told, origin))
