"""The loopback Hub, both targets, and a client that does not wait between its own attempts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.utils._http as client
import pytest

from publisher.hub.target import Publication
from tests.hub.loopback import LoopbackHub
from tests.hub.places import FolderPlace, HubPlace, publication


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    monkeypatch.setattr(client, "time", SimpleNamespace(sleep=lambda seconds: None))
    with LoopbackHub() as server:
        yield server
    client.close_session()


@pytest.fixture(params=["folder", "hf"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> FolderPlace | HubPlace:
    if request.param == "folder":
        return FolderPlace(tmp_path / "published")
    return HubPlace(request.getfixturevalue("hub"))


@pytest.fixture
def tiny(tmp_path: Path) -> Publication:
    return publication(tmp_path / "model")
