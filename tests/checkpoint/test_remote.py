"""Repositories read by ranges from a Hub that is late, busy, cut off, dishonest or closed: what a reader gets then."""

from __future__ import annotations

import json
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from publisher.checkpoint import remote as module
from publisher.checkpoint import wire
from publisher.checkpoint.open import Checkpoint, open_checkpoint
from publisher.checkpoint.remote import HubFiles
from publisher.checkpoint.source import resolve
from publisher.errors import AccessError, CheckpointError, HubError, PublisherError
from tests.checkpoint.conftest import SHARDS, sharded
from tests.hub.loopback import LoopbackHub

SHARD = SHARDS[2]
PAGE = b'[{"type": "directory", "path": "d"}]'


def files(hub: LoopbackHub, repo: str = "org/model", **more: object) -> HubFiles:
    found = resolve(f"hf://{repo}", **{"endpoint": hub.endpoint, "token": hub.token, **more}).remote
    assert found is not None
    return found


def opened(hub: LoopbackHub, repo: str = "org/model", **more: object) -> Checkpoint:
    return open_checkpoint(files(hub, repo, **more))


def headers(hub: LoopbackHub) -> list[str]:
    """The shards that were asked for, once for each request."""
    return [request.path.rpartition("/")[2] for request in hub.requests("GET", r"/resolve/.*\.safetensors$")]


# --- how often and how much ----------------------------------------------------------------------------------------


def test_each_header_is_one_request_and_none_the_second_time(remote: LoopbackHub) -> None:
    first = opened(remote)
    assert sorted(headers(remote)) == SHARDS
    assert len(first.tensors) == 5
    asked = len(remote.log)
    again = opened(remote)
    assert again.tensors == first.tensors
    assert [request.path for request in remote.log[asked:]] == ["/api/models/org/model"], "only: may this login read it"
    assert isinstance(again.files, HubFiles)
    assert (again.files.requests, again.files.bytes_fetched) == (0, 0)


def test_the_index_tells_how_long_a_header_is(remote: LoopbackHub) -> None:
    many = {f"model.layers.7.mlp.experts.{n}.down_proj.weight_scale_2": np.zeros(1, np.float32) for n in range(5000)}
    shard = save(many)
    index = {"weight_map": dict.fromkeys(many, "model-00001-of-00001.safetensors")}
    both = {"model-00001-of-00001.safetensors": shard, "model.safetensors.index.json": json.dumps(index).encode()}
    remote.seed_repo("org/long", {"config.json": b"{}", **both})
    length = int.from_bytes(shard[:8], "little")
    assert length > 500_000
    assert len(opened(remote, "org/long").tensors) == 5000
    (request,) = remote.requests("GET", r"/resolve/.*\.safetensors$")
    assert length + 8 <= int((request.range or "").rpartition("-")[2]) + 1 < length * 1.25
    remote.seed_repo("org/unlisted", {"config.json": b"{}", "model.safetensors": shard})
    assert len(opened(remote, "org/unlisted").tensors) == 5000, "without an index a second request fetches the rest"
    assert len(remote.requests("GET", r"org/unlisted/resolve/.*\.safetensors$")) == 2


def test_headers_are_fetched_several_at_a_time(remote: LoopbackHub) -> None:
    one = save({"a": np.zeros(1, np.float32)})
    remote.seed_repo("org/many", {"config.json": b"{}"} | {f"{n:03d}.safetensors": one for n in range(64)})
    remote.latency = 0.05
    began = time.monotonic()
    assert len(opened(remote, "org/many").shards) == 64
    assert time.monotonic() - began < 64 * 0.05 / 2


def test_an_interrupted_reading_goes_on_where_it_was(remote: LoopbackHub) -> None:
    remote.fail("GET", SHARDS[3], times=100, status=503)
    with pytest.raises(HubError, match=SHARDS[3]) as caught:
        opened(remote)
    assert "again" in caught.value.hint
    asked = len(remote.log)
    remote.faults.clear()
    assert len(opened(remote).tensors) == 5
    missing = {request.path.rpartition("/")[2] for request in remote.log[asked:] if "/resolve/" in request.path}
    assert missing == {SHARDS[3]}


def test_what_a_reading_will_ask_for(remote: LoopbackHub) -> None:
    checkpoint = opened(remote)
    reads = [(ref.shard, ref.begin, ref.end) for ref in checkpoint.tensors.values()]
    assert isinstance(checkpoint.files, HubFiles)
    checkpoint.files.read(*reads[0])
    outlook = checkpoint.files.outlook(reads)
    assert (outlook.requests, outlook.size, outlook.cached) == (4, 4 << 14, 1)
    assert checkpoint.files.repository_bytes == sum(item.size for item in remote.repos["org/model"].files.values())


def test_a_listing_of_several_pages(remote: LoopbackHub) -> None:
    remote.page_size = 2
    assert set(files(remote).sizes) == {*sharded(), ".gitattributes"}


# --- cut off, too much, lies ---------------------------------------------------------------------------------------


def test_a_reply_that_breaks_off_is_continued(remote: LoopbackHub) -> None:
    remote.fail("GET", SHARD, times=2, cut=100)
    assert files(remote).read(SHARD, 0, 5000) == sharded()[SHARD][:5000]
    ranges = [request.range for request in remote.requests("GET", SHARD)]
    assert ranges == ["bytes=0-4999", "bytes=100-4999", "bytes=200-4999"]


def test_a_server_that_always_cuts_is_named_with_its_bytes(remote: LoopbackHub) -> None:
    remote.fail("GET", SHARD, times=1000, cut=100)
    with pytest.raises(HubError, match=r"00003-of-00005.*600 of 5,000 bytes from byte 8 ") as caught:
        files(remote).read(SHARD, 8, 5008)
    assert "what has been read is kept" in caught.value.hint
    assert caught.value.exit_code == 4


def test_a_short_answer_that_claims_to_be_whole_is_noticed(remote: LoopbackHub) -> None:
    remote.fail("GET", SHARD, times=1000, cut=100, lies={"Content-Length": "100", "Connection": "close"})
    with pytest.raises(HubError, match="cut off"):
        files(remote).read(SHARD, 0, 5000)


def test_ranges_that_are_ignored(remote: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    remote.fail("GET", SHARD, times=1000, whole=True)
    assert files(remote).read(SHARD, 5000, 6000) == sharded()[SHARD][5000:6000]
    monkeypatch.setattr(wire, "MAX_SKIP", 100)
    with pytest.raises(HubError, match="ignores range") as caught:
        files(remote).read(SHARD, 7000, 7100)
    assert "Download" in caught.value.hint


@pytest.mark.parametrize("fault", [{"more": 1 << 20}, {"endless": True}, {"whole": True, "endless": True}])
def test_more_than_was_asked_for_is_not_taken(remote: LoopbackHub, fault: dict) -> None:
    place = files(remote)
    remote.fail("GET", SHARD, times=1000, **fault)
    tracemalloc.start()
    try:
        assert place.read(SHARD, 8, 4008) == sharded()[SHARD][8:4008]
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"lies": {"Content-Range": "bytes 0-99/16512"}}, "another range"),
        ({"lies": {"Content-Range": "bytes"}}, "another range"),
        ({"lies": {"Content-Range": "bytes 100-199/999999"}}, "in the Hub's listing and 999,999"),
        ({"whole": True, "lies": {"Content-Length": "77"}}, "in the Hub's listing and 77"),
        ({"lies": {"Content-Encoding": "gzip"}}, "compressed"),
        ({"lies": {"Content-Encoding": "br"}}, "compressed"),
        ({"status": 416}, "ends before its listed size"),
        ({"status": 204}, "204"),
        ({"status": 302}, "no encrypted address"),
        ({"status": 302, "headers": {"Location": "ftp://127.0.0.1/x"}}, "no encrypted address"),
        ({"status": 302, "headers": {"Location": "http://[::1"}}, "no encrypted address|RemoteProtocolError"),
        ({"status": 302, "headers": {"Location": "file:///etc/passwd"}}, "no encrypted address"),
        ({"status": 307, "headers": {"Location": "/org/model/resolve/main/" + SHARD}}, "redirects"),
    ],
)
def test_a_server_that_lies_is_an_error(remote: LoopbackHub, fault: dict, says: str) -> None:
    place = files(remote)
    remote.fail("GET", SHARD, times=1000, **fault)
    with pytest.raises(HubError, match=says) as caught:
        place.read(SHARD, 100, 200)
    assert caught.value.hint


def test_a_listing_that_lies_about_sizes(remote: LoopbackHub) -> None:
    stored = remote.repos["org/model"].files
    stored[SHARD].size += 1 << 30
    with pytest.raises(HubError, match=r"in the Hub's listing and"):
        opened(remote)
    remote.seed_repo("org/short", sharded())
    remote.repos["org/short"].files[SHARD].size = 10
    with pytest.raises(HubError, match="10 bytes in the Hub's listing"):
        opened(remote, "org/short")


@pytest.mark.parametrize("size", [-1, 2**63, "12", None, 1.5, True])
def test_a_size_that_is_none(remote: LoopbackHub, size: object) -> None:
    remote.repos["org/model"].files[SHARD].size = size  # type: ignore[assignment]
    with pytest.raises(HubError, match="with the size"):
        files(remote)


@pytest.mark.parametrize(
    ("body", "lies", "says"),
    [
        (b"{}", {}, "no list of files"),
        (b"[1]", {}, "without a path"),
        (b"<html>", {}, "no JSON"),
        (b"[" * 100_000, {}, "no JSON"),
        (PAGE, {"Link": '<https://elsewhere.example/x>; rel="next"'}, "elsewhere.example"),
        (PAGE, {"Link": '<http://[::1>; rel="next"'}, "goes on at"),
        (PAGE, {"Link": '</api/models/org/model/tree/x>; rel="next"'}, "without end"),
        (b"[]", {"Link": '</api/models/org/model/tree/x>; rel="next"'}, "without end"),
    ],
)
def test_a_listing_that_is_none(remote: LoopbackHub, body: bytes, lies: dict, says: str) -> None:
    remote.fail("GET", "/tree/", times=1000, status=200, body=body, headers=lies)
    with pytest.raises(HubError, match=says):
        files(remote)


def test_names_that_lead_out_are_not_listed(remote: LoopbackHub) -> None:
    listed = [{"type": "file", "path": path, "size": 1} for path in ("../x", "/etc/passwd", "a\x1b[2J", "ok.json")]
    remote.fail("GET", "/tree/", status=200, body=json.dumps([*listed, {"type": "directory", "path": "d"}]).encode())
    assert dict(files(remote).sizes) == {"ok.json": 1}


@pytest.mark.parametrize("commit", ["../../../../tmp", "main", "", 7, None, "A" * 40])
def test_a_commit_that_is_no_commit(remote: LoopbackHub, commit: object) -> None:
    remote.fail("GET", "/api/models/org/model$", status=200, body=json.dumps({"sha": commit}).encode())
    with pytest.raises(HubError, match="does not speak as the Hub"):
        files(remote)


def test_too_many_files_and_too_many_shards(remote: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [{"type": "file", "path": f"{n}.safetensors", "size": 1} for n in range(10_001)]
    remote.fail("GET", "/tree/", times=2, status=200, body=json.dumps(listed).encode())
    with pytest.raises(CheckpointError, match="10,001 shards"):
        opened(remote)
    monkeypatch.setattr(module, "MAX_FILES", 10_000)
    remote.seed_repo("org/huge", {"config.json": b"{}"})
    with pytest.raises(CheckpointError, match="more than 10,000 files"):
        files(remote, "org/huge")


def test_a_header_that_claims_everything_costs_one_small_read(remote: LoopbackHub) -> None:
    lying = (2**62).to_bytes(8, "little") + b"{}" + bytes(300_000)
    remote.seed_repo("org/lying", {"config.json": b"{}", "model.safetensors": lying})
    checkpoint = opened(remote, "org/lying")
    assert [flaw.kind for flaw in checkpoint.shards["model.safetensors"].flaws] == ["length"]
    assert isinstance(checkpoint.files, HubFiles)
    assert checkpoint.files.bytes_fetched < 200_000


def test_one_read_has_an_end(remote: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_READ", 1000)
    with pytest.raises(CheckpointError, match="at most 1,000"):
        files(remote).read(SHARD)
    with pytest.raises(CheckpointError, match="has no file"):
        files(remote).read("nothing.json")


# --- who may read --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("settings", "says"), [({"gated": "manual"}, "gated"), ({"private": True}, "no repository")])
def test_the_cache_is_no_way_around_a_closed_door(remote: LoopbackHub, settings: dict, says: str) -> None:
    remote.seed_repo("org/closed", sharded(), **settings)
    opened(remote, "org/closed")
    stranger = remote.add_user("hf_strangerStranger", "eve")
    for token in (stranger, False):
        with pytest.raises(AccessError, match=says) as caught:
            opened(remote, "org/closed", token=token)
        assert caught.value.exit_code == 3
        assert "hf auth" in caught.value.hint
    assert len(opened(remote, "org/closed").tensors) == 5, "those it admits are served"


def test_a_gate_that_closes_is_noticed(remote: LoopbackHub) -> None:
    reader = remote.add_user("hf_readerReader", "rea", role="read")
    opened(remote, token=reader)
    remote.repos["org/model"].gated = "auto"
    with pytest.raises(AccessError, match="gated"):
        opened(remote, token=reader)
    remote.repos["org/model"].accepted.add("rea")
    opened(remote, token=reader)


def test_nothing_secret_is_kept(remote: LoopbackHub, cache: Path) -> None:
    remote.redirect = True
    opened(remote)
    kept = [path for path in cache.rglob("*") if path.is_file()]
    assert len(kept) == len(SHARDS) + 3
    for path in kept:
        content = path.read_bytes() + str(path).encode()
        assert remote.token.encode() not in content
        assert b"sig=secret" not in content


# --- elsewhere -----------------------------------------------------------------------------------------------------


def test_the_login_stays_at_the_hub(remote: LoopbackHub) -> None:
    remote.redirect = True
    place = files(remote)
    assert place.read(SHARD, 0, 100) + place.read(SHARD, 200, 300) == sharded()[SHARD][:100] + sharded()[SHARD][200:300]
    stored = remote.requests("GET", "/_lfs/")
    assert len(stored) == 2
    assert {request.token for request in stored} == {None}
    assert {request.token for request in remote.requests("GET", "/resolve/")} == {remote.token}


def test_a_signed_address_is_used_again_until_it_expires(remote: LoopbackHub) -> None:
    remote.redirect = True
    remote.lifetime = 0.2
    place = files(remote)
    for begin in (0, 100, 200):
        place.read(SHARD, begin, begin + 50)
    assert len(remote.requests("GET", "/resolve/")) == 1
    time.sleep(0.25)
    assert place.read(SHARD, 300, 350) == sharded()[SHARD][300:350]
    assert len(remote.requests("GET", "/resolve/")) == 2


# --- busy ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "waited"),
    [
        ({"RateLimit": '"resolvers";r=0;t=55'}, 56),
        ({"Retry-After": "7"}, 8),
        ({"RateLimit": '"resolvers";r=3;t=55', "Retry-After": "7"}, 8),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, 1),
        ({"Retry-After": "-5"}, 1),
        ({"RateLimit": "nonsense"}, 1),
        ({}, 1),
    ],
)
def test_a_limit_is_waited_for_as_long_as_the_hub_says(
    remote: LoopbackHub, waits: list[float], headers: dict[str, str], waited: float
) -> None:
    told: list[str] = []
    place = files(remote, tell=told.append)
    remote.fail("GET", SHARD, status=429, headers=headers)
    assert place.read(SHARD, 0, 100) == sharded()[SHARD][:100]
    assert sum(waits) == pytest.approx(waited, abs=0.5)
    assert bool(told) == (waited > 1)
    assert all("waiting" in message for message in told)


def test_all_readers_wait_and_the_user_is_told_once(remote: LoopbackHub, waits: list[float]) -> None:
    told: list[str] = []
    remote.fail("GET", SHARDS[0], status=429, headers={"RateLimit": '"resolvers";r=0;t=100'})
    checkpoint = opened(remote, tell=told.append)
    assert len(checkpoint.tensors) == 5
    assert len(told) == 1
    assert "1 min 41 s" in told[0]


def test_the_last_allowed_reply_already_holds_back(remote: LoopbackHub, waits: list[float]) -> None:
    place = files(remote)
    remote.fail("GET", SHARD, times=1, lies={"RateLimit": '"resolvers";r=0;t=30'})
    place.read(SHARD, 0, 10)
    assert waits == []
    place.read(SHARD, 20, 30)
    assert waits == [pytest.approx(31, abs=0.5)]
    assert [request.status for request in remote.requests("GET", SHARD)] == [206, 206], "no 429 was provoked"


def test_a_hub_that_asks_for_hours_is_left_alone(remote: LoopbackHub, waits: list[float]) -> None:
    place = files(remote)
    remote.fail("GET", SHARD, times=1000, status=429, headers={"Retry-After": "99999999999"})
    with pytest.raises(HubError, match=r"asks to wait \d+ h") as caught:
        place.read(SHARD, 0, 10)
    assert waits == []
    assert "later" in caught.value.hint


def test_a_trickle_is_given_up(remote: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    place = files(remote)
    remote.fail("GET", SHARD, times=1000, trickle=0.02)
    monkeypatch.setattr(wire, "TIMEOUT", 0.1)
    with pytest.raises(HubError, match="slower than"):
        place.read(SHARD, 0, 4000)


def test_a_silent_hub_is_given_up(remote: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    place = files(remote)
    monkeypatch.setattr(wire, "TIMEOUT", 0.05)
    remote.latency = 0.3
    with pytest.raises(HubError, match=r"\(ReadTimeout\)"):
        place.read(SHARD, 0, 10)


def test_connections_that_drop_are_made_again(remote: LoopbackHub, waits: list[float]) -> None:
    place = files(remote)
    remote.fail("GET", SHARD, times=2, drop=True)
    assert place.read(SHARD, 0, 10) == sharded()[SHARD][:10]
    assert waits == [1, 2]


def test_an_interrupt_ends_the_wait(remote: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # real waits
    place = files(remote)
    remote.fail("GET", SHARD, times=1000, status=429, headers={"Retry-After": "500"})
    seen: list[BaseException] = []

    def read() -> None:
        try:
            place.read(SHARD, 0, 10)
        except PublisherError as error:
            seen.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.2)
    assert reader.is_alive()
    place.stop()
    reader.join(5)
    assert [type(error).__name__ for error in seen] == ["InterruptedRun"]
