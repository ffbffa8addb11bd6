"""Pruning end to end: the reference's bytes with zeros of code 0, said in config.json, found clean by the rules."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from publisher.checkpoint import statistics
from publisher.checkpoint.moments import InMemory
from publisher.checkpoint.open import open_checkpoint
from publisher.checkpoint.statistics import Observed, Statistics
from publisher.errors import CheckpointError
from publisher.formats import mxfp4, nvfp4, sparse
from publisher.native.job import Job, JobSparsity
from publisher.native.sparsity import by_magnitude
from publisher.repair import storage
from publisher.repair.sparse import to_dense, to_sparse
from publisher.rules import run
from publisher.subjects import Evidence
from tests.builders.sources import int4
from tests.builders.tiny import kimi, llama
from tests.native.test_runs import found, quantized, weights
from tests.repair.test_storage import digests

Run = Callable[..., tuple[int, list[dict[str, Any]], str]]
EXPERTS = {"pattern": "paired-4:8", "modules": ["*.experts.*"]}
KIMI = "language_model.model.layers.1.mlp.experts"
DENSE = "language_model.model.layers.0.mlp"
PAYLOAD = {"modelopt": "weight", "quark": "weight", "compressed-tensors": "weight_packed"}


def full_groups(payload: torch.Tensor) -> int:
    """Groups of eight with more than two pairs."""
    return int(((payload.view(-1, 4) & 0x77) != 0).sum(1).gt(2).sum())


@pytest.mark.parametrize(
    ("form", "layout"),
    [("nvfp4", "modelopt"), ("nvfp4", "compressed-tensors"), ("mxfp4", "quark"), ("mxfp4", "compressed-tensors")],
)
def test_pruned_experts_beside_dense_layers_validate(form: str, layout: str, tmp_path: Path, run_program: Run) -> None:
    stored, _ = int4(kimi())
    folder, _ = quantized(tmp_path, stored, run_program, format=form, layout=layout, sparsity=EXPERTS)
    tensors, suffix = weights(folder), PAYLOAD[layout]
    experts = [name for name in tensors if ".experts." in name and name.endswith(f".{suffix}")]
    assert experts
    assert not any(full_groups(tensors[name]) for name in experts)
    assert full_groups(tensors[f"{DENSE}.up_proj.{suffix}"])
    assert found(tmp_path) == []
    said = json.loads((folder / "config.json").read_text())["sparsity"]
    assert said == {"pattern": "paired-4:8", "storage": "dense", "modules": ["*.experts.*"]}
    record = json.loads((tmp_path / "out.quantize.json").read_text())
    assert record["sparsity"] == {"pattern": "paired-4:8", "choose": "magnitude", "modules": 24, "by_magnitude": []}


def test_the_bytes_are_those_of_the_pruned_weights(tmp_path: Path, run_program: Run) -> None:
    """Scales come from what is left: pruning, then the plain arithmetic, gives the same."""
    folder, _ = quantized(tmp_path, llama(), run_program, sparsity="paired-4:8", layout="modelopt")
    stored, source = weights(folder), weights(tmp_path / "source")
    fused = ("model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj")
    pruned = {name: sparse.pruned(source[f"{name}.weight"].float().numpy()) for name in fused}
    largest = max(np.abs(rows).max() for rows in pruned.values())
    for name, rows in pruned.items():
        made = nvfp4.quantize(rows, global_amax=largest)
        assert np.array_equal(stored[f"{name}.weight"].numpy(), made.payload)
        assert np.array_equal(stored[f"{name}.weight_scale"].view(torch.uint8).numpy(), made.block_scales)
        gone = np.repeat((rows.reshape(-1, 2) == 0).all(axis=1), 1)
        assert not stored[f"{name}.weight"].numpy().reshape(-1)[gone].any(), "pruned pairs are code 0, not 8"


def test_the_error_counts_what_was_dropped(tmp_path: Path, run_program: Run) -> None:
    folder, _ = quantized(tmp_path, llama(), run_program, sparsity="paired-4:8", layout="quark", format="mxfp4")
    name = "model.layers.1.mlp.down_proj"
    stored, source = weights(folder), weights(tmp_path / "source")
    values = source[f"{name}.weight"].double().numpy()
    back = mxfp4.dequantize(stored[f"{name}.weight"].numpy(), stored[f"{name}.weight_scale"].numpy())
    record = json.loads((tmp_path / "out.quantize.json").read_text())["weight_error"]["modules"]
    assert record[name] == pytest.approx(np.linalg.norm(back - values) / np.linalg.norm(values), rel=1e-6)
    assert record[name] > 0.3


def seen(source: Path, *, without: str = "") -> Statistics:
    """Random second moments of every matrix; one expert saw nothing."""
    rng = np.random.default_rng(4)
    modules: dict[str, Observed] = {}
    rows: dict[str, np.ndarray] = {}
    for name, ref in open_checkpoint(source).tensors.items():
        if name.endswith(".weight") and len(ref.shape) == 2:
            module = name.removesuffix(".weight")
            reached = module != without
            modules[module] = Observed(2.0 + rng.random() if reached else 0.0, 9 if reached else 0)
            if reached:
                rows[module] = (rng.random(ref.shape[1]) ** 4).astype(np.float32)
    return Statistics(modules=modules, metadata={"source": "x"}, mean_squares=InMemory(rows))


def test_mean_squares_decide_which_pairs_stay(tmp_path: Path, run_program: Run) -> None:
    lost = f"{KIMI}.1.up_proj"
    tiny = kimi()
    measured = seen(tiny.write(tmp_path / "measured"), without=lost)
    statistics.write(tmp_path / "s.safetensors", measured)
    hessian = {**EXPERTS, "choose": "hessian"}
    folder, events = quantized(
        tmp_path, tiny, run_program, sparsity=hessian, statistics="s.safetensors", quantize=["*.mlp.experts.*"]
    )
    stored, source = weights(folder), weights(tmp_path / "source")
    squares = measured.mean_squares.get(f"{KIMI}.0.down_proj")
    assert squares is not None
    for name, factors in ((f"{KIMI}.0.down_proj", sparse.importance(squares)), (lost, None)):
        rows = source[f"{name}.weight"].float().numpy()
        wanted = nvfp4.dequantize(
            stored[f"{name}.weight"].numpy(),
            stored[f"{name}.weight_scale"].view(torch.uint8).numpy(),
            stored[f"{name}.weight_scale_2"].numpy(),
        )
        kept = (sparse.pruned(rows, factors) != 0).reshape(-1, 2).any(axis=1)
        assert not wanted.reshape(-1, 2)[~kept].any()
        assert (wanted.reshape(-1, 2)[kept] != 0).any(axis=1).mean() > 0.9
    assert found(tmp_path) == []
    record = json.loads((tmp_path / "out.quantize.json").read_text())
    assert record["sparsity"]["by_magnitude"] == [lost]
    assert any("pruned by magnitude" in event["payload"].get("message", "") for event in events)


def job_for(**changed: Any) -> Job:
    asked = JobSparsity(pattern="paired-4:8", choose="hessian", modules=frozenset({"a", "b"}), statement={})
    nowhere = Path("/nowhere")
    return Job(
        source=nowhere, output=nowhere, staging=nowhere, format="nvfp4", layout="modelopt", mode="max",
        quantize=("a", "b"), groups={}, quantization_config={}, hf_quant_config=None, statistics=nowhere,
        shard_size=1, device="cpu", plan_digest="d", sparsity=asked, **changed,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        ({"modules": {"a": Observed(1.0, 3)}}, "b is not in them"),
        ({"rows": {"a": np.ones(8, np.float32)}}, "b has no mean squares"),
        ({"rows": {"a": np.ones(8, np.float32), "b": np.ones(7, np.float32)}}, "7 mean squares for rows of 16"),
    ],
)
def test_statistics_that_do_not_do_are_refused_before_the_work(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    from publisher.checkpoint.header import TensorRef

    refs = {
        f"{name}.weight": TensorRef(name=f"{name}.weight", dtype="BF16", shape=(4, width), shard="s", begin=0, end=1)
        for name, width in (("a", 8), ("b", 16))
    }
    rows = {"a": np.ones(8, np.float32), "b": np.ones(16, np.float32)}
    whole = Statistics(
        modules=change.get("modules", {"a": Observed(1.0, 3), "b": Observed(1.0, 3)}),
        mean_squares=InMemory(change.get("rows", rows)),
    )
    if not words:
        assert by_magnitude(job_for(), refs, whole) == ()
        unreached = replace(whole, modules={**whole.modules, "a": Observed(0.0, 0)}, mean_squares=InMemory(rows))
        assert by_magnitude(job_for(), refs, unreached) == ("a",)
        return
    with pytest.raises(CheckpointError, match=words):
        by_magnitude(job_for(), refs, whole)


def test_a_dense_group_under_the_statement_is_found(tmp_path: Path, run_program: Run) -> None:
    folder, _ = quantized(tmp_path, llama(), run_program, layout="modelopt")
    config = json.loads((folder / "config.json").read_text())
    config["sparsity"] = {"pattern": "paired-4:8", "storage": "dense", "modules": ["*.mlp.up_proj"]}
    (folder / "config.json").write_text(json.dumps(config))
    report = run(Evidence(checkpoint=open_checkpoint(folder)), level="full", ignore=("LC",))
    places = {finding.tensor for finding in report.findings if finding.code == "NU08"}
    assert places == {f"model.layers.{layer}.mlp.up_proj.weight" for layer in range(2)}


def test_workers_do_not_show_and_storage_gives_every_byte_back(tmp_path: Path, run_program: Run) -> None:
    """Kimi's INT4 experts, pruned and quantized by one process and by two, stored sparsely and densely again."""
    stored, _ = int4(kimi())
    recipe = {"sparsity": EXPERTS, "layout": "compressed-tensors", "shard_size": 60_000}
    first, _ = quantized(tmp_path / "one", stored, run_program, **recipe)
    job = json.loads((tmp_path / "one/job.json").read_text())
    job |= {"workers": 2, "output": str(tmp_path / "two"), "staging": str(tmp_path / "two.staging")}
    (tmp_path / "two.json").write_text(json.dumps(job))
    code, _, errors = run_program(tmp_path / "two.json")
    assert code == 0, errors
    assert digests(tmp_path / "two") == digests(first)
    assert len(list(first.glob("*.safetensors"))) > 1
    small = storage.write(to_sparse(open_checkpoint(first)), tmp_path / "sparse")
    again = storage.write(to_dense(open_checkpoint(small)), tmp_path / "again")
    assert digests(again) == digests(first)


def test_what_is_no_matrix_to_quantize_is_not_passed_over() -> None:
    from publisher.checkpoint.header import TensorRef

    def ref(name: str, dtype: str, *shape: int) -> dict[str, TensorRef]:
        return {name: TensorRef(name=name, dtype=dtype, shape=shape, shard="s", begin=0, end=1)}

    for refs in (ref("a.weight", "BF16", 4, 8), ref("a.weight", "BF16", 4, 8) | ref("b.weight", "U8", 4, 4)):
        with pytest.raises(CheckpointError, match=r"1 modules are to be pruned and are no matrices .* first b"):
            by_magnitude(job_for(), refs, None)
