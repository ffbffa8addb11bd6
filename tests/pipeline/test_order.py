"""An order: what the command line adds to a recipe, where it runs, and what is refused before any work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from publisher import pipeline
from publisher.errors import CheckpointError, PublisherError
from publisher.pipeline import Order
from publisher.plan.model import TargetSpec
from publisher.plan.recipe import load_recipe
from tests.cli.conftest import Workspace
from tests.pipeline.conftest import run


def test_the_default_directory_follows_recipe_and_plan(workspace: Workspace) -> None:
    loaded = load_recipe(workspace.folder / workspace.recipe())
    first = pipeline.prepare(Order(recipe=loaded)).default_directory
    assert first.parent == Path(".publisher/runs")
    assert first.name.startswith("tiny-")
    other = load_recipe(workspace.folder / workspace.recipe("nvfp4"))
    assert pipeline.prepare(Order(recipe=other)).default_directory != first


def test_the_command_line_wins_over_the_recipe() -> None:
    order = Order(target=TargetSpec(repo="a/b", gate="manual"))
    found = pipeline.with_target(order, repo="c/d", gate="auto", private=True).target
    assert found == TargetSpec(repo="c/d", gate="auto", private=True)
    assert pipeline.with_target(Order(), repo=None, gate="off", private=False).target is None


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
