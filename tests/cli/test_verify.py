"""`publisher verify`: a published tree against its manifest, its source's licence, its gate, its card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.builders.terms import LLAMA, LLAMA_NOTICE
from tests.cli.conftest import Workspace
from tests.hub.loopback import LoopbackHub
from tests.hub.places import FILES, publication

PLACE = "folder:out/demo/tiny-fp4"


@pytest.fixture
def copied(pushed: Workspace, workspace: Workspace) -> Workspace:
    shutil.copytree(pushed.folder / "out", workspace.folder / "out")
    return workspace


def test_verify_names_the_file_that_differs(copied: Workspace) -> None:
    (copied.tree / "LICENSE").write_bytes(b"edited")
    done = copied.publisher("verify", PLACE, code=1)
    assert "LICENSE" in done.out
    shutil.rmtree(copied.folder / "out")
    copied.publisher("verify", PLACE, code=2)
    copied.publisher("verify", "somewhere", code=2)


def test_licence_gate_and_card_are_compared_too(copied: Workspace) -> None:
    found = copied.publisher("verify", PLACE, "--format", "json").json
    assert found["bytes"] == sum(path.stat().st_size for path in copied.tree.rglob("*") if path.is_file())
    assert (found["verified"], found["problems"]) == (True, [])
    assert [entry["check"] for entry in found["not_checked"]] == ["licence"], "the source was a folder"
    assert json.loads((copied.tree / "publish.json").read_text())["gate"] == "manual"
    found = copied.publisher("verify", PLACE, "--source", "./source", "--format", "json").json
    assert (found["verified"], found["not_checked"]) == (True, [])

    (copied.source / "LICENSE").write_bytes(b"what upstream says")
    done = copied.publisher("verify", PLACE, "--source", "./source", code=1)
    assert "licence: LICENSE differs from the source" in done.out
    _set(copied.folder / "out/demo/tiny-fp4/settings.json", gate="off")
    done = copied.publisher("verify", PLACE, code=1)
    assert "gate: The gate is off, the manifest says manual." in done.out
    assert "1 problem(s)" in done.out


def test_a_manifest_kept_elsewhere_is_believed_instead(copied: Workspace) -> None:
    kept = copied.folder / "kept.json"
    shutil.copy(copied.tree / "publish.json", kept)
    (copied.tree / "publish.json").unlink()
    done = copied.publisher("verify", PLACE, "--manifest", str(kept), "--format", "json", code=1)
    assert [entry["path"] for entry in done.json["differences"]] == ["publish.json"]


def test_large_files_are_downloaded_only_when_asked(workspace: Workspace, tmp_path: Path) -> None:
    """The Hub's record of a large file says nothing of bytes that were damaged in its storage since."""
    shard = "model-00001-of-00001.safetensors"
    publication(tmp_path / "large", FILES | {shard: bytes(17 << 20)})
    with LoopbackHub() as hub:
        files = {path.relative_to(tmp_path / "large").as_posix(): path for path in (tmp_path / "large").rglob("*")}
        repo = hub.seed_repo("org/large", {name: path.read_bytes() for name, path in files.items() if path.is_file()})
        hub.blobs[repo.files[shard].oid] = bytes(17 << 20)[:-1] + b"x"
        for option, damaged in (((), []), (("--bytes",), [shard])):
            done = workspace.publisher(
                "verify", "hf://org/large", *option, "--format", "json", code=1 if damaged else 0,
                HF_ENDPOINT=hub.endpoint, HF_TOKEN=hub.token,
            )  # fmt: skip
            assert [entry["path"] for entry in done.json["differences"]] == damaged


def _set(path: Path, **changes: str) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_a_licence_asks_is_done_or_refused(workspace: Workspace) -> None:
    (workspace.source / "LICENSE").write_text(LLAMA)
    (workspace.source / "README.md").write_text("---\nlicense: llama3.3\n---\n# Llama-Tiny\n")
    refused = workspace.push(workspace.recipe(), code=1)
    assert "LC16" in refused.err
    assert "does not begin with 'Llama'" in refused.err
    workspace.push(workspace.recipe(), "--repo", "demo/Llama-Tiny-FP4")
    tree = workspace.folder / "out/demo/Llama-Tiny-FP4/tree"
    assert (tree / "NOTICE").read_text() == f"{LLAMA_NOTICE}\n"
    card = (tree / "README.md").read_text()
    assert "\n**Built with Llama**\n" in card
    assert "(<https://www.llama.com/llama3_3/use-policy>)" in card
    found = workspace.publisher(
        "verify", "folder:out/demo/Llama-Tiny-FP4", "--source", "./source", "--format", "json"
    ).json
    assert (found["verified"], found["warnings"]) == (True, [])
