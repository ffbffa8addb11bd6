"""Reads are planned before they are made, in file order, bounded, and a shard that shrinks is told by its name."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.errors import CheckpointError
from publisher.subjects import Meter, reading
from publisher.subjects.reading import fetch, pieces, plan
from tests.builders.tiny import Tensor, Tiny, llama, nvfp4
from tests.builders.watched import Watched


class Far(Watched):
    """The same files as if they were somewhere else."""

    def local(self, path: str) -> Path | None:
        return None


def blobs(**sizes: int) -> Tiny:
    rng = np.random.default_rng(5)
    tensors = {name: Tensor("U8", (size,), rng.bytes(size)) for name, size in sizes.items()}
    return Tiny(tensors=tensors, config={}, shards=1)


@pytest.mark.parametrize("far", [False, True], ids=["folder", "far"])
def test_every_byte_comes_once_and_in_order(far: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SPAN", "FAR_SPAN"):
        monkeypatch.setattr(reading, name, 1000)
    tiny = blobs(a=10, b=5000, c=0, d=999, e=1001, f=1)
    place = tiny.write(tmp_path)
    checkpoint = open_checkpoint(Far(place) if far else place)
    runs = plan(checkpoint, [checkpoint.tensors[name] for name in "fabcde"])
    assert all(run.size <= 1000 for run in runs)
    assert [(run.shard, run.begin) for run in runs] == sorted((run.shard, run.begin) for run in runs)
    got: dict[str, bytes] = {}
    for piece in pieces(checkpoint, runs, Meter()):
        assert piece.offset == len(got.get(piece.ref.name, b""))
        got[piece.ref.name] = got.get(piece.ref.name, b"") + piece.codes.tobytes()
        assert piece.last == (len(got[piece.ref.name]) == piece.ref.size)
    assert got == {name: tiny.tensors[name].data for name in "abcdef"}


def test_a_gap_is_read_where_a_request_would_cost_more(tmp_path: Path) -> None:
    place = blobs(a=10, hole=reading.FAR_GAP - 1, b=10, wide=reading.FAR_GAP + 1, c=10).write(tmp_path)
    spans = {}
    for files in (Watched(place), Far(place)):
        checkpoint = open_checkpoint(files)
        runs = plan(checkpoint, [checkpoint.tensors[name] for name in "abc"])
        spans[type(files)] = [[ref.name for ref in run.refs] for run in runs]
    assert spans == {Watched: [["a"], ["b"], ["c"]], Far: [["a", "b"], ["c"]]}


def test_what_is_planned_is_what_is_read(tmp_path: Path) -> None:
    files, meter = Far(nvfp4(llama()).write(tmp_path)), Meter()
    checkpoint = open_checkpoint(files)
    runs = plan(checkpoint, checkpoint.tensors.values())
    files.reads.clear()
    assert sum(len(data) for _, data in fetch(files, runs, meter)) == meter.bytes_read == sum(run.size for run in runs)
    assert sorted(files.reads) == sorted((run.shard, run.begin, run.size) for run in runs)


@pytest.mark.parametrize("far", [False, True], ids=["folder", "far"])
def test_a_shard_that_shrinks_while_read_is_named(far: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SPAN", "FAR_SPAN"):
        monkeypatch.setattr(reading, name, 4096)
    place = blobs(a=100_000).write(tmp_path)
    checkpoint = open_checkpoint(Far(place) if far else place)
    runs = plan(checkpoint, checkpoint.tensors.values())
    stream = fetch(checkpoint.files, runs, Meter())
    next(stream)
    path = place / "model.safetensors"
    path.write_bytes(path.read_bytes()[:50_000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors ends inside the tensor a .*shorter"):
        list(stream)


def test_a_shard_that_vanishes_is_named(tmp_path: Path) -> None:
    place = blobs(a=100).write(tmp_path)
    checkpoint = open_checkpoint(place)
    (place / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors of .* cannot be read: No such file"):
        list(fetch(checkpoint.files, plan(checkpoint, checkpoint.tensors.values()), Meter()))


def test_distant_runs_are_fetched_ahead_and_only_a_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Far):
        running = most = started = 0
        lock = threading.Lock()

        def read(self, path: str, begin: int = 0, end: int | None = None) -> bytes:
            with self.lock:
                self.started += 1
                self.running += 1
                self.most = max(self.most, self.running)
            time.sleep(0.02)
            with self.lock:
                self.running -= 1
            return super().read(path, begin, end)

    files = Slow(blobs(a=100_000).write(tmp_path))
    checkpoint = open_checkpoint(files)
    monkeypatch.setattr(reading, "FAR_SPAN", 1000)
    runs = plan(checkpoint, checkpoint.tensors.values())
    files.most = files.started = 0
    stream = fetch(files, runs, Meter())
    next(stream)
    assert files.started <= reading.AHEAD
    assert 1 < files.most <= reading.AHEAD
    stream.close()
    before = files.started
    time.sleep(0.1)
    assert files.started == before, "nothing is fetched for a reader who has left"
