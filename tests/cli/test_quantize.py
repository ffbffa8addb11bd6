"""`publisher quantize`: the first stages, ending with a checkpoint."""

from __future__ import annotations

import json

from tests.cli.conftest import Workspace


def test_quantize_stops_at_the_checkpoint(workspace: Workspace) -> None:
    done = workspace.publisher("quantize", workspace.recipe(), "--run-dir", "run", "--format", "json")
    assert done.json["shards"] == 1
    assert (workspace.checkpoint / "config.json").exists()
    assert not workspace.tree.exists()


def test_workers_reach_the_job_and_do_not_show_in_the_result(workspace: Workspace) -> None:
    recipe = workspace.recipe(extra="shard_size: 20000\n")
    for run, workers in (("one", "1"), ("two", "2")):
        workspace.publisher("quantize", recipe, "--run-dir", run, "--workers", workers, "--device", "cpu")
        record = json.loads((workspace.folder / run / "checkpoint.quantize.json").read_text())
        assert record["workers"] == int(workers)
    one, two = (
        {path.name: path.read_bytes() for path in (workspace.folder / run / "checkpoint").glob("*.safetensors")}
        for run in ("one", "two")
    )
    assert one == two
    assert len(one) > 2


def test_all_gpus_where_there_is_none_is_a_sentence(workspace: Workspace) -> None:
    done = workspace.publisher("quantize", workspace.recipe(), "--device", "all", code=5, CUDA_VISIBLE_DEVICES="")
    assert "asks for GPUs" in done.err
    assert "device" in done.err
