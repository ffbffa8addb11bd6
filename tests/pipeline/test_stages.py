"""Stages: skipped when their inputs are the same, done again when they are not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from publisher import pipeline
from publisher.errors import CheckpointError
from publisher.journal import RunDirectory
from publisher.pipeline import Order, stages
from publisher.plan.recipe import load_recipe
from tests.builders.tiny import llama
from tests.cli.conftest import Workspace
from tests.pipeline.conftest import kinds, run


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


def test_headers_are_read_once_for_rules_card_and_manifest(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    real = stages.open_checkpoint
    monkeypatch.setattr(stages, "open_checkpoint", lambda place: (opened.append(place), real(place))[1])
    run(workspace, workspace.recipe())
    assert opened == [workspace.checkpoint]


def test_another_target_or_card_is_no_reason_to_quantize_again(workspace: Workspace) -> None:
    recipe = workspace.recipe()
    run(workspace, recipe)
    text = (workspace.folder / recipe).read_text().replace("demo/tiny-fp4", "demo/other").replace("manual", "auto")
    (workspace.folder / recipe).write_text(text)
    (workspace.folder / "card.toml").write_text('base_model = "tiny/tiny"\nnotes = ["One more thing."]\n')
    assert kinds(run(workspace, recipe), "quantize") == {"skip"}
    assert "One more thing." in (workspace.checkpoint / "README.md").read_text()


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


@pytest.mark.parametrize("name", ["stamps", "digests", "shards", "report", "publication", "checkpoint.quantize"])
@pytest.mark.parametrize("text", ["x", "[1]", '{"summary": 3}', '{"model.safetensors": 5}'])
def test_a_damaged_record_of_the_run_is_made_again(pushed: Workspace, tmp_path: Path, name: str, text: str) -> None:
    shutil.copytree(pushed.run, tmp_path / "run")
    (tmp_path / "run" / f"{name}.json").write_text(text)
    loaded = load_recipe(pushed.folder / pushed.recipe())
    prepared = pipeline.prepare(Order(recipe=loaded, target=loaded.target, to=f"folder:{tmp_path / 'out'}"))
    assert pipeline.run(prepared, RunDirectory(tmp_path / "run")).publication().manifest.files
