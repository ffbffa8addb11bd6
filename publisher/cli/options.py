"""Options that several verbs share, and how they become an order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from publisher.errors import PublisherError

if TYPE_CHECKING:
    from publisher.pipeline import Order

RECIPE = click.argument("recipe", type=click.Path(path_type=Path))

run_dir_option = click.option(
    "--run-dir", type=click.Path(path_type=Path), help="Where the run keeps its files  [default: .publisher/runs/…]"
)
device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda:N, or all GPUs.")
workers_option = click.option(
    "--workers",
    type=click.IntRange(1, 64),
    help="Processes that quantize (engine native)  [default: chosen by cores, memory and work; a GPU has one]",
)
on_nan_option = click.option(
    "--on-nan",
    type=click.Choice(["refuse", "keep"]),
    default="refuse",
    show_default=True,
    help="Weights with NaN or infinities: refuse, or keep their layers unquantized (reads all weights first).",
)
ignore_option = click.option(
    "--ignore", "waivers", multiple=True, metavar="CODE=REASON", help="Waive a rule; the reason is published."
)
level_option = click.option(
    "--level", type=click.Choice(["headers", "scales", "full"]), help="How much of the tensors to read."
)


def parse_waivers(values: tuple[str, ...]) -> dict[str, str]:
    """`CODE=reason` pairs as a mapping.

    Raises:
        PublisherError: one has no reason.
    """
    found: dict[str, str] = {}
    for value in values:
        code, _, reason = value.partition("=")
        if not code.strip() or not reason.strip():
            raise PublisherError(f"--ignore {value!r} gives no reason.", hint="Write --ignore 'CN06=why it is right'.")
        found[code.strip().upper()] = reason.strip()
    return found


def recipe_order(recipe: Path, waivers: tuple[str, ...] = (), device: str = "auto", **changes: Any) -> Order:
    """The order a recipe file makes."""
    from publisher.pipeline import Order
    from publisher.plan.recipe import load_recipe

    loaded = load_recipe(recipe)
    order = Order(recipe=loaded, target=loaded.target, waivers=parse_waivers(waivers), device=device)
    return replace(order, **changes)
