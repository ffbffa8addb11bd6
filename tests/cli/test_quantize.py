"""`publisher quantize`: the first stages, ending with a checkpoint."""

from __future__ import annotations

from tests.cli.conftest import Workspace


def test_quantize_stops_at_the_checkpoint(workspace: Workspace) -> None:
    done = workspace.publisher("quantize", workspace.recipe(), "--run-dir", "run", "--format", "json")
    assert done.json["shards"] == 1
    assert (workspace.checkpoint / "config.json").exists()
    assert not workspace.tree.exists()
