"""One worker by itself: what it says on its lines, and that it ends with whoever started it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Write = Callable[..., Path]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(source: Write, job: Write, tmp_path: Path) -> Path:
    tensors = {f"m.{n}.weight": torch.randn(32, 64).bfloat16() for n in range(6)}
    folder = source(tmp_path / "s", [tensors])
    (tmp_path / "r/staging/files").mkdir(parents=True)
    return job(tmp_path / "r/job.json", folder, [f"m.{n}" for n in range(6)], shard_size=2000)


def start(path: Path, device: str = "cpu") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "publisher.native.worker", str(path), device]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_it_writes_the_shards_it_is_told_to_and_renames_nothing(path: Path) -> None:
    shard = "model-00003-of-00006.safetensors"
    with start(path) as process:
        process.communicate()
    assert process.returncode == 6  # its input ended without a last word
    with start(path) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f'{{"shard": "{shard}"}}\n{{"shard": null}}\n')
        process.stdin.flush()
        out = process.stdout.read()
    events = {event["kind"]: event["payload"] for event in said(out)}
    assert len(said(out)) == len(events) == 4
    assert [said(out)[n]["kind"] for n in (0, -1)] == ["ready", "end"]
    assert events.keys() == {"ready", "wrote", "shard", "end"}  # who hashes may be done before who wrote says so
    assert process.returncode == 0
    entry = events["shard"]["entry"]
    files = path.parent / "staging/files"
    assert [found.name for found in files.iterdir()] == [f"{shard}.partial"]
    data = (files / f"{shard}.partial").read_bytes()
    assert (entry["size"], entry["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert events["wrote"] | {"tensor": ""} == {"shard": shard, "tensor": "", "size": 32 * 64 * 2}
    assert events["end"]["host"] > 0


def test_an_error_is_its_last_line_with_the_exit_code(path: Path) -> None:
    with start(path, "cuda:77") as process:
        assert process.stdout is not None
        events = said(process.stdout.read())
    assert events[-1]["kind"] == "error"
    assert events[-1]["payload"]["code"] == process.returncode == 5
    assert "cuda:77" in events[-1]["payload"]["message"]
