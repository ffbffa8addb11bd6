"""A changed source is known by size, time or header, and named."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from publisher.checkpoint.stamps import require_unchanged, stamps
from publisher.errors import CheckpointError


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    save_file({"a": np.zeros(8, np.float32)}, tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


def test_the_same_file_has_the_same_stamp(shard: Path) -> None:
    before = stamps(shard.parent, ["a.safetensors", "a.safetensors"])
    shard.read_bytes()
    require_unchanged(before, stamps(shard.parent, ["a.safetensors"]))


@pytest.mark.parametrize("change", ["time", "size", "header"])
def test_what_changed_is_named(shard: Path, change: str) -> None:
    before = stamps(shard.parent, [shard.name])
    kept = shard.stat().st_mtime_ns
    if change == "size":
        os.truncate(shard, shard.stat().st_size + 1)
    elif change == "header":
        data = shard.read_bytes()
        shard.write_bytes(data.replace(b'"a"', b'"b"'))
    os.utime(shard, ns=(kept, kept + (1 if change == "time" else 0)))
    with pytest.raises(CheckpointError, match=r"a\.safetensors of the source changed while"):
        require_unchanged(before, stamps(shard.parent, [shard.name]))


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.safetensors cannot be read"):
        stamps(tmp_path, ["gone.safetensors"])
