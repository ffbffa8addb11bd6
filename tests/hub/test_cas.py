"""The loopback Hub's Xet store against the real client: what arrives is what was sent, and who may fetch it."""

from __future__ import annotations

import hashlib
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import CommitOperationAdd, HfApi, constants, get_session
from huggingface_hub.errors import BadRequestError, GatedRepoError, RepositoryNotFoundError
from hypothesis import given
from hypothesis import strategies as st

from publisher.checkpoint import source
from publisher.checkpoint.files import LocalFiles
from tests.hub.loopback import Fault, LoopbackHub, Request
from tests.hub.xorbs import GROUPED_LZ4, LZ4, SHARD_TAG, STORED, Malformed, Store, Xorb, shard_files, unframed

pytestmark = pytest.mark.usefixtures("xet")
MODEL = "org/model"
RANDOM = np.random.default_rng(0)
CONTENTS = {
    "noise.safetensors": RANDOM.bytes(300_001),
    "floats.safetensors": RANDOM.normal(size=60_000).astype("<f4").tobytes() + b"abc",
    "text.safetensors": b"the same words again and again, " * 20_000,
    "zeros.safetensors": bytes(1_000_003),
    "short.safetensors": b"x",
}


@pytest.fixture
def api(hub: LoopbackHub) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=hub.token)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "sent"
    made.mkdir()
    for name, data in CONTENTS.items():
        (made / name).write_bytes(data)
    return made


def upload(api: HfApi, folder: Path, repo: str = MODEL) -> None:
    """As the publisher does it: contents first, then one commit that names them."""
    api.create_repo(repo, private=True, exist_ok=True)
    operations = [CommitOperationAdd(path.name, str(path)) for path in sorted(folder.iterdir())]
    api.preupload_lfs_files(repo, operations, free_memory=False)
    api.create_commit(repo, operations, commit_message="all")


def stored(hub: LoopbackHub, repo: str = MODEL) -> dict[str, bytes]:
    files = hub.repos[repo].files
    return {name: hub.blobs[item.oid][:] for name, item in files.items() if name != ".gitattributes"}


def downloaded(hub: LoopbackHub, name: str, folder: Path, *, token: str | None = None, repo: str = MODEL) -> bytes:
    api = HfApi(endpoint=hub.endpoint, token=token or hub.token)
    return Path(api.hf_hub_download(repo, name, local_dir=folder)).read_bytes()


# --- what arrives ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_stored_is_what_was_sent(hub: LoopbackHub, api: HfApi, folder: Path, version: int) -> None:
    hub.xet_version = version
    upload(api, folder)
    assert stored(hub) == CONTENTS
    assert {chunk.sent[4] for xorb in hub.store.xorbs.values() for chunk in xorb.chunks} == {STORED, LZ4, GROUPED_LZ4}
    assert hub.requests("POST", f"/cas/v{version}/shards")[-1].status == 200
    assert hub.requests("PUT", "/_lfs/") == hub.requests("POST", "/objects/batch") == []


def test_a_whole_folder_in_the_clients_own_pipeline(hub: LoopbackHub, api: HfApi, folder: Path) -> None:
    api.create_repo(MODEL)
    api.upload_folder(repo_id=MODEL, folder_path=folder)
    assert stored(hub) == CONTENTS
    assert len(hub.repos[MODEL].commits) == 2


@pytest.mark.parametrize("version", [1, 2])
def test_downloads_come_from_the_store(
    hub: LoopbackHub, api: HfApi, folder: Path, tmp_path: Path, version: int
) -> None:
    upload(api, folder)
    hub.xet_version = version
    for name, data in CONTENTS.items():
        assert downloaded(hub, name, tmp_path / "copy") == data
    assert hub.requests("GET", "/_xet/")
    assert hub.requests("GET", "/resolve/") == []


def test_files_that_came_another_way_are_read_over_xet_too(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.seed_repo(MODEL, CONTENTS | {"config.json": b"{}"})
    for name, data in CONTENTS.items():
        assert downloaded(hub, name, tmp_path) == data
    assert downloaded(hub, "config.json", tmp_path) == b"{}"
    assert [item.path.rsplit("/", 1)[1] for item in hub.requests("GET", "/resolve/")] == ["config.json"]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("span", [(0, 1), (0, 70_000), (65_536, 65_537), (100_000, 299_999), (299_990, 400_000)])
def test_a_range_is_told_by_chunks(hub: LoopbackHub, api: HfApi, folder: Path, version: int, span: Any) -> None:
    """The parts that a reconstruction names, fetched and decoded, hold the range asked for."""
    upload(api, folder)
    hub.xet_version = version
    item = api.get_paths_info(MODEL, ["noise.safetensors"])[0]
    granted = (
        get_session().get(f"{hub.endpoint}/api/models/{MODEL}/xet-read-token/main", headers=bearer(hub.token)).json()
    )
    headers = bearer(granted["accessToken"]) | {"Range": f"bytes={span[0]}-{span[1] - 1}"}
    found = get_session().get(f"{granted['casUrl']}/v{version}/reconstructions/{item.xet_hash}", headers=headers).json()
    pieces = b""
    for term in found["terms"]:
        fetches = found["fetch_info" if version == 1 else "xorbs"][term["hash"]]
        parts = [fetch if version == 1 else fetch | fetch["ranges"][0] for fetch in fetches]
        at, chunks = ("url_range", "range") if version == 1 else ("bytes", "chunks")
        part = next(part for part in parts if part[chunks]["start"] <= term["range"]["start"])
        sent = get_session().get(part["url"], headers={"Range": f"bytes={part[at]['start']}-{part[at]['end']}"})
        assert sent.status_code == 206
        decoded = [chunk.data() for chunk in Xorb.parsed(sent.content).chunks]
        first = term["range"]["start"] - part[chunks]["start"]
        run = b"".join(decoded[first : first + term["range"]["end"] - term["range"]["start"]])
        assert len(run) == term["unpacked_length"]
        pieces += run
    skipped = found["offset_into_first_range"]
    data = CONTENTS["noise.safetensors"][slice(*span)]
    assert pieces[skipped : skipped + len(data)] == data


def test_contents_are_sent_once(hub: LoopbackHub, api: HfApi, folder: Path) -> None:
    upload(api, folder)
    before = len(hub.requests("POST", "/xorbs/"))
    upload(api, folder, "org/again")
    assert stored(hub, "org/again") == CONTENTS
    assert len(hub.requests("POST", "/xorbs/")) == before


KILLED = """
import sys
from publisher.hub import client  # sets how often the transport remembers what it sent
from huggingface_hub import CommitOperationAdd, HfApi, constants
constants.HF_HUB_DISABLE_XET = False
api = HfApi(endpoint=sys.argv[1], token=sys.argv[2])
operations = [CommitOperationAdd("large.safetensors", sys.argv[3])]
api.preupload_lfs_files(sys.argv[4], operations, free_memory=False)
api.create_commit(sys.argv[4], operations, commit_message="all")
"""


@pytest.mark.slow
def test_an_upload_that_was_killed_does_not_begin_anew(hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
    """The process dies while its third part of four is on the way; the next one does not send all four again."""
    api.create_repo(MODEL, private=True)
    large = tmp_path / "large.safetensors"
    large.write_bytes(RANDOM.bytes(240 << 20))
    command = [sys.executable, "-c", KILLED, hub.endpoint, hub.token, str(large), MODEL]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def kill(request: Request) -> Fault | None:
        if "/xorbs/" in request.path and len(hub.store.xorbs) == 2:
            time.sleep(1.5)  # longer than the transport takes to write down what it has sent
            process.kill()
            return Fault(drop=True)
        return None

    hub.faults.append(kill)
    assert process.wait(60) == -signal.SIGKILL
    hub.faults.clear()
    before = [request.path for request in hub.requests("POST", "/xorbs/") if request.status == 200]
    assert len(before) == 2
    subprocess.run(command, check=True, timeout=60, stderr=subprocess.DEVNULL)
    sent = {request.path for request in hub.requests("POST", "/xorbs/")[len(before) :] if request.status == 200}
    assert len(sent - set(before)) == 2
    assert len(sent & set(before)) <= 1
    assert hub.repos[MODEL].files["large.safetensors"].oid == hashlib.sha256(large.read_bytes()).hexdigest()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


# --- what does not ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
def test_contents_that_arrive_spoilt_are_refused(hub: LoopbackHub, api: HfApi, folder: Path, version: int) -> None:
    hub.xet_version = version
    hub.fail("POST", "/xorbs/", corrupt=True)
    with pytest.raises(Exception, match=r"(?s)sha256|400|[Ss]hard"):
        upload(api, folder)
    assert hub.requests("POST", "/commit/") == []
    assert not hub.repos[MODEL].files.keys() & CONTENTS.keys()


def test_a_commit_cannot_name_what_never_arrived(hub: LoopbackHub, api: HfApi, folder: Path) -> None:
    hub.fail("POST", "/v2/shards", status=200, body=b'{"type": "result"}\n')
    with pytest.raises(BadRequestError, match="not uploaded"):
        upload(api, folder)
    assert not hub.repos[MODEL].files.keys() & CONTENTS.keys()


def test_what_spoils_after_it_was_accepted_is_noticed_by_nobody(
    hub: LoopbackHub, api: HfApi, folder: Path, tmp_path: Path
) -> None:
    hub.fail("POST", "/v2/shards", corrupt=True)
    upload(api, folder)
    copies = {name: downloaded(hub, name, tmp_path / "copy") for name in CONTENTS}
    assert copies == stored(hub)
    assert sum(copies[name] != CONTENTS[name] for name in CONTENTS) == 1
    listed = {item.path: item.lfs.sha256 for item in api.list_repo_tree(MODEL) if getattr(item, "lfs", None)}
    assert listed == {name: hashlib.sha256(data).hexdigest() for name, data in CONTENTS.items()}


def test_an_address_that_expired(hub: LoopbackHub, api: HfApi, folder: Path, tmp_path: Path) -> None:
    upload(api, folder)
    hub.lifetime = -1.0
    with pytest.raises(Exception, match="403"):
        downloaded(hub, "noise.safetensors", tmp_path / "copy")
    hub.lifetime = None
    assert downloaded(hub, "noise.safetensors", tmp_path / "copy") == CONTENTS["noise.safetensors"]


@pytest.mark.parametrize("fault", [{"status": 503}, {"drop": True}, {"lose_reply": True}], ids=str)
@pytest.mark.parametrize("pattern", ["/xorbs/", "/shards", "/xet-write-token/"])
def test_one_bad_moment_is_survived_by_the_client_itself(
    hub: LoopbackHub, api: HfApi, folder: Path, pattern: str, fault: dict[str, Any]
) -> None:
    hub.fail("GET" if "token" in pattern else "POST", pattern, **fault)
    upload(api, folder)
    assert stored(hub) == CONTENTS
    assert hub.log[-1].state[MODEL] == (True, False)


# --- who may ---------------------------------------------------------------------------------------------------------


def test_the_gate_and_privacy_hold_for_read_tokens(hub: LoopbackHub, tmp_path: Path) -> None:
    repo = hub.seed_repo(MODEL, CONTENTS, gated="manual")
    bob = hub.add_user("hf_strangerToken0000", "bob")
    route = f"{hub.endpoint}/api/models/{MODEL}/xet-read-token/main"
    assert get_session().get(route, headers=bearer(bob)).status_code == 403
    assert get_session().get(route).status_code == 401
    with pytest.raises(GatedRepoError):
        downloaded(hub, "short.safetensors", tmp_path, token=bob)
    repo.accepted.add("bob")
    assert downloaded(hub, "short.safetensors", tmp_path, token=bob) == b"x"
    repo.private = True
    assert get_session().get(route, headers=bearer(bob)).status_code == 404
    with pytest.raises(RepositoryNotFoundError):
        HfApi(endpoint=hub.endpoint, token=bob).model_info(MODEL)


def test_a_store_token_does_what_it_was_given_for(hub: LoopbackHub) -> None:
    hub.seed_repo(MODEL, CONTENTS)
    hub.seed_repo("org/secret", {"other.safetensors": b"secret"}, private=True)
    xet_hash = {"open": hub.repos[MODEL].files["short.safetensors"].oid}
    xet_hash["secret"] = hub.repos["org/secret"].files["other.safetensors"].oid
    read = get_session().get(f"{hub.endpoint}/api/models/{MODEL}/xet-read-token/main").json()["accessToken"]
    cas = f"{hub.endpoint}/cas"

    def status(method: str, path: str, token: str) -> int:
        return get_session().request(method, cas + path, headers=bearer(token)).status_code

    assert status("GET", f"/v2/reconstructions/{xet_hash['open']}", read) == 200
    assert status("GET", f"/v2/reconstructions/{xet_hash['secret']}", read) == 404
    assert status("POST", f"/v1/xorbs/default/{'0' * 64}", read) == 403
    assert status("POST", "/v2/shards", read) == 403
    assert status("GET", f"/v2/reconstructions/{xet_hash['open']}", hub.token) == 401
    assert status("GET", f"/v2/reconstructions/{xet_hash['open']}", "xet-made-up") == 401
    assert get_session().get(f"{hub.endpoint}/api/models/org/secret", headers=bearer(read)).status_code == 401
    hub.xet_lifetime = -1.0
    late = get_session().get(f"{hub.endpoint}/api/models/{MODEL}/xet-read-token/main").json()["accessToken"]
    assert status("GET", f"/v2/reconstructions/{xet_hash['open']}", late) == 401


def test_write_tokens_are_for_writers(hub: LoopbackHub) -> None:
    hub.seed_repo(MODEL, CONTENTS)
    bob = hub.add_user("hf_strangerToken0000", "bob")
    route = f"{hub.endpoint}/api/models/{MODEL}/xet-write-token/main"
    assert get_session().get(route, headers=bearer(bob)).status_code == 403
    assert get_session().get(route, headers=bearer(hub.token)).status_code == 200


# --- the formats -----------------------------------------------------------------------------------------------------

# An LZ4 frame of one block made by hand: a literal "ab", a copy of 8 bytes from 2 back, the literals "cdefg".
FRAME = bytes.fromhex("04224d184040c0") + (11).to_bytes(4, "little") + b"\x24ab\x02\x00\x50cdefg" + bytes(4)


def test_an_lz4_frame_made_by_hand() -> None:
    assert unframed(FRAME) == b"ab" + b"abababab" + b"cdefg"


@pytest.mark.parametrize("broken", [FRAME[:12], FRAME[:-9], b"none", FRAME.replace(b"\x02\x00", b"\x09\x00")])
def test_an_lz4_frame_that_is_broken(broken: bytes) -> None:
    with pytest.raises(Malformed):
        unframed(broken)


def hand_made_shard(data: bytes) -> bytes:
    """One file of one term with a verification hash and its sha256, in a xorb whose name is 32 bytes 0x11."""
    name, digest = b"\x11" * 32, hashlib.sha256(data).digest()
    words = b"".join(digest[n : n + 8][::-1] for n in range(0, 32, 8))
    return b"".join(
        (
            SHARD_TAG + struct.pack("<QQ", 2, 0),
            b"\x22" * 32 + struct.pack("<IIQ", 0xC0000000, 1, 0),
            name + struct.pack("<IIII", 0, len(data), 0, 1),
            b"\x33" * 48,
            words + bytes(16),
            b"\xff" * 32 + bytes(16),
            b"\xff" * 32 + bytes(16),
        )
    )


def test_a_shard_made_by_hand() -> None:
    store = Store(xorbs={"11" * 32: Xorb.of(b"contents")})
    (file,) = shard_files(hand_made_shard(b"contents"))
    assert (file.id, file.terms[0].xorb, file.terms[0].size) == ("22" * 32, "11" * 32, 8)
    assert store.add(file)[2:6] == b"nten"
    with pytest.raises(Malformed, match="sha256"):
        store.add(shard_files(hand_made_shard(b"another."))[0])
    with pytest.raises(Malformed, match="not uploaded"):
        Store().add(file)


@given(st.binary(min_size=1, max_size=300), st.integers(0, 255), st.integers(0), st.integers(0))
def test_a_damaged_upload_is_refused_or_is_the_same_contents(data: bytes, byte: int, place: int, cut: int) -> None:
    def damaged(sent: bytes) -> bytes:
        changed = bytearray(sent)
        changed[place % len(sent)] = byte
        return bytes(changed[: cut % (4 * len(sent))])

    for xorb, shard in ((True, False), (False, True)):
        good = Xorb.of(data).served()
        try:
            store = Store(xorbs={"11" * 32: Xorb.parsed(damaged(good) if xorb else good)})
            sent = hand_made_shard(data)
            files = [store.add(file) for file in shard_files(damaged(sent) if shard else sent)]
        except Malformed:
            continue
        assert [file[:] for file in files] in ([data], [])


def test_an_upload_that_is_no_xorb_or_no_shard_is_refused(hub: LoopbackHub) -> None:
    hub.seed_repo(MODEL, {})
    route = f"{hub.endpoint}/api/models/{MODEL}/xet-write-token/main"
    headers = bearer(get_session().get(route, headers=bearer(hub.token)).json()["accessToken"])
    cas = f"{hub.endpoint}/cas"
    assert (
        get_session().post(f"{cas}/v1/xorbs/default/{'0' * 64}", content=b"nonsense", headers=headers).status_code
        == 400
    )
    assert get_session().post(f"{cas}/v1/shards", content=b"nonsense", headers=headers).status_code == 400
    told = get_session().post(f"{cas}/v2/shards", content=b"nonsense", headers=headers)
    assert told.json() == {"type": "error", "message": "no shard of version 2", "retryable": False}
    assert hub.store.xorbs == {}


def test_a_source_that_came_over_xet_is_whole_in_the_clients_cache(
    hub: LoopbackHub, xet: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client keeps such files two links away from the snapshot, in a store that all repositories share."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    shard = b"a shard " * 3000
    hub.seed_repo("upstream/model", {"config.json": b"{}", "model.safetensors": shard})
    found = source.resolve("hf://upstream/model", endpoint=hub.endpoint, token=hub.token)
    files = LocalFiles(source.fetch(found, endpoint=hub.endpoint, token=hub.token))
    assert hub.requests("GET", "/reconstructions/")
    assert (files.outside, files.read("model.safetensors")) == ((), shard)
    assert files.sizes["model.safetensors"] == len(shard)
