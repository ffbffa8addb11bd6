"""Where a checkpoint comes from."""

from __future__ import annotations

from publisher import pipeline
from publisher.journal import RunDirectory
from publisher.pipeline import Order
from publisher.pipeline.origin import made_from, provenance
from publisher.plan.recipe import load_recipe
from tests.builders.tiny import llama
from tests.cli.conftest import Workspace


def order(workspace: Workspace) -> Order:
    return Order(recipe=load_recipe(workspace.folder / workspace.recipe()))


def test_another_source_is_another_origin(workspace: Workspace) -> None:
    before = made_from(pipeline.prepare(order(workspace)))
    assert made_from(pipeline.prepare(order(workspace))) == before
    changed = llama()
    changed.poke("model.layers.0.mlp.up_proj.weight", 0, 0x11)
    changed.write(workspace.source)
    assert made_from(pipeline.prepare(order(workspace))) != before


def test_the_manifest_says_what_made_it(pushed: Workspace) -> None:
    found = provenance(pipeline.prepare(order(pushed)), RunDirectory(pushed.run))
    assert found.recipe == "tiny"
    assert found.engine == "native"
    assert found.engine_version == found.versions["fp4-publisher"]
