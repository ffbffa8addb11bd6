"""Nothing secret leaves this machine: the push looks for itself, before the first request that changes anything."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest

from publisher.errors import PublisherError
from publisher.hub.intention import intend
from publisher.hub.push import push
from tests.hub.places import CARD, FILES, FolderPlace, HubPlace, publication

Place = FolderPlace | HubPlace
TOKEN = "hf_" + "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY"  # of the right form, and of nobody
METADATA = json.dumps({"__metadata__": {"format": "pt", "note": TOKEN}}).encode()
HELD = {
    "card": {"README.md": CARD + b"\nRun with `HF_TOKEN=" + TOKEN.encode() + b"`.\n"},
    "code": {"modeling_x.py": b'login("' + TOKEN.encode() + b'")\n'},
    "scores": {".eval_results/a.yaml": b"token: " + TOKEN.encode() + b"\n"},
    "folder nobody sees": {".hidden/a": TOKEN.encode()},
    "vocabulary": {"tokenizer.json": json.dumps({"vocab": {"sk-": 1, TOKEN: 2}}).encode()},
    "name": {f"{TOKEN}.txt": b"x"},
    "metadata": {"model-00002-of-00002.safetensors": len(METADATA).to_bytes(8, "little") + METADATA + b"\0" * 64},
}


@pytest.mark.parametrize("where", HELD)
def test_a_secret_anywhere_stops_the_push_before_it_begins(place: Place, tmp_path: Path, where: str) -> None:
    wanted = publication(tmp_path / "m", FILES | HELD[where])
    with pytest.raises(PublisherError, match="Hugging Face token") as caught:
        push(place.target(), wanted)
    assert caught.value.exit_code == 2
    assert TOKEN not in str(caught.value)
    assert where == "name" or next(iter(HELD[where])) in caught.value.message
    assert "Revoke" in caught.value.hint
    assert place.writes() == 0
    assert any("Hugging Face token" in problem.message for problem in intend(place.target(), wanted).problems)


def test_the_weights_themselves_are_not_text(place: Place, tmp_path: Path) -> None:
    shard = (8).to_bytes(8, "little") + b"{}      " + TOKEN.encode()
    assert push(
        place.target(), publication(tmp_path / "m", FILES | {"model-00002-of-00002.safetensors": shard})
    ).verified


@pytest.mark.parametrize("form", [str, lambda text: base64.b64encode(text.encode()).decode()])
def test_the_login_itself_is_found_whatever_its_form(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: object
) -> None:
    monkeypatch.setenv("HF_TOKEN", "a-login-of-no-known-shape")
    text = form("a-login-of-no-known-shape")  # type: ignore[operator]
    wanted = publication(tmp_path / "m", FILES | {"run.sh": f"curl -H {text}\n".encode()})
    with pytest.raises(PublisherError, match=r"run\.sh a value of this environment's HF_TOKEN in line 1"):
        push(place.target(), wanted)
    assert place.writes() == 0


def test_a_published_reason_is_enough(place: Place, tmp_path: Path) -> None:
    wanted = publication(tmp_path / "m", FILES | HELD["code"])
    said = replace(wanted.manifest.provenance, waivers={"SD09": "the issuer's own example"})
    built = replace(wanted.manifest, provenance=said)
    (wanted.folder / "publish.json").write_bytes(built.encoded())
    assert push(place.target(), replace(wanted, manifest=built)).verified


def test_a_file_that_is_gone_is_reported_once(place: Place, tmp_path: Path) -> None:
    wanted = publication(tmp_path / "m")
    (wanted.folder / "LICENSE").unlink()
    with pytest.raises(PublisherError) as caught:
        push(place.target(), wanted)
    assert caught.value.message.count("LICENSE") == 1
