"""Stages: skipped when their inputs are the same, done again when they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher import pipeline
from publisher.errors import PublisherError
from publisher.hub.folder import FolderTarget
from publisher.journal import Event, RunDirectory
from publisher.pipeline import Order
from publisher.plan.model import TargetSpec
from publisher.plan.recipe import load_recipe
from tests.builders.tiny import llama
from tests.cli.conftest import Workspace
from tests.cli.conftest import workspace as workspace  # a fixture


def run(workspace: Workspace, recipe: str, until: str = "manifest") -> list[Event]:
    loaded = load_recipe(workspace.folder / recipe)
    prepared = pipeline.prepare(Order(recipe=loaded, target=loaded.target, to=f"folder:{workspace.folder / 'out'}"))
    events: list[Event] = []
    pipeline.run(prepared, RunDirectory(workspace.run), events.append, until=until)
    return events


def kinds(events: list[Event], stage: str) -> set[str]:
    return {event.kind for event in events if event.stage == stage}


def test_a_finished_stage_is_skipped_and_the_manifest_stays_the_same(workspace: Workspace) -> None:
    recipe = workspace.recipe()
    assert "start" in kinds(run(workspace, recipe), "quantize")
    manifest = (workspace.checkpoint / "publish.json").read_bytes()
    assert kinds(run(workspace, recipe), "quantize") == {"skip"}
    assert (workspace.checkpoint / "publish.json").read_bytes() == manifest


def test_another_source_under_the_same_name_is_quantized_again(workspace: Workspace) -> None:
    recipe = workspace.recipe()
    run(workspace, recipe)
    before = next(workspace.checkpoint.glob("*.safetensors")).read_bytes()
    changed = llama()
    changed.poke("model.layers.0.mlp.up_proj.weight", 0, 0x11)
    changed.write(workspace.source)
    assert "skip" not in kinds(run(workspace, recipe), "quantize")
    assert next(workspace.checkpoint.glob("*.safetensors")).read_bytes() != before


def test_another_target_or_card_is_no_reason_to_quantize_again(workspace: Workspace) -> None:
    recipe = workspace.recipe()
    run(workspace, recipe)
    text = (workspace.folder / recipe).read_text().replace("demo/tiny-fp4", "demo/other").replace("manual", "auto")
    (workspace.folder / recipe).write_text(text)
    (workspace.folder / "card.toml").write_text('base_model = "tiny/tiny"\nnotes = ["One more thing."]\n')
    assert kinds(run(workspace, recipe), "quantize") == {"skip"}
    assert "One more thing." in (workspace.checkpoint / "README.md").read_text()


def test_the_default_directory_follows_recipe_and_plan(workspace: Workspace) -> None:
    loaded = load_recipe(workspace.folder / workspace.recipe())
    first = pipeline.prepare(Order(recipe=loaded)).default_directory
    assert first.parent == Path(".publisher/runs")
    assert first.name.startswith("tiny-")
    other = load_recipe(workspace.folder / workspace.recipe("nvfp4"))
    assert pipeline.prepare(Order(recipe=other)).default_directory != first


def test_places_name_targets() -> None:
    target = pipeline.target_at("folder:out/org/name")
    assert isinstance(target, FolderTarget)
    assert target.repo == "org/name"
    for place in ("out/org/name", "folder:x", "ftp://x"):
        with pytest.raises(PublisherError, match="no published place"):
            pipeline.target_at(place)


def test_the_command_line_wins_over_the_recipe() -> None:
    order = Order(target=TargetSpec(repo="a/b", gate="manual"))
    found = pipeline.with_target(order, repo="c/d", gate="auto", private=True).target
    assert found == TargetSpec(repo="c/d", gate="auto", private=True)
    assert pipeline.with_target(Order(), repo=None, gate="off", private=False).target is None
