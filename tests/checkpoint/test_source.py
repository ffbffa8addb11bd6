"""Sources on a loopback Hub, through the real client: pinned, read by ranges, fetched, refusals explained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.utils._http as client
import numpy as np
import pytest
from safetensors.numpy import save

from publisher.checkpoint.open import open_checkpoint
from publisher.checkpoint.pace import Pace
from publisher.checkpoint.remote import HubFiles
from publisher.checkpoint.source import fetch, parse_spec, resolve
from publisher.errors import AccessError, CheckpointError, HubError, PublisherError
from tests.hub.loopback import LoopbackHub

WEIGHTS = np.arange(1 << 20, dtype=np.float32).reshape(1024, 1024)
FILES = {
    "config.json": json.dumps({"model_type": "llama"}).encode(),
    "model.safetensors": save({"a.weight": WEIGHTS, "b.bias": np.ones(3, np.float32)}),
    "pytorch_model.bin": b"\x80" * 1000,
    "LICENSE": b"free\r\n",
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    monkeypatch.setattr(client, "time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr(Pace, "sleep", lambda self, seconds: None)
    with LoopbackHub() as server:
        server.seed_repo("upstream/model", FILES)
        yield server
    client.close_session()


def test_a_repository_is_pinned_and_looked_at_by_ranges(hub: LoopbackHub) -> None:
    source = resolve("hf://upstream/model", endpoint=hub.endpoint, token=hub.token)
    assert source.repo == "upstream/model"
    assert source.commit == hub.repos["upstream/model"].head
    assert source.label == f"hf://upstream/model@{source.commit}"
    checkpoint = open_checkpoint(source.files)
    assert checkpoint.tensors["a.weight"].shape == (1024, 1024)
    assert isinstance(source.files, HubFiles)
    assert source.files.bytes_fetched < 300_000, "headers must not cost the 4 MB of weights"
    assert checkpoint.read(checkpoint.tensors["a.weight"]) == WEIGHTS.tobytes()


def test_a_revision_stays_what_it_was(hub: LoopbackHub) -> None:
    before = resolve("hf://upstream/model", endpoint=hub.endpoint, token=hub.token)
    repo = hub.repos["upstream/model"]
    stored = type(next(iter(repo.files.values()))).of(b'{"model_type": "other"}', False)
    repo.add("change", {**repo.files, "config.json": stored})
    again = resolve(f"hf://upstream/model@{before.commit}", endpoint=hub.endpoint, token=hub.token)
    assert open_checkpoint(again.files).config == {"model_type": "llama"}
    assert open_checkpoint(resolve("hf://upstream/model", endpoint=hub.endpoint, token=hub.token).files).config == {
        "model_type": "other"
    }


def test_fetched_once_and_without_foreign_weights(hub: LoopbackHub) -> None:
    source = resolve("hf://upstream/model", endpoint=hub.endpoint, token=hub.token)
    seen: list[tuple[int, int]] = []
    folder = fetch(source, endpoint=hub.endpoint, token=hub.token, progress=lambda *n: seen.append(n))
    assert (folder / "LICENSE").read_bytes() == FILES["LICENSE"]
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert not (folder / "pytorch_model.bin").exists()
    assert open_checkpoint(folder).config == {"model_type": "llama"}, "the cache's links are followed"
    assert seen
    bodies = len(hub.requests("GET", "/resolve/.*safetensors"))
    fetch(source, endpoint=hub.endpoint, token=hub.token)
    assert len(hub.requests("GET", "/resolve/.*safetensors")) == bodies, "a second run downloads nothing"


def test_a_folder_is_its_own_source(tmp_path: Path) -> None:
    source = resolve(str(tmp_path))
    assert (source.repo, source.commit, fetch(source)) == (None, None, tmp_path)


def test_a_busy_hub_is_asked_again(hub: LoopbackHub) -> None:
    source = resolve("hf://upstream/model", endpoint=hub.endpoint, token=hub.token)
    hub.fail("GET", "/resolve/.*/config.json", times=2, status=503)
    assert open_checkpoint(source.files).config == {"model_type": "llama"}


@pytest.mark.parametrize(
    ("settings", "token", "error", "says"),
    [
        ({"private": True}, "hf_nobodyNobody00", AccessError, "does not know this token"),
        ({"private": True}, "hf_readerReader00", AccessError, "no repository other/secret, or it is private"),
        ({"gated": "manual"}, "hf_readerReader00", AccessError, "gated"),
    ],
)
def test_refusals_say_what_to_do(
    hub: LoopbackHub, settings: dict, token: str, error: type[PublisherError], says: str
) -> None:
    if "Reader" in token:
        hub.add_user(token, "reader", role="read")
    hub.seed_repo("other/secret", FILES, **settings)
    with pytest.raises(error, match=says) as caught:
        open_checkpoint(resolve("hf://other/secret", endpoint=hub.endpoint, token=token).files)
    assert caught.value.hint
    assert token not in str(caught.value)


@pytest.mark.parametrize("body", [b"<html>Sign in to the network</html>", b'{"siblings": 5}', b"[]"])
def test_a_login_page_instead_of_the_hub_is_a_hub_error(hub: LoopbackHub, body: bytes) -> None:
    hub.fail("GET", "/api/", times=1000, status=200, body=body)
    with pytest.raises(HubError, match="does not speak as the Hub") as caught:
        open_checkpoint(resolve("hf://upstream/model", endpoint=hub.endpoint, token=hub.token).files)
    assert "HF_ENDPOINT" in caught.value.hint


def test_no_such_revision_and_no_such_hub(hub: LoopbackHub) -> None:
    with pytest.raises(CheckpointError, match="no revision nowhere"):
        resolve("hf://upstream/model@nowhere", endpoint=hub.endpoint, token=hub.token)
    with pytest.raises(HubError, match=r"network|reached") as caught:
        resolve("hf://upstream/model", endpoint="http://127.0.0.1:9", token=False)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    "spec",
    [
        "hf://model",
        "hf://../etc",
        "hf://a/b@",
        "hf://a/b/c",
        "hf://a/b@x y",
        "hf://-a/b",
        "hf://a/b\n",
        "hf://a/b@../c",
    ],
)
def test_what_is_no_repository_is_refused(spec: str) -> None:
    with pytest.raises(PublisherError, match="no Hub repository"):
        parse_spec(spec)


def test_a_bare_repository_name_is_told_how_to_be_written() -> None:
    with pytest.raises(CheckpointError, match="no folder org/model") as caught:
        resolve("org/model")
    assert "hf://org/model" in caught.value.hint


def test_a_path_that_is_none_is_not_taken_for_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        resolve("./nosuch")
    assert "hf://./nosuch" not in caught.value.hint
    with pytest.raises(CheckpointError) as caught:
        resolve("org/nosuch")
    assert "hf://org/nosuch" in caught.value.hint
