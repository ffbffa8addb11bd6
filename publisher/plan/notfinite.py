"""Weights that hold NaN or infinities, kept in the source's precision: which modules that makes, and the recipe for it.

One such value spreads over its block or its tensor, so a module that holds one is not quantized. What an engine loads
as one layer is kept or quantized whole, so its fused partners are kept with it, and of a layer of experts all of them.
The plan made from the changed recipe declares just that: the exclude list follows the decisions, as always.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from publisher.checkpoint.open import Checkpoint
from publisher.plan.model import Plan, Recipe
from publisher.plan.proof import moe_module
from publisher.plan.scan import scan, weights_of


def not_finite(
    plan: Plan, checkpoint: Checkpoint, *, progress: Callable[[int, int], None] | None = None
) -> dict[str, int]:
    """The modules to quantize whose weights, or their scales where they are stored in INT4 or FP8, are not all finite.

    Args:
        plan: what would be quantized.
        checkpoint: the source; every weight to be quantized is read once.
        progress: called with (bytes read, bytes in all).

    Returns:
        Module to how many values are NaN or infinite, in name order.
    """
    found: dict[str, int] = {}
    for flaw in scan(checkpoint, weights_of(plan, checkpoint), progress=progress):
        if flaw.kind != "zero":
            module = flaw.tensor.rpartition(".")[0]
            found[module] = found.get(module, 0) + flaw.count
    return dict(sorted(found.items()))


def kept_whole(plan: Plan, modules: Iterable[str]) -> tuple[str, ...]:
    """These modules with all that engines load as one layer with them, in name order.

    A tensor that holds all experts of a layer is named as the layer, and does not tell which of them is meant.
    """
    asked = set(modules)
    groups = {decision.group for decision in plan.quantized if decision.group and decision.module in asked}
    layers = {moe_module(name) or name for name in asked}
    return tuple(
        sorted(
            decision.module
            for decision in plan.quantized
            if decision.module in asked or decision.group in groups or moe_module(decision.module) in layers
        )
    )


def without(recipe: Recipe, modules: Iterable[str]) -> Recipe:
    """The recipe that keeps these modules too, by their names."""
    return replace(recipe, keep=(*recipe.keep, *modules))
