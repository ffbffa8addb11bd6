"""The program as docs/job-file.md promises it: exit codes, last events, what is left on the disk after a kill."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from publisher.checkpoint.modules import fused_groups
from publisher.native import __main__ as module
from tests.native.zygote import Zygote

Write = Callable[..., Path]
Run = Callable[..., tuple[int, list[dict[str, Any]], str]]
ROOT = Path(__file__).parents[2]


def layers(count: int, rows: int = 96, columns: int = 128) -> list[dict[str, torch.Tensor]]:
    """Layers of gate, up and down, in two shards, with a norm each."""
    random_ = torch.Generator().manual_seed(5)
    tensors: dict[str, torch.Tensor] = {}
    for layer in range(count):
        for name, shape in (
            ("gate_proj", (rows, columns)),
            ("up_proj", (rows, columns)),
            ("down_proj", (columns, rows)),
        ):
            tensors[f"model.layers.{layer}.mlp.{name}.weight"] = torch.randn(shape, generator=random_).bfloat16()
        tensors[f"model.layers.{layer}.norm.weight"] = torch.ones(columns).bfloat16()
    names = sorted(tensors)
    half = len(names) // 2
    return [{name: tensors[name] for name in part} for part in (names[:half], names[half:])]


def modules(shards: list[dict[str, torch.Tensor]]) -> list[str]:
    return sorted(name.removesuffix(".weight") for shard in shards for name in shard if "proj" in name)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def small(source: Write, job: Write, tmp_path: Path) -> Path:
    shards = layers(3)
    names = modules(shards)
    path = source(tmp_path / "source", shards, tie_word_embeddings=True)
    return job(tmp_path / "run/job.json", path, names, groups=fused_groups(names), shard_size=40_000)


def test_a_job_ends_with_a_complete_checkpoint(small: Path, run_program: Run) -> None:
    code, events, stderr = run_program(small)
    assert (code, stderr) == (0, "")
    assert [event["kind"] for event in events if event["kind"] != "progress"] == ["start", "done"]
    assert all(set(event) == {"time", "stage", "kind", "payload"} for event in events)
    last = [event["payload"] for event in events if event["kind"] == "progress"][-1]
    assert (last["done"], last["tensors"]) == (last["total"], last["tensors_total"])
    out = small.parent / "checkpoint"
    index = json.loads((out / "model.safetensors.index.json").read_text())
    found = {name: tensor for path in out.glob("*.safetensors") for name, tensor in load_file(path).items()}
    assert index["weight_map"].keys() == found.keys()
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in found.values())
    config = json.loads((out / "config.json").read_text())
    assert config["quantization_config"] == {"quant_method": "modelopt"}
    assert (out / "LICENSE").read_bytes() == b"licence text\r\n\xff"
    assert not (small.parent / "staging").exists()
    record = json.loads((small.parent / "checkpoint.quantize.json").read_text())
    assert record["plan_digest"] == "d1"
    assert record["versions"]["torch"] == torch.__version__
    assert 0.05 < record["weight_error"]["overall"] < 0.12
    assert len(record["weight_error"]["modules"]) == 9
    assert record["peak_memory"]["host"] > 0


def test_a_forked_program_is_the_program(small: Path, run_program: Run, run_python: Run) -> None:
    """What the other tests run instead: the same events and exit code, the same bytes, whatever the seed of hashes."""
    other = small.parents[1] / "other/job.json"
    other.parent.mkdir()
    other.write_text(small.read_text().replace(str(small.parent), str(other.parent)))
    by_seed = [run_python(small, env={**os.environ, "PYTHONHASHSEED": "77"}), run_program(other)]
    kinds = [[event["kind"] for event in events if event["kind"] != "progress"] for _, events, _ in by_seed]
    assert kinds == [["start", "done"]] * 2
    assert [(code, errors) for code, _, errors in by_seed] == [(0, "")] * 2
    assert digests(small.parent / "checkpoint") == digests(other.parent / "checkpoint")
    records = [json.loads((path.parent / "checkpoint.quantize.json").read_text()) for path in (small, other)]
    for own in ("seconds", "peak_memory"):
        assert all(record.pop(own) for record in records)
    assert records[0] == records[1]


def test_a_second_run_has_nothing_to_do_and_another_plan_is_refused(small: Path, run_program: Run) -> None:
    run_program(small)
    before = digests(small.parent)
    code, events, _ = run_program(small)
    assert (code, events[-1]["kind"]) == (0, "skip")
    assert digests(small.parent) == before
    small.write_text(small.read_text().replace('"d1"', '"d2"'))
    code, events, _ = run_program(small)
    assert (code, events[-1]["kind"]) == (2, "error")
    assert "exists already" in events[-1]["payload"]["message"]
    assert events[-1]["payload"]["hint"]


def test_a_truncated_shard_is_named_and_nothing_is_written(small: Path, run_program: Run) -> None:
    shard = small.parents[1] / "source/model-00002-of-00002.safetensors"
    os.truncate(shard, shard.stat().st_size - 10)
    code, events, _ = run_program(small)
    assert code == 2
    assert "model-00002-of-00002.safetensors is truncated" in events[-1]["payload"]["message"]
    assert sorted(path.name for path in small.parent.iterdir()) == ["job.json"]


def test_side_files_that_cannot_be_carried_are_found_before_the_work(small: Path, run_program: Run) -> None:
    (small.parents[1] / "source/config.json").write_text('{"limit": NaN}')
    code, events, _ = run_program(small)
    assert code == 2
    assert "NaN" in events[-1]["payload"]["message"]
    assert sorted(path.name for path in small.parent.iterdir()) == ["job.json"]


def test_a_reader_that_goes_away_stops_the_program_quietly(small: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "publisher.native", str(small)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        stderr = process.stderr.read()
    assert (process.returncode, stderr) == (6, b"")


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["/nowhere/job.json"]])
def test_wrong_usage_exits_2(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "publisher.native", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert json.loads(done.stdout.splitlines()[-1])["kind"] == "error"
    assert "Traceback" not in done.stderr


def test_a_gpu_that_is_not_there_exits_5(small: Path, run_program: Run) -> None:
    small.write_text(small.read_text().replace('"cpu"', '"cuda:77"'))
    code, events, _ = run_program(small)
    assert code == 5
    assert "cuda:77 is not there" in events[-1]["payload"]["message"]


def test_a_full_disk_exits_5_and_a_second_run_completes(
    source: Write, job: Write, tmp_path: Path, run_program: Run
) -> None:
    shards = layers(2, 1024, 1024)
    path = job(tmp_path / "run/job.json", source(tmp_path / "source", shards), modules(shards))
    code, events, _ = run_program(path, file_size=1_000_000)
    assert code == 5
    assert "bytes were still to be written" in events[-1]["payload"]["message"]
    assert "same command again" in events[-1]["payload"]["hint"]
    assert not (tmp_path / "run/checkpoint").exists()
    assert run_program(path)[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_stop_exits_6_and_goes_on(
    source: Write, job: Write, tmp_path: Path, run_program: Run, zygote: Zygote, number: int
) -> None:
    shards = layers(40, 512, 512)
    path = job(tmp_path / "run/job.json", source(tmp_path / "source", shards), modules(shards), shard_size=3_000_000)
    with zygote.start([str(path)]) as process:
        assert any('"progress"' in line for line in iter(process.stdout.readline, ""))
        process.send_signal(number)
        lines = process.stdout.read().splitlines()
    assert process.returncode == 6
    last = json.loads(lines[-1])
    assert last["kind"] == "cancelled"
    assert "go on" in last["payload"]["hint"]
    assert not (tmp_path / "run/checkpoint").exists()
    assert (tmp_path / "run/staging/ledger.json").is_file()
    assert run_program(path)[0] == 0


def test_a_source_that_changed_between_runs_is_refused_by_name(
    source: Write, job: Write, tmp_path: Path, run_program: Run, zygote: Zygote
) -> None:
    shards = layers(40, 512, 512)
    path = job(tmp_path / "run/job.json", source(tmp_path / "source", shards), modules(shards), shard_size=3_000_000)
    with zygote.start([str(path)]) as process:
        ledger = tmp_path / "run/staging/ledger.json"
        for line in iter(process.stdout.readline, ""):
            if '"progress"' in line and json.loads(ledger.read_text())["shards"]:
                break
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
    assert process.returncode == 6
    changed = tmp_path / "source/model-00002-of-00002.safetensors"
    before = changed.stat().st_mtime_ns
    os.utime(changed, ns=(before, before + 1))
    code, events, _ = run_program(path)
    assert code == 2
    assert "model-00002-of-00002.safetensors of the source is not what it was" in events[-1]["payload"]["message"]
    assert str(tmp_path / "run/staging") in events[-1]["payload"]["message"]
    assert not (tmp_path / "run/checkpoint").exists()
    os.utime(changed, ns=(before, before))
    assert run_program(path)[0] == 0


def test_a_shard_that_shrinks_while_it_is_read_stops_cleanly(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = small.parents[1] / "source/model-00002-of-00002.safetensors"
    real = module.inspect
    monkeypatch.setattr(module, "inspect", lambda *a: (real(*a), os.truncate(shard, shard.stat().st_size - 4000))[0])
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        assert module.main([str(small)]) == 2
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "model-00002-of-00002.safetensors ends inside the tensor" in last["payload"]["message"]
    assert not (small.parent / "checkpoint").exists()


@pytest.mark.slow
def test_memory_stays_far_below_the_model(source: Write, job: Write, tmp_path: Path, run_program: Run) -> None:
    """300 MB of groups of 2 MB: what the process grows by while it works is a few groups, not the model."""
    weight = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(0)).bfloat16()
    shards = [{f"layers.{s}.{n}.mlp.up_proj.weight": weight + n for n in range(75)} for s in range(2)]
    names, folder = modules(shards), source(tmp_path / "source", shards)
    assert run_program(job(tmp_path / "one/job.json", folder, names[:1], shard_size=50_000_000))[0] == 0
    assert run_program(job(tmp_path / "all/job.json", folder, names, shard_size=50_000_000))[0] == 0
    one, all_ = (
        json.loads((tmp_path / run / "checkpoint.quantize.json").read_text())["peak_memory"]["host"]
        for run in ("one", "all")
    )
    assert all_ - one < 100_000_000


def test_an_unforeseen_failure_is_an_event_and_exits_5(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "restore", lambda *_, **__: np.zeros(-1))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        assert module.main([str(small)]) == 5
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["kind"] == "error"
    assert "ValueError" in last["payload"]["message"]
    assert not (small.parent / "checkpoint").exists()
