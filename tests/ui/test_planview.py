"""The plan the command line prints is the plan the page shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.errors import PublisherError
from publisher.plan.decide import make_plan
from publisher.plan.model import Plan
from publisher.plan.recipe import recipe_from_mapping
from publisher.ui.planview import plan_html, read_plan
from tests.builders import tiny


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    folder = tiny.llama().write(tmp_path / "model")
    recipe = recipe_from_mapping(
        {"name": "t", "source": str(folder), "format": "mxfp4", "quantize": ["*.mlp.*_proj", "nothing"]}, tmp_path, "t"
    )
    return make_plan(recipe, open_checkpoint(folder))


def test_a_plan_survives_its_json(plan: Plan) -> None:
    assert read_plan(json.loads(json.dumps(plan.to_json())), plan.recipe) == plan


def test_another_version_s_plan_is_refused_in_a_sentence(plan: Plan) -> None:
    with pytest.raises(PublisherError, match="cannot be read"):
        read_plan({"classes": [{"colour": "red"}]}, plan.recipe)


def test_the_page_shows_every_class_what_decided_and_what_stands_in_the_way(plan: Plan) -> None:
    page = plan_html(plan, [{"kind": "disk", "message": "The disk is full.", "hint": "Free some.", "fatal": True}])
    for row in plan.classes:
        assert row.pattern in page
    assert "The disk is full." in page
    assert "Free some." in page
    assert plan.problems
    assert "This plan cannot work" in page
    assert "matches none of the 16 weight matrices" in page
