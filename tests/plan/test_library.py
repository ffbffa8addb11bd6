"""The ready recipes as documents: complete, told of, and written out with changes of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from publisher.errors import PublisherError
from publisher.jsonio import DocumentError, loads_yaml
from publisher.plan.library import FOLDER, ready_recipe, ready_recipes, written
from publisher.plan.recipe import recipe_from_mapping


def test_every_file_is_a_recipe_and_every_recipe_is_told_of() -> None:
    found = ready_recipes()
    assert found.keys() == {path.stem for path in FOLDER.glob("*.yaml")}
    for name, ready in found.items():
        recipe = recipe_from_mapping(ready.document, Path("/"), name)
        assert recipe.name == name
        assert recipe.source == f"hf://{ready.base_model}"
        comment = [line for line in ready.text.splitlines() if line.startswith("#")]
        assert ready.repository in comment[0]
        assert any("card says" in line for line in comment)
        assert any("is ours" in line for line in comment)
        assert all(len(line) <= 120 for line in ready.text.splitlines())


@pytest.mark.parametrize("name", ready_recipes())
def test_a_recipe_written_out_has_the_changes_and_all_else(name: str) -> None:
    ready = ready_recipe(name)
    changes: dict[str, Any] = {"source": "/a: b #c", "name": "1.0", "target": {"repo": "me/x", "gate": "manual"}}
    text = written(ready, changes)
    assert loads_yaml(text, name) == {**ready.document, **changes}
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        line for line in ready.text.splitlines() if line.startswith("#")
    ]


def test_what_makes_no_recipe_is_refused() -> None:
    with pytest.raises(DocumentError, match="is no source"):
        written(ready_recipe("kimi-k2.6-mxfp4"), {"source": "s3://bucket"})
    with pytest.raises(PublisherError, match="no ready recipe") as raised:
        ready_recipe("kimi-k2.6-nvfp")
    assert "kimi-k2.6-nvfp4" in raised.value.hint
