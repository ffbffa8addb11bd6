"""The adapter of NVIDIA's library: which version it takes, and that its program is there."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from publisher.engines import base, modelopt
from publisher.engines.modelopt import ModelOpt


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PUBLISHER_MODELOPT_PYTHON", raising=False)
    monkeypatch.setattr(base.importlib.util, "find_spec", lambda name: object())


def test_a_version_the_program_was_not_written_for_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modelopt.importlib.metadata, "version", lambda name: "0.41.0")
    problem = ModelOpt().available()
    assert problem is not None
    assert "0.41.0" in problem
    assert "0.47" in problem


def test_the_version_it_was_written_for_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modelopt.importlib.metadata, "version", lambda name: "0.47.2")
    assert ModelOpt().available() is None


def test_its_program_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert importlib.util.find_spec(ModelOpt().command(Path("job.json"))[2]) is not None
