"""The loopback Hub, every target over every transport, and a client that does not wait between its own attempts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.utils._http as client
import huggingface_hub.utils._xet as xet_client
import pytest
from huggingface_hub import constants

from publisher.hub.target import Publication
from tests.hub.loopback import LoopbackHub
from tests.hub.places import FolderPlace, HubPlace, publication

XET_SETTINGS = {
    "HF_XET_CLIENT_RETRY_BASE_DELAY": "1ms",
    "HF_XET_DATA_PROGRESS_UPDATE_INTERVAL": "10ms",
    "HF_XET_LOG_LEVEL": "off",
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    monkeypatch.setattr(client, "time", SimpleNamespace(sleep=lambda seconds: None))
    with LoopbackHub() as server:
        yield server
    client.close_session()


@pytest.fixture
def xet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The client's default transport, which tests/conftest.py turns off for every other test.

    The client reads the switch where it is used; the session, which reads the environment once, and the tokens it
    remembers are new for every test, and so is the cache that knows what was sent to which address.
    """
    for name, value in (XET_SETTINGS | {"HF_XET_CACHE": str(tmp_path / "xet-cache")}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    monkeypatch.setattr(xet_client, "_GLOBAL_XET_HOLDER", xet_client.XetSessionHolder())
    monkeypatch.setattr(xet_client, "XET_CONNECTION_INFO_CACHE", {})


@pytest.fixture(params=["folder", "lfs", "xet"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FolderPlace | HubPlace]:
    """Every target over every transport; the log of the Hub must show no other transport than the one meant."""
    if request.param == "folder":
        yield FolderPlace(tmp_path / "published")
        return
    yield from hub_place(request, request.param)


def hub_place(request: pytest.FixtureRequest, transport: str) -> Iterator[HubPlace]:
    """A repository of the loopback Hub, reached over one transport and no other."""
    if transport == "xet":
        request.getfixturevalue("xet")
    place = HubPlace(request.getfixturevalue("hub"), transport)
    yield place
    assert place.transports() <= {transport}


@pytest.fixture
def tiny(tmp_path: Path) -> Publication:
    return publication(tmp_path / "model")
