"""One request: where the login goes and where not; the attempts themselves are tested with the files they read."""

from __future__ import annotations

from collections.abc import Iterator

import huggingface_hub.utils._http as client
import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.checkpoint.wire import Wire, is_transport
from publisher.errors import HubError
from tests.hub.loopback import LoopbackHub


@pytest.fixture
def elsewhere() -> Iterator[LoopbackHub]:
    """Another server; whatever token reaches it is in its log."""
    with LoopbackHub() as server:
        yield server


@pytest.mark.parametrize(
    ("location", "allowed"),
    [
        ("https://cdn.example/x?sig=1", True),
        ("//cdn.example/x", True),
        ("/other/model/resolve/main/x", True),
        ("http://hub.example/x", False),
        ("http://127.0.0.1/x", False),
        ("ftp://hub.example/x", False),
        ("javascript:alert(1)", False),
        ("", False),
    ],
)
def test_an_encrypted_hub_sends_nobody_to_plain_text(location: str, allowed: bool) -> None:
    wire = Wire("org/model", endpoint="https://hub.example", token="hf_secretSecret")
    if allowed:
        assert wire._follow("https://hub.example/a", location).startswith("https://")
        return
    with pytest.raises(HubError, match="no encrypted address"):
        wire._follow("https://hub.example/a", location)


@given(st.text(max_size=40) | st.from_regex(r"(https?|ftp|data):/{0,3}[\[\]@:\w.%/]{0,20}(:[\d-]{1,9})?/?.{0,9}"))
def test_whatever_a_redirect_says_it_is_followed_encrypted_or_refused(location: str) -> None:
    wire = Wire("org/model", endpoint="https://hub.example", token=False)
    try:
        target = wire._follow("https://hub.example/a", location)
    except HubError as error:
        assert error.hint  # noqa: PT017 - either outcome is right
        return
    assert target.startswith("https://")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_token_never_reaches_another_server(remote: LoopbackHub, elsewhere: LoopbackHub, status: int) -> None:
    """Another port is another server, although the HTTP library's own rule and cookies know hosts only."""
    away = {"Location": f"{elsewhere.endpoint}/org/model/resolve/main/x"}
    remote.fail("GET", "/resolve/", times=100, status=status, headers=away)
    wire = Wire("org/model", endpoint=remote.endpoint, token=remote.token)
    assert wire.login
    with pytest.raises(HubError, match="storage the Hub names"):
        wire.read("x", "main", 0, 10, 10)
    assert elsewhere.log
    assert {request.token for request in elsewhere.log} == {None}


def test_an_api_reply_that_never_ends_is_left(remote: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("publisher.checkpoint.wire.MAX_JSON", 1 << 20)
    remote.fail("GET", "/api/", times=100, endless=True)
    with pytest.raises(HubError, match="more than 1,048,576 bytes"):
        Wire("org/model", endpoint=remote.endpoint, token=False).json("/api/models/org/model")


def test_a_long_refusal_is_read_no_further_than_a_sentence(remote: LoopbackHub) -> None:
    remote.fail("GET", "/api/", times=100, status=400, body=b'{"error": "' + b"x" * (1 << 20), endless=True)
    with pytest.raises(HubError, match="answered 400") as caught:
        Wire("org/model", endpoint=remote.endpoint, token=False).json("/api/models/org/model")
    assert len(str(caught.value)) < 1000


def test_without_a_login_nothing_is_sent(remote: LoopbackHub) -> None:
    wire = Wire("org/model", endpoint=remote.endpoint, token=False)
    wire.json("/api/models/org/model")
    assert not wire.login
    assert [request.token for request in remote.log] == [None]


def test_a_hub_that_was_never_there_is_not_asked_again_and_again(waits: list[float]) -> None:
    with pytest.raises(HubError, match="cannot be reached"):
        Wire("org/model", endpoint="http://127.0.0.1:9", token=False).json("/api/models/org/model")
    assert waits == []


def test_the_errors_of_the_http_library_are_known_by_its_name(remote: LoopbackHub) -> None:
    with pytest.raises(Exception) as caught:  # httpx or httpx2, by the client's version
        client.get_session().get("http://127.0.0.1:9")
    assert is_transport(caught.value)
    assert not is_transport(ValueError())


def test_offline_is_said_in_a_sentence(remote: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="offline mode is enabled"):
        Wire("org/model", endpoint=remote.endpoint, token=False).json("/api/models/org/model")
    assert not remote.log
