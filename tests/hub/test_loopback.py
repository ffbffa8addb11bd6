"""The tests' own Hub holds the real client's calls to the rules of the real one."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.hub.loopback import LoopbackHub

HEADER = json.dumps({"w": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}).encode()
SAFETENSORS = struct.pack("<Q", len(HEADER)) + HEADER + b"abcd"
FILES = {"model.safetensors": SAFETENSORS, "config.json": b"{}", "sub/a.txt": b"a", "sub/deep/b.txt": b"b"}
MODEL = "upstream/model"


@pytest.fixture
def api(hub: LoopbackHub) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=hub.token)


def stranger(hub: LoopbackHub) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=hub.add_user("hf_strangerToken0000", "bob"))


@pytest.mark.parametrize("redirect", [False, True])
def test_a_snapshot_is_downloaded_byte_for_byte(hub: LoopbackHub, tmp_path: Path, redirect: bool) -> None:
    hub.seed_repo(MODEL, FILES)
    hub.redirect = redirect
    folder = Path(snapshot_download(MODEL, endpoint=hub.endpoint, token=hub.token, local_dir=tmp_path / "copy"))
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES


@pytest.mark.parametrize("redirect", [False, True])
def test_safetensors_headers_are_read_by_range(hub: LoopbackHub, api: HfApi, redirect: bool) -> None:
    hub.seed_repo(MODEL, FILES)
    hub.redirect = redirect
    found = api.parse_safetensors_file_metadata(MODEL, "model.safetensors")
    assert found.tensors["w"].shape == [4]
    assert hub.requests("GET", "/_lfs/" if redirect else "/resolve/")[-1].status == 206


def test_the_tree_comes_in_pages(hub: LoopbackHub, api: HfApi) -> None:
    hub.seed_repo(MODEL, FILES)
    hub.page_size = 2
    listed = [item.path for item in api.list_repo_tree(MODEL, recursive=True)]
    assert listed == [
        ".gitattributes",
        "config.json",
        "model.safetensors",
        "sub",
        "sub/a.txt",
        "sub/deep",
        "sub/deep/b.txt",
    ]
    assert [item.path for item in api.list_repo_tree(MODEL, path_in_repo="sub")] == ["sub/a.txt", "sub/deep"]
    assert [item.path for item in api.get_paths_info(MODEL, ["config.json", "absent"])] == ["config.json"]


def test_gated_names_are_public_and_gated_files_are_not(hub: LoopbackHub) -> None:
    repo = hub.seed_repo(MODEL, FILES, gated="manual")
    bob = stranger(hub)
    assert bob.model_info(MODEL).gated == "manual"
    assert "config.json" in bob.list_repo_files(MODEL)
    with pytest.raises(GatedRepoError):
        bob.auth_check(MODEL)
    with pytest.raises(GatedRepoError):
        bob.get_hf_file_metadata(url=f"{hub.endpoint}/{MODEL}/resolve/main/config.json")
    repo.accepted.add("bob")
    bob.auth_check(MODEL)


def test_private_repositories_do_not_exist_for_strangers(hub: LoopbackHub) -> None:
    hub.seed_repo("org/model", FILES, private=True)
    with pytest.raises(RepositoryNotFoundError):
        stranger(hub).model_info("org/model")
    with pytest.raises(RepositoryNotFoundError):
        HfApi(endpoint=hub.endpoint, token=False).model_info("org/model")
    assert HfApi(endpoint=hub.endpoint, token=hub.token).model_info("org/model").private


def test_permissions(hub: LoopbackHub, api: HfApi) -> None:
    api.create_repo("org/model", private=True)
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo("org/model")
    assert str(api.create_repo("org/model", exist_ok=True)).endswith("org/model")
    api.auth_check("org/model", write=True)
    hub.seed_repo(MODEL, {})
    with pytest.raises(HfHubHTTPError, match="403"):
        api.auth_check(MODEL, write=True)
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        HfApi(endpoint=hub.endpoint, token="hf_wrongTokenWrong").whoami()
    assert api.whoami()["orgs"][0]["name"] == "org"


def test_commits_revisions_and_stale_parents(hub: LoopbackHub, api: HfApi) -> None:
    first = hub.seed_repo("org/model", FILES).head
    again = [CommitOperationAdd("config.json", b"[]"), CommitOperationAdd("big.safetensors", SAFETENSORS * 2)]
    second = api.create_commit("org/model", again, commit_message="two", parent_commit=first).oid
    assert hub.repos["org/model"].head == second
    assert api.model_info("org/model", revision=first).sha == first
    assert [item.commit_id for item in api.list_repo_commits("org/model")] == [second, first]
    with pytest.raises(HfHubHTTPError, match="412"):
        api.create_commit("org/model", [CommitOperationAdd("x", b"y")], commit_message="late", parent_commit=first)
    with pytest.raises(RevisionNotFoundError):
        api.model_info("org/model", revision="v9")
    with pytest.raises(RemoteEntryNotFoundError):
        api.delete_file("absent", "org/model")
    api.delete_file("config.json", "org/model")
    assert "config.json" not in hub.repos["org/model"].files


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ("license: modified-mit", "license"),
        ("base_model: /home/ada/model", "base_model"),
        ("base_model_relation: shrunk", "base_model_relation"),
        ("a: [", "Invalid YAML"),
    ],
)
def test_card_metadata_is_validated(hub: LoopbackHub, api: HfApi, card: str, said: str) -> None:
    hub.seed_repo("org/model", {})
    with pytest.raises(ValueError, match=said):
        api.upload_file(path_or_fileobj=f"---\n{card}\n---\n".encode(), path_in_repo="README.md", repo_id="org/model")
    assert "README.md" not in hub.repos["org/model"].files


def test_the_log_knows_who_could_see_what_when(hub: LoopbackHub, api: HfApi) -> None:
    api.create_repo("org/model", private=True)
    api.update_repo_settings("org/model", gated="auto", private=False)
    assert [item.state["org/model"] for item in hub.log[-2:]] == [(True, False), (False, "auto")]
    assert not hub.was_open("org/model")
    api.update_repo_settings("org/model", gated=False)
    assert hub.was_open("org/model")
