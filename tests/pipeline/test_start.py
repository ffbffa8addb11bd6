"""How a run ends is written down, whatever ended it."""

from __future__ import annotations

import json

import pytest

from publisher import pipeline
from publisher.errors import InterruptedRun, PublisherError
from publisher.journal import RunDirectory
from publisher.pipeline import Order
from publisher.pipeline.stages import Run
from publisher.plan.recipe import load_recipe
from tests.cli.conftest import Workspace
from tests.pipeline.conftest import run


@pytest.mark.parametrize(
    ("ending", "status", "code"),
    [(KeyboardInterrupt(), "interrupted", 6), (PublisherError("no"), "failed", 2), (ZeroDivisionError(), "failed", 2)],
)
def test_the_state_says_how_it_ended(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, ending: BaseException, status: str, code: int
) -> None:
    def end(_run: Run) -> None:
        raise ending

    monkeypatch.setattr(Run, "validate", end)
    loaded = load_recipe(workspace.folder / workspace.recipe())
    directory = RunDirectory(workspace.run)
    with pytest.raises((InterruptedRun, PublisherError, ZeroDivisionError)):
        pipeline.run(pipeline.prepare(Order(recipe=loaded)), directory, until="validate")
    state = json.loads(directory.state.read_text())
    assert (state["status"], state["exit_code"]) == (status, code)
    monkeypatch.undo()
    run(workspace, workspace.recipe())  # the lock is free again
    assert json.loads(directory.state.read_text())["status"] == "done"
