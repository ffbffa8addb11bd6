"""Runs of the pipeline on a tiny source."""

from __future__ import annotations

from publisher import pipeline
from publisher.journal import Event, RunDirectory
from publisher.pipeline import Order
from publisher.plan.recipe import load_recipe
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
