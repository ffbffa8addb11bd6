"""The ready recipes: what published checkpoints were made with, as recipes that can be run.

Each is a YAML file in `publisher/data/recipes` with a comment that says what the published card says, what is ours and
what is not known; `published.json` beside them names the cards. A ready recipe is written out and edited, not named
from another recipe: what a run was made with then stands in one file, whatever version of the publisher reads it.
Refused: a name that is none, a change that makes no recipe.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from publisher import jsonio
from publisher.errors import PublisherError
from publisher.plan.recipe import recipe_from_mapping

FOLDER = jsonio.DATA / "recipes"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyRecipe:
    """One ready recipe.

    Args:
        name: what it is called, and its `name` key.
        title: what it quantizes, in a line.
        repository: the published checkpoint whose card it follows.
        base_model: the repository that one was quantized from.
        modules: matrices that the published checkpoint holds quantized.
        gigabytes: about how large that is, in 10^9 bytes.
        text: the YAML, with its comment.
    """

    name: str
    title: str
    repository: str
    base_model: str
    modules: int
    gigabytes: int
    text: str

    @property
    def document(self) -> dict[str, Any]:
        """The recipe as parsed YAML."""
        found: dict[str, Any] = jsonio.loads_yaml(self.text, self.name)
        return found


def ready_recipes() -> dict[str, ReadyRecipe]:
    """Every ready recipe by name."""
    facts = jsonio.data("recipes/published.json")["recipes"]
    return {
        name: ReadyRecipe(name=name, text=(FOLDER / f"{name}.yaml").read_text("utf-8"), **fact)
        for name, fact in facts.items()
    }


def ready_recipe(name: str) -> ReadyRecipe:
    """The ready recipe of this name.

    Raises:
        PublisherError: there is none; the near ones are named.
    """
    found = ready_recipes()
    if name not in found:
        near = difflib.get_close_matches(name, found, 2, cutoff=0.4)
        raise PublisherError(
            f"There is no ready recipe {name[:60]!r}.",
            hint=f"Near it: {', '.join(near)}." if near else "`publisher recipes` lists them.",
        )
    return found[name]


def written(ready: ReadyRecipe, changes: Mapping[str, str | Mapping[str, Any]]) -> str:
    """The ready recipe's YAML with some of its values changed, or added at its end; comments stay.

    Args:
        ready: which.
        changes: top-level key to value.

    Raises:
        DocumentError: what came of it is no recipe.
    """
    lines = ready.text.rstrip("\n").split("\n")
    for key, value in changes.items():
        place = next((number for number, line in enumerate(lines) if line.startswith(f"{key}:")), len(lines))
        lines[place : place + 1] = jsonio.dump_yaml({key: value}).rstrip("\n").split("\n")
    text = "\n".join([*lines, ""])
    recipe_from_mapping(jsonio.loads_yaml(text, ready.name), Path(os.sep), ready.name)
    return text
