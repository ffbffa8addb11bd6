"""`publisher convert`: a folder in the other layout, validated, or a sentence that says why not."""

from __future__ import annotations

from tests.builders.sources import SOURCES
from tests.builders.tiny import compressed, llama
from tests.cli.conftest import Workspace


def test_a_checkpoint_is_converted_and_validated(workspace: Workspace) -> None:
    compressed(llama(), "nvfp4", activations=False).write(workspace.folder / "first")
    arguments = ("--layout", "modelopt", "--out", "second", "--source", "source", "--format", "json")
    done = workspace.publisher("convert", "first", *arguments, fresh=True).json
    assert (done["renamed"], done["inverted"]) == (28, 14)
    assert done["report"]["findings"] == []
    assert (workspace.folder / "second/hf_quant_config.json").exists()
    refused = workspace.publisher("convert", "second", "--layout", "modelopt", "--out", "third", code=2)
    assert "already" in refused.err
    assert not (workspace.folder / "third").exists()


def test_pruned_experts_go_to_sparse_storage_and_back(workspace: Workspace) -> None:
    _, tiny = SOURCES["mixture-pruned"]()
    first = tiny.write(workspace.folder / "first")
    done = workspace.publisher("convert", "first", "--to", "sparse", "--out", "second", "--format", "json").json
    assert (done["to"], done["weights"]) == ("sparse", 24)
    again = workspace.publisher(
        "convert", "second", "--to", "dense", "--out", "third", "--format", "json", code=None
    ).json
    assert (again["to"], again["bytes_after"]) == ("dense", done["bytes_before"])
    assert again["report"]["summary"]["rules_run"] > 50
    for path in first.rglob("*"):
        if path.is_file():
            assert (workspace.folder / "third" / path.relative_to(first)).read_bytes() == path.read_bytes()


def test_one_thing_at_a_time(workspace: Workspace) -> None:
    assert "--layout or --to" in workspace.publisher("convert", "first", "--out", "x", code=2).err
    both = ("--layout", "modelopt", "--to", "sparse")
    assert "--layout or --to" in workspace.publisher("convert", "first", *both, "--out", "x", code=2).err
    stray = ("--to", "dense", "--modules", "*")
    assert "--to sparse" in workspace.publisher("convert", "first", *stray, "--out", "x", code=2).err
