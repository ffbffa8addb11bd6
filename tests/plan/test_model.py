"""A plan and a recipe as documents: canonical, complete, and the same on every machine."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from publisher.plan.decide import make_plan


def test_a_plan_is_a_document(headers: Any, shapes: Any, recipe: Any) -> None:
    plan = make_plan(recipe(target={"repo": "org/name"}), headers(shapes("llama")), commit="c0ffee")
    document = json.loads(json.dumps(plan.to_json(), allow_nan=False))
    assert document["schema"] == 1
    assert document["recipe"]["target"]["gate"] == "manual"
    assert document["source_commit"] == "c0ffee"
    assert {d["action"] for d in document["decisions"]} == {"quantize", "keep"}
    assert len(document["decisions"]) == len(plan.quantized) + len(plan.kept)


def test_the_digest_follows_what_is_done_and_not_what_is_said_about_it(headers: Any, shapes: Any, recipe: Any) -> None:
    plan = make_plan(recipe(), headers(shapes("llama")))
    assert replace(plan, warnings=("x",)).digest == plan.digest
    assert replace(plan, exclude=()).digest != plan.digest
    assert recipe(mode="max").digest == recipe().digest
    assert recipe(keep=["lm_head"]).digest != recipe().digest
