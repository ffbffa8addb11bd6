"""A plan as rows: what is quantized first, sizes as people read them."""

from __future__ import annotations

from typing import Any

from publisher.plan.decide import make_plan
from publisher.plan.render import COLUMNS, plan_facts, plan_table


def test_the_table_names_class_count_action_and_what_decided(headers: Any, shapes: Any, recipe: Any) -> None:
    plan = make_plan(recipe(keep=["*.k_proj"]), headers(shapes("llama", layers=3)))
    rows = plan_table(plan)
    assert [row.action for row in rows] == ["quantize"] * 3 + ["keep"] * 5
    assert rows[0].cells() == (
        "model.layers.*.mlp.down_proj",
        "3",
        "mlp",
        "64×96",
        "quantize",
        "*.mlp.*_proj",
        "36.9 kB",
        "10.4 kB",
    )
    assert all(len(row.cells()) == len(COLUMNS) for row in rows)
    assert {row.decided_by for row in rows} == {"*.mlp.*_proj", "*.k_proj", "no quantize pattern matches"}


def test_layers_of_different_shapes_share_a_row_without_one(headers: Any, shapes: Any, recipe: Any) -> None:
    tensors = shapes("llama", layers=2)
    tensors["model.layers.1.mlp.down_proj.weight"] = ("BF16", (64, 48))
    shapes_shown = {row.pattern: row.shape for row in plan_table(make_plan(recipe(), headers(tensors)))}
    assert shapes_shown["model.layers.*.mlp.down_proj"] == "various"


def test_the_facts_are_strings(headers: Any, shapes: Any, recipe: Any) -> None:
    facts = dict(plan_facts(make_plan(recipe(), headers(shapes("llama", layers=3)))))
    assert facts["modules"] == "9 quantized, 13 kept"
    assert "→" in facts["tensor bytes"]
    assert facts["format"] == "nvfp4 in modelopt layout, mode max"
    empty = make_plan(recipe(), headers({}))
    assert dict(plan_facts(empty))["modules"] == "0 quantized, 0 kept"
