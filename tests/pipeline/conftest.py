"""Runs of the pipeline on a tiny source; the engine's program is forked from a process that has imported torch."""

from __future__ import annotations

import sys

import pytest

from publisher import pipeline
from publisher.journal import Event, RunDirectory
from publisher.pipeline import Order
from publisher.plan.recipe import load_recipe
from tests import warm
from tests.cli.conftest import Workspace
from tests.cli.conftest import pushed as pushed  # a fixture
from tests.cli.conftest import workspace as workspace  # a fixture


@pytest.fixture(autouse=True)
def _programs_start_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", warm.python())


def run(workspace: Workspace, recipe: str, until: str = "manifest") -> list[Event]:
    loaded = load_recipe(workspace.folder / recipe)
    prepared = pipeline.prepare(Order(recipe=loaded, target=loaded.target, to=f"folder:{workspace.folder / 'out'}"))
    events: list[Event] = []
    pipeline.run(prepared, RunDirectory(workspace.run), events.append, until=until)
    return events


def kinds(events: list[Event], stage: str) -> set[str]:
    return {event.kind for event in events if event.stage == stage}
