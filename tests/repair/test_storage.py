"""Sparse and back: every file byte for byte, whatever wrote it, however often the work was stopped."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from publisher.checkpoint.open import open_checkpoint
from publisher.errors import CheckpointError
from publisher.formats import nvfp4
from publisher.formats import sparse as arithmetic
from publisher.repair import sparse, storage
from publisher.rules import run
from publisher.subjects import Evidence
from tests.repair.test_sparse import NAME, pruned

ROOT = Path(__file__).parents[2]


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def there(origin: Path, goal: Path, *modules: str, **options: Any) -> Path:
    return storage.write(sparse.to_sparse(open_checkpoint(origin), modules), goal, **options)


def back(origin: Path, goal: Path) -> Path:
    return storage.write(sparse.to_dense(open_checkpoint(origin)), goal)


def foreign(folder: Path, *, rows: int = 200, columns: int = 720, shards: int = 3) -> Path:
    """Several shards as the safetensors library orders them, with an index, a card and a licence of their own."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    weight_map: dict[str, str] = {}
    for number in range(shards):
        name = f"part-{number}.safetensors"
        weight = (rng.standard_normal((rows, columns)) * 0.02).astype(np.float32)
        made = nvfp4.quantize(arithmetic.pruned(weight))
        module = f"model.layers.{number}.mlp.experts.0.up_proj"
        tensors = {
            f"{module}.weight": made.payload,
            f"{module}.weight_scale_2": np.array(made.global_scale),
            f"{module}.weight_scale": made.block_scales,
            f"model.layers.{number}.norm.weight": rng.standard_normal(7).astype(np.float16),
        }
        save_file(tensors, folder / name, metadata={"format": "pt", "tool": "é"})
        weight_map |= dict.fromkeys(tensors, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}, indent=7))
    config = {"quantization_config": {"quant_method": "modelopt", "quant_algo": "W4A16_NVFP4"}, "x": 1}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "hf_quant_config.json").write_text('{"quantization": {"quant_algo": "W4A16_NVFP4"}}')
    (folder / "README.md").write_bytes(b"---\r\ntags: ['4:8']\r\n---\r\nA card\n")
    (folder / "LICENSE").write_bytes(b"terms\r\n\xff")
    return folder


def test_every_byte_comes_back(tmp_path: Path) -> None:
    first = foreign(tmp_path / "a")
    second = there(first, tmp_path / "b")
    assert {path.name for path in (second / "dense").iterdir()} == {
        "config.json", "hf_quant_config.json", "index.json", "README.md", "digests.json",
    }  # fmt: skip
    assert not (second / "hf_quant_config.json").exists()
    assert (second / "LICENSE").read_bytes() == (first / "LICENSE").read_bytes()
    third = back(second, tmp_path / "c")
    assert digests(third) == digests(first)


def test_every_engine_is_told_not_to_load_it(tmp_path: Path) -> None:
    folder = there(pruned().write(tmp_path / "a"), tmp_path / "b")
    report = run(Evidence(checkpoint=open_checkpoint(folder)), ignore=("LC",))
    stopping = {finding.code: finding.refuses for finding in report.findings if finding.severity == "error"}
    assert stopping.keys() == {"CF02", "CF42"}
    assert set(stopping["CF42"]) >= {"vllm", "sglang", "tensorrt-llm", "atom", "transformers"}


def test_it_is_smaller(tmp_path: Path) -> None:
    first = open_checkpoint(foreign(tmp_path / "a", rows=256, columns=2048))
    second = open_checkpoint(there(tmp_path / "a", tmp_path / "b"))
    packed = sum(ref.size for ref in first.tensors.values() if ref.name.endswith(".weight") and ref.dtype == "U8")
    assert first.tensor_bytes - second.tensor_bytes == packed * 3 // 8  # half of the codes, less an eighth to say where


def test_a_single_file_without_an_index_gets_none_back(tmp_path: Path) -> None:
    first = foreign(tmp_path / "a", shards=1)
    (first / "model.safetensors.index.json").unlink()
    (first / "part-0.safetensors").rename(first / "model.safetensors")
    third = back(there(first, tmp_path / "b"), tmp_path / "c")
    assert digests(third) == digests(first)


def test_runs_of_rows_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = foreign(tmp_path / "a")
    whole = digests(there(first, tmp_path / "b"))
    monkeypatch.setattr(storage, "_RUN", 1000)
    assert digests(there(first, tmp_path / "c")) == whole
    assert digests(back(tmp_path / "c", tmp_path / "d")) == digests(first)


def test_the_same_again_is_done_already_and_another_output_is_refused(tmp_path: Path) -> None:
    first = foreign(tmp_path / "a")
    second = there(first, tmp_path / "b")
    assert there(first, tmp_path / "b") == second
    with pytest.raises(CheckpointError, match="exists"):
        back(second, first)
    with pytest.raises(CheckpointError, match="inside"):
        there(first, first / "b")


@pytest.mark.parametrize(
    ("change", "words"),
    [("dense", "keep more than two pairs, the first at row 5, weights 8 to 15"), ("minus", "negative zero")],
)
def test_what_would_be_lost_is_refused_by_name(change: str, words: str, tmp_path: Path) -> None:
    tiny = pruned()
    tensor = tiny.tensors[f"{NAME}.weight_packed"]
    codes = np.frombuffer(bytes(tensor.data), np.uint8).reshape(tensor.shape).copy()
    group = codes[5, 4:8]
    group[:] = [0x11, 0x11, 0x11 if change == "dense" else 0x80, 0]
    tensor.data = codes.tobytes()
    with pytest.raises(CheckpointError, match=words) as caught:
        there(tiny.write(tmp_path / "a"), tmp_path / "b")
    assert f"{NAME}.weight_packed" in caught.value.message
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("change", ["kept", "metadata", "rows", "other", "digests"])
def test_a_damaged_sparse_checkpoint_gives_nothing(change: str, tmp_path: Path) -> None:
    first = foreign(tmp_path / "a")
    second = there(first, tmp_path / "b")
    path = second / "part-1.safetensors"
    raw = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    if change == "digests":
        (second / "dense/digests.json").unlink()
    else:
        names = {"kept": "weight_kept", "other": "weight_scale"}
        suffix = names.get(change, "weight_metadata")
        begin, end = header[f"model.layers.1.mlp.experts.0.up_proj.{suffix}"]["data_offsets"]
        raw[start + (end - 1 if change == "rows" else begin)] ^= 0x20
        path.write_bytes(raw)
    with pytest.raises(CheckpointError, match=r"metadata|what they were|rows that|digest of every"):
        back(second, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_stopped_conversion_goes_on_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    first = foreign(tmp_path / "a", rows=512, columns=4096, shards=6)
    whole = digests(there(first, tmp_path / "whole"))
    command = [sys.executable, "-m", "publisher", "convert", str(first), "--to", "sparse", "--out", str(tmp_path / "b")]
    stops = 0
    for _ in range(3):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        staging = tmp_path / ".b.convert/files"
        finished = len(list(staging.glob("*.safetensors")))
        patience = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < patience:
            if len(list(staging.glob("*.safetensors"))) > finished:
                break
            time.sleep(0.002)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            stops += 1
        process.wait()
    assert stops
    assert digests(there(first, tmp_path / "b")) == whole
    assert digests(back(tmp_path / "b", tmp_path / "c")) == digests(first)


def test_progress_reaches_its_total(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    there(foreign(tmp_path / "a"), tmp_path / "b", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
