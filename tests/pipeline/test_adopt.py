"""Taking over what was made elsewhere; runs and targets inside what they read are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher import pipeline
from publisher.errors import PublisherError
from publisher.journal import RunDirectory
from publisher.pipeline import Order
from publisher.pipeline.adopt import adopt
from publisher.plan.recipe import load_recipe
from tests.cli.conftest import Workspace


@pytest.mark.parametrize("place", ["source/run", "source"])
def test_a_run_inside_its_source_is_refused(workspace: Workspace, place: str) -> None:
    loaded = load_recipe(workspace.folder / workspace.recipe())
    prepared = pipeline.prepare(Order(recipe=loaded, target=loaded.target, to=f"folder:{workspace.folder / 'out'}"))
    with pytest.raises(PublisherError, match="lies in") as failure:
        pipeline.run(prepared, RunDirectory(workspace.folder / place))
    assert "outside" in failure.value.hint
    assert not (workspace.folder / "out").exists()


def test_a_target_inside_the_source_is_refused(workspace: Workspace) -> None:
    loaded = load_recipe(workspace.folder / workspace.recipe())
    prepared = pipeline.prepare(Order(recipe=loaded, target=loaded.target, to=f"folder:{workspace.source / 'out'}"))
    with pytest.raises(PublisherError, match=r"The target .* lies in"):
        pipeline.run(prepared, RunDirectory(workspace.run))


def test_shards_are_linked_the_rest_copied_and_the_card_left(tmp_path: Path) -> None:
    place = tmp_path / "made"
    (place / "legal").mkdir(parents=True)
    for name in ("a.safetensors", "legal/LICENSE", "README.md", "publish.json"):
        (place / name).write_text(name)
    adopt(place, tmp_path / "staging", tmp_path / "checkpoint")
    found = tmp_path / "checkpoint"
    assert {path.relative_to(found).as_posix() for path in found.rglob("*") if path.is_file()} == {
        "a.safetensors",
        "legal/LICENSE",
    }
    assert (found / "a.safetensors").samefile(place / "a.safetensors")
    assert not (found / "legal/LICENSE").samefile(place / "legal/LICENSE")
