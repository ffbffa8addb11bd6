"""The Hub target: its errors in a person's words, its retries, and what the Hub saw of it."""

from __future__ import annotations

import json
import logging
import socket
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import snapshot_download

from publisher.errors import AccessError, HubError, PublisherError
from publisher.hub.comparison import verify
from publisher.hub.huggingface import HuggingFaceTarget
from publisher.hub.push import push
from publisher.hub.target import Publication, TransientHubError
from tests.hub.conftest import hub_place
from tests.hub.loopback import LoopbackHub
from tests.hub.places import CARD, FILES, REPO, REQUESTS, HubPlace, publication

CANARY = "hf_canaryCanaryCanary1234567890"
SHAPELESS = "canary-of-no-known-shape"


CONTENTS = {"lfs": ("PUT", "/_lfs/"), "xet": ("POST", "/cas/v1/xorbs/")}  # the requests that carry large files


@pytest.fixture(params=["lfs", "xet"])
def place(request: pytest.FixtureRequest) -> Iterator[HubPlace]:
    yield from hub_place(request, request.param)


def transferred(place: HubPlace) -> int:
    return len(place.hub.requests(*CONTENTS[place.transport]))


def no_wait(seconds: float) -> None:
    """Do not wait."""


def run(target: HuggingFaceTarget, wanted: Publication, **more: Any) -> Any:
    return push(target, wanted, sleep=no_wait, **more)


# --- who may ---------------------------------------------------------------------------------------------------------


def test_a_wrong_token_is_explained(place: HubPlace, tiny: Publication) -> None:
    with pytest.raises(AccessError, match="401") as caught:
        run(place.target("hf_wrongWrongWrong00"), tiny)
    assert caught.value.exit_code == 3
    assert "hf auth login" in caught.value.hint
    assert place.hub.repos == {}


def test_no_token_is_explained(hub: LoopbackHub, tiny: Publication) -> None:
    with pytest.raises(AccessError, match="no Hub token") as caught:
        run(HuggingFaceTarget(REPO, endpoint=hub.endpoint), tiny)
    assert "HF_TOKEN" in caught.value.hint


def test_a_read_token_is_refused_before_anything_is_created(place: HubPlace, tiny: Publication) -> None:
    token = place.hub.add_user("hf_readReadRead0000", "bob", role="read", orgs={"org": "write"})
    with pytest.raises(AccessError, match="may only read"):
        run(place.target(token), tiny)
    assert place.writes() == 0


def test_a_stranger_may_not_write_where_create_repo_would_succeed(place: HubPlace, tiny: Publication) -> None:
    place.hub.seed_repo(REPO, {})
    token = place.hub.add_user("hf_strangerToken0000", "bob")
    with pytest.raises(AccessError, match="403"):
        run(place.target(token), tiny)
    assert place.writes() == 0


def test_a_namespace_of_others_is_named(place: HubPlace, tiny: Publication) -> None:
    token = place.hub.add_user("hf_strangerToken0000", "bob", orgs={"lab": "write", "org": "read"})
    with pytest.raises(AccessError, match="may not create repositories for org") as caught:
        run(place.target(token), tiny)
    assert "bob, lab" in caught.value.hint


def test_a_full_account_is_an_access_error(place: HubPlace, tiny: Publication) -> None:
    place.hub.fail("POST", "/commit/", times=9, status=402, body=b'{"error": "private storage limit reached"}')
    with pytest.raises(AccessError, match="storage limit"):
        run(place.target(), replace(tiny, private=True))
    assert place.settings()[0]


@pytest.mark.parametrize("status", [401, 402, 403, 413])
@pytest.mark.parametrize(
    ("place", "method", "pattern"), [("xet", *request) for request in REQUESTS["xet"][-6:]], indirect=["place"]
)
def test_what_the_store_refuses_is_no_fault_of_the_network(
    place: HubPlace, tiny: Publication, method: str, pattern: str, status: int
) -> None:
    place.hub.fail(method, pattern, times=1000, status=status, body=b"")
    with pytest.raises(PublisherError) as caught:
        run(place.target(), replace(tiny, private=True))
    passing = "-token/" not in pattern and status in (401, 403)  # a pass that expired: the next one may be good
    assert isinstance(caught.value, TransientHubError if passing else AccessError)
    assert str(status) in caught.value.message
    assert place.settings()[0]


def test_the_gate_is_named(place: HubPlace) -> None:
    place.hub.seed_repo(REPO, {"config.json": b"{}"}, gated="manual")
    token = place.hub.add_user("hf_strangerToken0000", "bob")
    with pytest.raises(AccessError, match="gated"):
        place.target(token).read("config.json")


def test_metadata_the_hub_refuses_is_found_first(place: HubPlace, tmp_path: Path) -> None:
    card = CARD.replace(b"apache-2.0", b"modified-mit")
    with pytest.raises(PublisherError, match="license") as caught:
        run(place.target(), publication(tmp_path / "m", FILES | {"README.md": card}))
    assert caught.value.exit_code == 2
    assert place.writes() == 0


# --- what networks do ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "method", "pattern"),
    [(transport, *request) for transport, requests in REQUESTS.items() for request in requests],
    indirect=["place"],
)
@pytest.mark.parametrize(
    "fault",
    [{"status": 503, "body": b"<html>busy</html>"}, {"drop": True}, {"lose_reply": True}],
    ids=["503", "dropped", "reply lost"],
)
def test_one_bad_moment_is_survived(
    place: HubPlace, tiny: Publication, method: str, pattern: str, fault: dict[str, Any]
) -> None:
    place.hub.fail(method, pattern, **fault)
    record = run(place.target(), tiny)
    assert place.hub.requests(method, pattern), "the request that should fail was never made"
    assert record.verified
    assert place.settings() == (False, "manual")
    assert not place.was_open()
    titles = [title for _, title, _ in place.hub.repos[REPO].commits]
    assert titles == ["initial commit", "Add weights", f"Publish {tiny.key}"]
    assert record.commit == place.hub.repos[REPO].head


@pytest.mark.parametrize("pattern", ["contents", "/commit/", "/settings"])
def test_a_dead_line_ends_in_a_hub_error_and_the_next_run_completes(
    place: HubPlace, tiny: Publication, pattern: str
) -> None:
    pattern = CONTENTS[place.transport][1] if pattern == "contents" else pattern
    for method in ("PUT", "POST"):
        place.hub.fail(method, pattern, times=1000, drop=True)
    with pytest.raises(HubError) as caught:
        run(place.target(), tiny)
    assert caught.value.exit_code == 4
    assert "Run the same command again" in caught.value.hint
    assert place.settings()[0]
    place.hub.faults.clear()
    assert run(place.target(), tiny).verified
    assert not place.was_open()


def test_a_hub_that_is_not_there(tiny: Publication) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    waits: list[float] = []
    with pytest.raises(HubError, match="refused") as caught:
        run(HuggingFaceTarget(REPO, endpoint=endpoint, token=CANARY, sleep=waits.append), tiny)
    assert caught.value.exit_code == 4
    assert [int(wait / 1.25) <= least <= wait for wait, least in zip(waits, (1, 2, 4), strict=True)] == [True] * 3


def test_a_busy_hub_is_given_the_time_it_asks_for(place: HubPlace, tiny: Publication) -> None:
    place.hub.fail("PUT", "/settings", status=429, headers={"Retry-After": "7"})
    run(place.target(), tiny)
    assert [int(wait) for wait in place.waits] == [7]


def test_an_overtaken_commit_is_made_again(place: HubPlace, tiny: Publication) -> None:
    place.hub.fail("POST", "/commit/", status=412, body=b'{"error": "The branch was updated"}')
    assert run(place.target(), tiny).verified


def test_what_the_hub_will_never_accept_is_not_repeated(place: HubPlace, tiny: Publication) -> None:
    place.hub.fail("POST", "/commit/", times=99, status=422, body=b'{"error": "no such thing"}')
    with pytest.raises(HubError, match="no such thing") as caught:
        run(place.target(), tiny)
    assert not isinstance(caught.value, TransientHubError)
    assert len(place.hub.requests("POST", "/commit/")) == 1


def test_offline_mode_is_named(place: HubPlace, tiny: Publication, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE"):
        run(place.target(), tiny)


# --- what is stored --------------------------------------------------------------------------------------------------


def test_a_blob_that_arrives_corrupted_is_never_shown(place: HubPlace, tiny: Publication) -> None:
    arrived = {"lfs": ("PUT", "/_lfs/"), "xet": ("POST", "/v2/shards")}  # spoilt once it has been accepted
    place.hub.fail(*arrived[place.transport], corrupt=True)
    with pytest.raises(HubError, match="sha256") as caught:
        run(place.target(), tiny)
    assert caught.value.exit_code == 4
    assert place.settings()[0]
    assert place.hub.requests("PUT", "/settings") == []
    assert not any("README.md" in name for name in place.uploaded())


def test_contents_kept_at_another_origin_are_read_back(place: HubPlace, tiny: Publication) -> None:
    place.hub.redirect = True
    assert run(place.target(), tiny).verified
    assert len(place.hub.requests("GET", "/_lfs/" if place.transport == "lfs" else "/_xet/")) == 2


def test_a_local_cache_does_not_vouch_for_the_hub(place: HubPlace, tiny: Publication) -> None:
    run(place.target(), tiny)
    snapshot_download(REPO, endpoint=place.hub.endpoint, token=place.hub.token)
    place.corrupt("config.json")
    assert [item.path for item in verify(place.target(), tiny.manifest)] == ["config.json"]


def test_large_files_are_judged_by_the_digest_the_hub_records(place: HubPlace, tiny: Publication) -> None:
    assert run(place.target(read_limit=1000), tiny).verified
    assert place.hub.requests("GET", r"/resolve/.*\.safetensors$") == []
    assert len(place.hub.requests("GET", r"/resolve/.*/config\.json")) == 1


def test_transferred_contents_are_not_sent_twice(place: HubPlace, tiny: Publication) -> None:
    place.hub.fail("POST", "/commit/", times=99, status=500)
    with pytest.raises(HubError):
        run(place.target(), tiny)
    sent = transferred(place)
    place.hub.faults.clear()
    run(place.target(), tiny)
    assert transferred(place) == sent == {"lfs": 2, "xet": 1}[place.transport]  # both files fit into one xorb


def test_one_call_gates_and_shows(place: HubPlace, tiny: Publication) -> None:
    run(place.target(), tiny)
    calls = place.hub.requests("PUT", "/settings")
    assert [call.json() for call in calls] == [{"gated": "manual", "visibility": "public"}]
    states = [item.state[REPO] for item in place.hub.log if REPO in item.state]
    assert [state for state, before in zip(states, [None, *states], strict=False) if state != before] == [
        (True, False),
        (False, "manual"),
    ]


def test_the_hubs_own_file_is_neither_stale_nor_ours(place: HubPlace, tiny: Publication) -> None:
    run(place.target(), tiny)
    assert ".gitattributes" in place.hub.repos[REPO].files


# --- secrets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "pattern", "fault"),
    [
        ("POST", "/commit/", {"status": 500, "body": json.dumps({"error": f"trace {CANARY}"}).encode()}),
        ("PUT", "/_lfs/", {"drop": True}),
        ("PUT", "/_lfs/", {"status": 403, "body": b"<Error>SignatureDoesNotMatch</Error>"}),
        ("GET", "whoami", {"status": 401, "body": json.dumps({"error": f"Bearer {CANARY} expired"}).encode()}),
        ("PUT", "/settings", {"status": 400, "body": json.dumps({"error": CANARY}).encode()}),
        ("PUT", "/settings", {"status": 400, "body": json.dumps({"error": SHAPELESS}).encode()}),
        ("GET", "nothing", {}),
    ],
)
@pytest.mark.parametrize("token", [CANARY, SHAPELESS])
def test_no_token_and_no_signature_is_ever_told(
    place: HubPlace,
    tiny: Publication,
    method: str,
    pattern: str,
    fault: dict[str, Any],
    token: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.WARNING)
    place.hub.add_user(token, "ada", orgs={"org": "admin"})
    place.hub.fail(method, pattern, times=1000, **fault)
    told: list[Any] = []
    target = place.target(token)
    try:
        told.append(run(target, tiny, emit=lambda kind, payload: told.append(payload)).to_json())
    except PublisherError as error:
        told += traceback.format_exception(error)
        told += [error.message, error.hint, repr(error.args)]
    text = json.dumps(told, default=str) + repr(target) + json.dumps(tiny.manifest.to_json())
    heard = text + caplog.text + "".join(capfd.readouterr())
    assert CANARY not in heard
    assert token not in heard
    assert "X-Amz-Signature" not in text
