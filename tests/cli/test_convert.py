"""`publisher convert`: a folder in the other layout, validated, or a sentence that says why not."""

from __future__ import annotations

from tests.builders.tiny import compressed, llama
from tests.cli.conftest import Workspace


def test_a_checkpoint_is_converted_and_validated(workspace: Workspace) -> None:
    compressed(llama(), "nvfp4", activations=False).write(workspace.folder / "first")
    arguments = ("--layout", "modelopt", "--out", "second", "--source", "source", "--format", "json")
    done = workspace.publisher("convert", "first", *arguments).json
    assert (done["renamed"], done["inverted"]) == (28, 14)
    assert done["report"]["findings"] == []
    assert (workspace.folder / "second/hf_quant_config.json").exists()
    refused = workspace.publisher("convert", "second", "--layout", "modelopt", "--out", "third", code=2)
    assert "already" in refused.err
    assert not (workspace.folder / "third").exists()
