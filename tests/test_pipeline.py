"""Stages: skipped when their inputs are the same, done again when they are not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from publisher import pipeline
from publisher.errors import CheckpointError, PublisherError
from publisher.hub.folder import FolderTarget
from publisher.journal import Event, RunDirectory
from publisher.pipeline import Order
from publisher.plan.model import TargetSpec
from publisher.plan.recipe import load_recipe
from tests.builders.tiny import llama
from tests.cli.conftest import Workspace
from tests.cli.conftest import pushed as pushed  # a fixture
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
    assert "<title>Publishable: tiny" in (workspace.run / "report.html").read_text()
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


def flip(path: Path, at: int = -3) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x5A
    path.unlink()
    path.write_bytes(data)


def test_a_weight_that_changed_since_it_was_made_is_not_published(workspace: Workspace) -> None:
    recipe = workspace.recipe()
    run(workspace, recipe, until="push")
    before = (workspace.tree / "publish.json").read_bytes()
    shard = next(workspace.checkpoint.glob("*.safetensors"))
    flip(shard)
    with pytest.raises(CheckpointError, match=rf"{shard.name} changed since it was made") as failure:
        run(workspace, recipe, until="push")
    assert str(workspace.checkpoint) in failure.value.hint
    assert (workspace.tree / "publish.json").read_bytes() == before
    shutil.rmtree(workspace.checkpoint)  # the next step the hint names
    assert "skip" not in kinds(run(workspace, recipe, until="push"), "quantize")
    assert (workspace.tree / shard.name).read_bytes() == shard.read_bytes()


def test_a_shard_that_was_lost_is_named_with_the_next_step(workspace: Workspace) -> None:
    recipe = workspace.recipe()
    run(workspace, recipe)
    shard = next(workspace.checkpoint.glob("*.safetensors"))
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"{shard.name} is gone"):
        run(workspace, recipe)


def test_a_copied_run_directory_is_still_the_same_run(workspace: Workspace) -> None:
    recipe = workspace.recipe()
    run(workspace, recipe)
    os.utime(next(workspace.checkpoint.glob("*.safetensors")), (1, 1))
    assert kinds(run(workspace, recipe), "quantize") == {"skip"}


def test_what_a_killed_write_left_is_not_published(workspace: Workspace) -> None:
    recipe = workspace.recipe()
    run(workspace, recipe)
    (workspace.checkpoint / ".publish.json.abc123.partial").write_text("{")
    (workspace.checkpoint / "legal/.NOTICE.txt.abc123.partial").write_text("N")
    run(workspace, recipe, until="push")
    assert not [path for path in workspace.tree.rglob("*") if path.name.endswith(".partial")]


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


@pytest.mark.parametrize("name", ["stamps", "digests", "shards", "report", "publication", "checkpoint.quantize"])
@pytest.mark.parametrize("text", ["x", "[1]", '{"summary": 3}', '{"model.safetensors": 5}'])
def test_a_damaged_record_of_the_run_is_made_again(pushed: Workspace, tmp_path: Path, name: str, text: str) -> None:
    shutil.copytree(pushed.run, tmp_path / "run")
    (tmp_path / "run" / f"{name}.json").write_text(text)
    loaded = load_recipe(pushed.folder / pushed.recipe())
    prepared = pipeline.prepare(Order(recipe=loaded, target=loaded.target, to=f"folder:{tmp_path / 'out'}"))
    assert pipeline.run(prepared, RunDirectory(tmp_path / "run")).publication().manifest.files


def test_a_licence_that_cannot_be_copied_is_refused_before_the_work(workspace: Workspace) -> None:
    os.truncate(workspace.source / "LICENSE", 1 << 30)
    with pytest.raises(CheckpointError, match="no licence is longer"):
        run(workspace, workspace.recipe())
    assert not workspace.checkpoint.exists()


def test_every_problem_of_a_plan_is_a_sentence_of_its_own(workspace: Workspace) -> None:
    text = (workspace.folder / workspace.recipe()).read_text().replace("*.mlp.*_proj", "nothing.*")
    (workspace.folder / "mxfp4.yaml").write_text(text)
    with pytest.raises(PublisherError, match=r"correct it\. nothing would be quantized"):
        run(workspace, "mxfp4.yaml")
