"""What a job comes to is the same however often and wherever it is prepared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from publisher.native.job import read_job
from publisher.native.work import prepare

Write = Callable[..., Path]


def test_every_process_lays_out_the_same(source: Write, job: Write, tmp_path: Path) -> None:
    tensors = {f"m.{n}.weight": torch.ones(16, 64) for n in range(9)}
    folder = source(tmp_path / "s", [tensors])
    path = job(tmp_path / "r/job.json", folder, [f"m.{n}" for n in range(0, 9, 2)], shard_size=3000)
    one, two = prepare(read_job(path)), prepare(read_job(path))
    assert [(shard.name, shard.header) for shard in one.layout] == [(shard.name, shard.header) for shard in two.layout]
    assert one.units == two.units
    assert len(one.layout) > 2
    assert one.inputs == {}
    assert not (tmp_path / "r/staging").exists()
