"""What goes together in the form: engine, layout, mode, activations and KV cache, each under what stands before it.

The page has no table of its own: a choice is offered when the reader of recipes has nothing against it, asked with the
files an engine would need. What was chosen stays as long as it is offered; else the recipe's own default takes over.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from publisher import jsonio
from publisher.plan.recipe import DEFAULT_LAYOUT, recipe_from_mapping

FOLLOWING = ("engine", "layout", "mode", "activations", "kv_cache")
DEFAULT = {"activations": "by default"}  # what may be left to the recipe, and what to call that
# What an engine would have to be given; which of them is not for the choice to say.
GIVEN: tuple[dict[str, Any], ...] = (
    {},
    {"statistics": "measured.safetensors"},
    {"calibration": {"data": "text.jsonl"}},
)
WORDS = {
    "engine": {"native": "native · streams, any size", "modelopt": "modelopt · whole model in memory"},
    "mode": {
        "max": "max · largest weight",
        "mse": "mse · least squared error",
        "four-over-six": "four-over-six · 6 or 4",
        "floor": "floor · rounded down",
        "ceil": "ceil · rounded up",
        "ceil6": "ceil6 · clips nothing",
        "even": "even · rounded",
    },
    "activations": {
        "calibrated": "calibrated · stored",
        "dynamic": "dynamic · when serving",
        "none": "none · weight-only",
    },
    "kv_cache": {"fp8": "fp8 · calibrated scales", "fp8-cast": "fp8-cast · scale 1"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One field's choices and which is chosen.

    Args:
        offered: what is shown and what it stands for.
        value: the chosen one, of those offered.
    """

    offered: tuple[tuple[str, str], ...]
    value: str


def settle(number_format: str, chosen: Mapping[str, str]) -> dict[str, Choice]:
    """Choices for every field of `FOLLOWING`, each under the format and the fields before it.

    Args:
        number_format: nvfp4 or mxfp4.
        chosen: field to what is chosen so far; one that is not offered gives way.
    """
    settled: dict[str, str] = {"format": number_format}
    result = {}
    for field in FOLLOWING:
        values = offered(field, tuple(settled.items()))
        value = chosen.get(field, "")
        value = value if value in values else values[0]
        words = {"": DEFAULT.get(field, ""), **WORDS.get(field, {})}
        result[field] = Choice(offered=tuple((words.get(one, one), one) for one in values), value=value)
        if value and field in ("engine", "layout"):  # the others do not bind one another
            settled[field] = value
    return result


@functools.cache
def offered(field: str, settled: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """What a field can be beside what is settled, the recipe's own default first."""
    named: list[str] = jsonio.data("schemas/recipe.schema.json")["properties"][field]["enum"]
    found = [value for value in named if _reads({**dict(settled), field: value})]
    default = {"layout": DEFAULT_LAYOUT[dict(settled)["format"]], "kv_cache": "none"}.get(field)
    found.sort(key=lambda value: value != default)
    return ("", *found) if field in DEFAULT else tuple(found)


def _reads(keys: Mapping[str, str]) -> bool:
    """Whether the reader of recipes takes these together, whatever files it wants for them."""
    whole = {"name": "choice", "source": "hf://org/name", "quantize": ["*"], **keys}
    for given in GIVEN:
        try:
            recipe_from_mapping({**whole, **given}, Path(os.sep), "The choice")
        except jsonio.DocumentError:
            continue
        return True
    return False
