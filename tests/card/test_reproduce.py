"""How to make it again and how to cite it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from publisher.card.reproduce import citation, reproduce
from publisher.card.upstream import read_upstream
from publisher.plan.model import Plan, Recipe, TargetSpec
from tests.card.conftest import BIBTEX


def test_a_foreign_checkpoint_is_pushed_and_verified(inputs: dict[str, Any]) -> None:
    upstream = read_upstream(inputs["source"], inputs["original"], inputs["person"])
    found = reproduce(None, upstream, "example-lab/X")
    assert found.commands == (
        "publisher push --checkpoint ./checkpoint --source hf://tiny-org/Tiny-1B --repo example-lab/X",
        "publisher verify hf://example-lab/X",
    )
    assert found.recipe is None
    assert len(reproduce(None, upstream, None).commands) == 1


def test_the_recipe_says_what_was_published_and_holds_nothing_that_nobody_else_has(inputs: dict[str, Any]) -> None:
    """An option goes over the recipe's own target; card.toml is not in the repository."""
    upstream = read_upstream(inputs["source"], inputs["original"], inputs["person"])
    target = TargetSpec(repo="example-lab/X", gate="auto", private=True)
    recipe = Recipe(
        name="tiny", source="x", format="nvfp4", layout="modelopt", engine="native", mode="max", activations="none",
        card=Path("/somewhere/card.toml"), target=TargetSpec(repo="example-lab/X"),
    )  # fmt: skip
    plan = Plan(
        recipe=recipe, source_label="x", source_commit=None, decisions=(), classes=(), exclude=(),
        quantization_config={}, hf_quant_config=None, bytes_before=0, bytes_after=0, shards=1, disk_needed=0,
        memory_needed=0,
    )  # fmt: skip
    text = reproduce(plan, upstream, "example-lab/X", target).recipe
    assert text is not None
    found = yaml.safe_load(text)
    assert found["target"] == {"repo": "example-lab/X", "gate": "auto", "private": True}
    assert "card" not in found


def test_our_entry_needs_a_name_and_a_year(inputs: dict[str, Any], source: Path) -> None:
    upstream = read_upstream(inputs["source"], inputs["original"], inputs["person"])
    told = {"publisher": {"name": "R&D {Lab}"}, "released": "2026-11-21"}
    theirs, ours = citation(upstream, told, "example-lab/X-NVFP4")
    assert theirs == BIBTEX
    assert ours.startswith("@misc{example_lab_x_nvfp4,\n  title = {X-NVFP4},\n  author = {R\\&D \\{Lab\\}},\n")
    assert "  year = {2026},\n" in ours
    assert citation(upstream, {"publisher": {"name": "Lab"}}, "a/b") == (BIBTEX,)
    assert citation(upstream, {**told, "citation": {"bibtex": "@misc{own}"}}, "a/b") == (BIBTEX, "@misc{own}")
    assert citation(replace(upstream, bibtex=None), {}, "a/b") == ()
