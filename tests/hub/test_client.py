"""The client's failures in the project's words, its time-outs, and its environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from publisher.errors import AccessError, HubError, PublisherError
from publisher.hub import client
from publisher.hub.client import AbsentError, HubClient
from publisher.hub.huggingface import HuggingFaceTarget
from publisher.hub.patience import Patience
from publisher.hub.target import OvertakenError, QuotaError, TransientHubError
from tests.hub.loopback import LoopbackHub
from tests.hub.places import REPO

TOKEN = "hf_loopbackWriteToken00"


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def mine(hub: LoopbackHub, waits: list[float]) -> HubClient:
    hub.seed_repo(REPO, {"config.json": b"{}"})
    return HubClient(REPO, hub.endpoint, hub.token, Patience(sleep=waits.append, chance=lambda: 0.0))


def info(mine: HubClient) -> Any:
    return mine.call("read the settings", lambda api: api.model_info(REPO))


@pytest.mark.parametrize(
    ("status", "body", "headers", "kind", "tries"),
    [
        (401, {"error": "Invalid credentials in Authorization header"}, {}, AccessError, 1),
        (403, {"error": "You do not have the rights"}, {}, AccessError, 1),
        (403, {"error": "Private repository storage limit reached, please upgrade your plan"}, {}, QuotaError, 1),
        (402, {"error": "pay first"}, {}, QuotaError, 1),
        (413, {"error": "too much"}, {}, QuotaError, 1),
        (404, {"error": "no"}, {"X-Error-Code": "RepoNotFound"}, AbsentError, 1),
        (404, {"error": "no"}, {"X-Error-Code": "RevisionNotFound"}, AbsentError, 1),
        (412, {"error": "The branch was updated"}, {}, OvertakenError, 1),
        (422, {"error": "never"}, {}, HubError, 1),
        (409, {"error": "busy"}, {}, TransientHubError, 4),
        (429, {"error": "slowly"}, {}, TransientHubError, 4),
        (503, {"error": "down"}, {}, TransientHubError, 4),
    ],
)
def test_each_status_is_one_kind_of_error(
    hub: LoopbackHub, mine: HubClient, status: int, body: Any, headers: Any, kind: type[PublisherError], tries: int
) -> None:
    hub.fail("GET", f"/{REPO}$", times=99, status=status, body=json.dumps(body).encode(), headers=headers)
    with pytest.raises(PublisherError) as caught:
        info(mine)
    assert type(caught.value) is kind
    assert caught.value.hint
    assert len(hub.requests("GET", f"/{REPO}$")) == tries


def test_a_token_that_nobody_knows_is_told_once_and_a_reader_need_not_write(hub: LoopbackHub, mine: HubClient) -> None:
    hub.fail("GET", f"/{REPO}$", status=401, body=b"")
    with pytest.raises(AccessError, match=r"\(HTTP 401\): it does not know this token\. ") as caught:
        info(mine)
    assert "may write" not in caught.value.hint
    hub.repos.clear()
    with pytest.raises(AbsentError) as absent:
        info(mine)
    assert "Check the name" in absent.value.hint


def test_a_rate_limit_is_waited_for_as_long_as_it_says(hub: LoopbackHub, mine: HubClient, waits: list[float]) -> None:
    hub.fail("GET", f"/{REPO}$", status=429, headers={"RateLimit": '"api";r=0;t=41'})
    assert info(mine).id == REPO
    assert waits == [42.0]


@pytest.mark.parametrize("body", [b"<html>Back soon</html>", b"[]", b"null", b'"text"', b"{", b'{"id": 5}'])
def test_a_reply_that_is_no_hubs_ends_in_a_sentence(hub: LoopbackHub, mine: HubClient, body: bytes) -> None:
    hub.fail("GET", f"/{REPO}(/revision/main)?$|whoami", times=99, status=200, body=body)
    target = HuggingFaceTarget(REPO, endpoint=hub.endpoint, token=hub.token, sleep=lambda seconds: None)
    with pytest.raises(HubError) as caught:
        target.require_access()
    assert caught.value.exit_code == 4
    assert caught.value.hint
    if not body.startswith(b"{"):
        with pytest.raises(HubError):
            target.head()


def test_a_server_that_hangs_is_given_up(
    hub: LoopbackHub, mine: HubClient, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    monkeypatch.setattr(client, "TIMEOUT", 0.1)
    hub.latency = 0.5
    with pytest.raises(TransientHubError, match="Time"):
        info(mine)
    assert waits == [1.0, 2.0, 4.0]


def test_a_transport_that_falls_over_is_an_error_and_not_the_end(mine: HubClient) -> None:
    class PanicException(BaseException):
        """As the Xet transport's, which is no Exception."""

    def fall(api: Any) -> None:
        raise PanicException("index out of bounds")

    with pytest.raises(TransientHubError, match="index out of bounds"):
        mine.call("transfer", fall)
    with pytest.raises(KeyboardInterrupt):
        mine.call("transfer", lambda api: (_ for _ in ()).throw(KeyboardInterrupt()))


def test_signatures_and_tokens_are_cleaned(mine: HubClient) -> None:
    text = f"see https://cdn.example/x?X-Amz-Signature=abc and {TOKEN} or hf_otherOtherOther12"
    assert mine.clean(text) == "see https://cdn.example/x and *** or ***"


def test_a_hub_that_is_always_busy_creating_is_not_asked_for_ever(hub: LoopbackHub) -> None:
    """The client's own `create_repo` repeats this without end."""
    busy = b'{"error": "Cannot create repo: another conflicting operation is in progress"}'
    hub.fail("POST", "/repos/create", times=10_000, status=409, body=busy)
    target = HuggingFaceTarget(REPO, endpoint=hub.endpoint, token=hub.token, sleep=lambda seconds: None)
    with pytest.raises(TransientHubError, match="another conflicting operation"):
        target.create_private()
    assert len(hub.requests("POST", "/repos/create")) <= 4


def test_what_is_known_of_finished_parts_is_written_down_at_once() -> None:
    """Before the client is imported, which reads it; a user's own value stays."""
    code = "import publisher.hub.client, os; print(os.environ['HF_XET_DATA_SESSION_XORB_METADATA_FLUSH_MAX_COUNT'])"
    for given, read in (({}, "1"), ({"HF_XET_DATA_SESSION_XORB_METADATA_FLUSH_MAX_COUNT": "9"}, "9")):
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **given}, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == read
