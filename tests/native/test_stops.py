"""A stop or an unreadable disk at any moment of a run, the last shard and what follows it included: go on, same bytes.

The program runs in this process; the moments are those at which it asks whether it was stopped, and every read.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from publisher.errors import CheckpointError, InterruptedRun
from publisher.native import stream
from publisher.native.__main__ import StopSignal, run

Write = Callable[..., Path]
NAMES = [f"model.layers.{n}.{name}" for n in range(3) for name in ("q_proj", "o_proj")]


class Counted:
    """Stops at one of the moments it is asked at."""

    def __init__(self, at: int = 0) -> None:
        self.asked, self._at = 0, at

    def check(self) -> None:
        self.asked += 1
        if self.asked == self._at:
            raise InterruptedRun("Stopped.")


@pytest.fixture
def make(source: Write, job: Write, tmp_path: Path) -> Callable[[str], Path]:
    generator = torch.Generator().manual_seed(3)
    weights = {f"{name}.weight": torch.randn(16, 64, generator=generator).bfloat16() for name in NAMES}
    norms = {f"model.layers.{n}.norm.weight": torch.ones(64).bfloat16() for n in range(3)}
    folder = source(tmp_path / "source", [{**weights, **norms}])
    return lambda name: job(tmp_path / name / "job.json", folder, NAMES, shard_size=1500)


def started(path: Path, at: int = 0) -> int:
    stop = Counted(at)
    run(path, cast(StopSignal, stop))
    return stop.asked


def digests(path: Path) -> dict[str, str]:
    files = sorted((path.parent / "checkpoint").iterdir())
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_a_stop_at_any_moment_keeps_what_is_finished(
    make: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_TICK", 60)  # a slow machine asks no more often than a fast one
    whole = make("whole")
    moments = started(whole)
    expected = digests(whole)
    shards = sum(name.endswith(".safetensors") for name in expected)
    assert moments > shards > 2
    finished: list[int] = []
    for moment in range(1, moments + 1):
        path = make(f"stopped{moment}")
        with pytest.raises(InterruptedRun):
            started(path, moment)
        assert not (path.parent / "checkpoint").exists()
        kept = json.loads((path.parent / "staging/ledger.json").read_text())["shards"]
        before = {name: (path.parent / "staging/files" / name).stat().st_mtime_ns for name in kept}
        started(path)
        assert digests(path) == expected
        assert {name: (path.parent / "checkpoint" / name).stat().st_mtime_ns for name in kept} == before
        finished.append(len(kept))
    assert finished[-1] == shards, "the last question comes after the last shard"
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("read", "write", "flush"))]


def test_a_disk_that_cannot_be_read_stops_the_run_by_name_and_can_be_gone_on_from(
    make: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make("whole")
    started(whole)
    real, reads, bad = os.preadv, 0, 0

    def preadv(descriptor: int, views: Any, position: int) -> int:
        nonlocal reads
        reads += 1
        if reads == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor, views, position)

    monkeypatch.setattr(os, "preadv", preadv)
    for bad in range(1, 10):
        path, reads = make(f"eio{bad}"), 0
        with pytest.raises(CheckpointError, match=r"model-00001-of-00001\.safetensors cannot be read: Input/output"):
            started(path)
        assert not (path.parent / "checkpoint").exists()
        started(path)
        assert digests(path) == digests(whole)
    assert reads >= 9, "nine tensors, each read at least once"
