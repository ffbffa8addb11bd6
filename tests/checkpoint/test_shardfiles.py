"""Shards in the making: flushed and hashed behind the writer's back, errors told, what is not full left partial."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from publisher.checkpoint import shardfiles
from publisher.checkpoint.layout import TensorSpec, plan_shards
from publisher.checkpoint.shardfiles import ShardFiles, sha256
from publisher.errors import CheckpointError, EngineError

LAYOUT = plan_shards([[TensorSpec(f"t{n}", "U8", (100,))] for n in range(8)], 200)


def made(folder: Path, finished: Any) -> ShardFiles:
    return ShardFiles(folder, LAYOUT, finished, lambda: 800)


def test_a_full_shard_is_handed_over_with_its_digest_and_notes(tmp_path: Path) -> None:
    found: dict[str, dict[str, Any]] = {}
    files = made(tmp_path, lambda shard, entry: found.update({shard.name: entry}))
    files.write("t1", [b"b" * 100], note=[1])
    files.write("t0", [b"a" * 40, memoryview(b"a" * 60)])
    files.wait()
    files.write("t2", [b"c" * 100])
    files.close()
    (name,) = found
    path = tmp_path / f"{name}.partial"
    assert found[name] == {"size": path.stat().st_size, "sha256": sha256(path), "notes": {"t1": [1]}}
    assert path.read_bytes().endswith(b"a" * 100 + b"b" * 100)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == found[name]["sha256"]
    assert len(list(tmp_path.glob("*.partial"))) == 2
    assert files.shard_of("t2").name != name


def test_writing_goes_on_while_a_shard_is_closed_and_waits_when_too_many_are(tmp_path: Path) -> None:
    gate, closed = threading.Event(), []

    def slow(shard: Any, _entry: Any) -> None:
        gate.wait(5)
        closed.append(shard.name)

    files = made(tmp_path, slow)
    for number in range(2 * shardfiles.PENDING):
        files.write(f"t{number}", [bytes(100)])
    assert closed == []
    opener = threading.Timer(0.2, gate.set)
    opener.start()
    for number in range(2 * shardfiles.PENDING, 8):
        files.write(f"t{number}", [bytes(100)])
    files.wait()
    assert closed == [shard.name for shard in LAYOUT]
    files.close()


def test_a_flush_that_fails_is_a_sentence_at_the_next_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shardfiles.os, "fsync", full)
    handed: list[Any] = []
    files = made(tmp_path, lambda *found: handed.append(found))
    files.write("t0", [bytes(100)])
    files.write("t1", [bytes(100)])
    with pytest.raises(EngineError, match="No space left on device; 800 bytes were still to be written"):
        files.wait()
    files.close()
    assert handed == []


def test_long_shards_are_flushed_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(shardfiles, "_FLUSH", 50)
    monkeypatch.setattr(shardfiles.os, "fdatasync", flushed.append)
    files = made(tmp_path, lambda *_: None)
    files.write("t0", [bytes(100)])
    files.close()
    assert len(flushed) == 1


@pytest.mark.parametrize(
    ("pieces", "words"), [([b"x" * 101], "More bytes"), ([b"x" * 99], "1 of 100 bytes are missing")]
)
def test_another_size_is_refused(tmp_path: Path, pieces: list[bytes], words: str) -> None:
    files = made(tmp_path, lambda *_: None)
    with pytest.raises(CheckpointError, match=words):
        files.write("t0", pieces)
    files.close()
