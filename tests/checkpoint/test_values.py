"""Bits that differ, found again with numpy on the builders' bytes; memory and reads bounded."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

from publisher.checkpoint import values
from publisher.checkpoint.open import Checkpoint, open_checkpoint
from publisher.checkpoint.values import ValueChange, compare
from tests.builders.tiny import Tensor, Tiny, llama, mixture, nvfp4


def compared(one: Checkpoint, other: Checkpoint) -> dict[str, ValueChange]:
    pairs = [(ref, other.tensors[name]) for name, ref in one.tensors.items()]
    return {change.name: change for change in compare(one, other, pairs)}


@pytest.fixture
def before() -> Tiny:
    return nvfp4(mixture())


@pytest.mark.parametrize("shards", [1, 2, 5])
@pytest.mark.parametrize("piece", [1, 7, 64, 8 << 20])
def test_every_flipped_byte_is_found_at_its_place(
    tmp_path: Path, before: Tiny, shards: int, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "PIECE", max(piece, 4) // 4 * 4)
    after = copy.deepcopy(before)
    rng = np.random.default_rng(3)
    wanted = {}
    for name in rng.choice(sorted(after.tensors), 12, replace=False):
        tensor = after.tensors[name]
        width = {"BF16": 2, "F32": 4}.get(tensor.dtype, 1)
        places = sorted({int(p) for p in rng.integers(0, len(tensor.data), 3)})
        data = bytearray(tensor.data)
        for place in places:
            data[place] ^= 0xFF
        tensor.data = bytes(data)
        elements = sorted({place // width for place in places})
        wanted[name] = (len(elements), tuple(int(n) for n in np.unravel_index(elements[0], tensor.shape or (1,))))
    after.shards = shards
    one, other = (open_checkpoint(t.write(tmp_path / n)) for t, n in ((before, "a"), (after, "b")))
    found = compared(one, other)
    assert {name: (c.elements, c.first if before.tensors[name].shape else (0,)) for name, c in found.items()} == wanted


def test_the_same_file_is_not_read(tmp_path: Path, before: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = before.write(tmp_path / "a")
    link = tmp_path / "b"
    link.mkdir()
    for path in folder.iterdir():
        if path.is_file():
            (link / path.name).hardlink_to(path)
    one, other = open_checkpoint(folder), open_checkpoint(link)
    monkeypatch.setattr(type(one.files), "read", lambda *a, **k: pytest.fail("read"))
    assert compared(one, other) == {}


def test_a_shard_that_ends_early_is_a_difference_not_a_crash(tmp_path: Path, before: Tiny) -> None:
    one, other = (open_checkpoint(before.write(tmp_path / name)) for name in "ab")
    shard = tmp_path / "b/model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-3])
    (change,) = compared(one, other).values()
    assert change.first is None


def test_a_tensor_that_claims_more_than_there_is_costs_nothing(tmp_path: Path) -> None:
    tiny = Tiny(tensors={"a.weight": Tensor("U8", (4,), b"abcd")}, config={}, shards=1)
    one, other = (open_checkpoint(tiny.write(tmp_path / name)) for name in "ab")
    from dataclasses import replace

    own = replace(one.tensors["a.weight"], shape=(2**61,), end=2**61)
    (change,) = compare(one, other, [(own, own)])
    assert change.first is None


def test_many_scalars_cost_few_reads(tmp_path: Path) -> None:
    tensors = {f"layers.{n}.input_scale": Tensor("F32", (), bytes(4)) for n in range(5000)}
    one, other = (open_checkpoint(Tiny(tensors=tensors, config={}).write(tmp_path / name)) for name in "ab")
    reads = []
    original = type(one.files).read

    class Counted(type(one.files)):  # type: ignore[misc]
        def read(self, *args: object, **kwargs: object) -> bytes:
            reads.append(args)
            return original(self, *args, **kwargs)  # type: ignore[arg-type]

    one.files.__class__ = Counted
    assert compared(one, other) == {}
    assert len(reads) <= 4


def test_progress_reaches_its_total(tmp_path: Path) -> None:
    one, other = (open_checkpoint(llama().write(tmp_path / name)) for name in "ab")
    told: list[tuple[int, int]] = []
    pairs = [(ref, other.tensors[name]) for name, ref in one.tensors.items()]
    assert list(compare(one, other, pairs, progress=lambda done, total: told.append((done, total)))) == []
    assert told[-1] == (one.tensor_bytes, one.tensor_bytes)
