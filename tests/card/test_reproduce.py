"""How to make it again and how to cite it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from publisher.card.reproduce import citation, reproduce
from publisher.card.upstream import read_upstream
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
