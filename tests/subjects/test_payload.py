"""Payloads are counted once for every rule, samples are the same blocks each time, floats are searched to the end."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.subjects import Meter, Payload, Payloads, Plain, planned_reads, reading
from publisher.subjects.payload import PayloadPass
from tests.builders.tiny import Tensor, Tiny, compressed, f32, kimi, llama, mixture, mxfp4, nvfp4
from tests.builders.watched import Watched

UP = "model.layers.0.mlp.up_proj"


def seen(place: Path | Watched, *kinds: type, meter: Meter | None = None, sample: int | None = None) -> list[Any]:
    return list(
        PayloadPass(checkpoint=open_checkpoint(place), kinds=kinds, meter=meter or Meter(), sample=sample).read()
    )


def one(rows: int, blocks: int, seed: int = 0) -> tuple[Tiny, np.ndarray, np.ndarray]:
    """A checkpoint of one NVFP4 module with random payload (rows, blocks, 8) and scales (rows, blocks)."""
    rng = np.random.default_rng(seed)
    payload = rng.integers(0, 256, (rows, blocks, 8), np.uint8)
    payload[rng.random((rows, blocks)) < 0.1] = 0x88
    scales = rng.integers(0, 0x7F, (rows, blocks), np.uint8)
    tensors = {
        f"{UP}.weight": Tensor("U8", (rows, blocks * 8), payload.tobytes()),
        f"{UP}.weight_scale": Tensor("F8_E4M3", (rows, blocks), scales.tobytes()),
        f"{UP}.weight_scale_2": f32(1e-4),
    }
    return Tiny(tensors=tensors, config={}, shards=1), payload, scales


def peaks(payload: np.ndarray) -> np.ndarray:
    return np.maximum(payload & 7, payload >> 4 & 7).max(axis=2)


@pytest.mark.parametrize("span", [64, 1000, 1 << 20])
def test_blocks_are_counted_whatever_the_piece(span: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SPAN", span)
    tiny, payload, scales = one(17, 23)
    meter = Meter()
    (found,) = seen(tiny.write(tmp_path), Payload, meter=meter)
    expected = np.zeros((256, 8), np.int64)
    np.add.at(expected, (scales, peaks(payload)), 1)
    assert found.counts.peaks.tolist() == expected.tolist()
    assert found.blocks == 17 * 23
    assert found.zeros.sum() == (peaks(payload) == 0).sum()
    assert meter.bytes_read == meter.done == meter.total == payload.size + scales.size


def test_the_first_block_of_a_kind_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SPAN", 100)
    tiny, payload, scales = one(17, 23)
    (found,) = seen(tiny.write(tmp_path), Payload)
    wanted = np.zeros((256, 8), np.bool_)
    wanted[0x40:, 0] = True
    place = np.argwhere((peaks(payload) == 0) & (scales >= 0x40))[0]
    assert found.first(wanted) == tuple(place)
    assert found.first(np.zeros((256, 8), np.bool_)) is None


@pytest.mark.parametrize(
    "make", [lambda: nvfp4(kimi()), lambda: mxfp4(mixture()), lambda: compressed(llama(), "nvfp4")]
)
def test_every_layouts_payloads_are_found_once(make: Any, tmp_path: Path) -> None:
    tiny = make()
    names = {name.rpartition(".")[0] for name in tiny.tensors if name.endswith("weight_scale")}
    found = seen(tiny.write(tmp_path), Payload, Payloads)
    assert {subject.packed.module.name for subject in found if isinstance(subject, Payload)} == names
    (every,) = (subject for subject in found if isinstance(subject, Payloads))
    assert {tally.packed.module.name for tally in every.tallies} == names
    assert all(tally.free[7] > 0 and tally.free[:6].sum() == 0 for tally in every.tallies)


def test_a_sample_reads_the_same_few_blocks_each_time(tmp_path: Path) -> None:
    tiny, *_ = one(200, 100)
    place, reads = tiny.write(tmp_path), []
    for _ in range(2):
        files = Watched(place)
        checkpoint = open_checkpoint(files)
        files.reads.clear()
        work = PayloadPass(checkpoint=checkpoint, kinds={Payload}, meter=Meter(), sample=1000)
        (found,) = work.read()
        assert isinstance(found, Payload)
        assert found.blocks == 1000
        reads.append(sorted(files.reads))
    assert reads[0] == reads[1]
    assert sum(size for _, _, size in reads[0]) == 9 * 1000
    planned = planned_reads(open_checkpoint(place), {Payload}, sample=1000)
    assert sorted((run.shard, run.begin, run.size) for run in planned) == reads[0]


def test_a_sample_larger_than_a_module_is_all_of_it(tmp_path: Path) -> None:
    tiny, _, _ = one(4, 4)
    (found,) = seen(tiny.write(tmp_path), Payload, sample=16)
    assert found.blocks == 16


@pytest.mark.parametrize(("total", "sample"), [(1000, 1), (1000, 999), (257, 256), (300, 299), (10_000, 1000)])
def test_stretches_never_overlap(total: int, sample: int) -> None:
    from publisher.subjects.payload import _stretches

    found = list(_stretches(total, sample, "a.b"))
    assert sum(end - begin for begin, end in found) == sample
    assert all(0 <= begin < end <= total for begin, end in found)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(found))


def test_a_payload_that_does_not_fit_its_scales_is_left_to_the_rules_on_headers(tmp_path: Path) -> None:
    tiny, _, _ = one(4, 4)
    tiny.tensors[f"{UP}.weight"] = Tensor("U8", (4, 16), bytes(64))
    assert seen(tiny.write(tmp_path), Payload, Payloads) == []


def test_payload_beyond_the_end_of_its_file_is_counted_not_read(tmp_path: Path) -> None:
    folder, meter = nvfp4(llama()).write(tmp_path), Meter()
    path = folder / "model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-3000])
    assert len(seen(folder, Payload, meter=meter)) < 14
    assert meter.unreadable["payload"] >= 1


def test_floats_are_searched_to_the_last_element(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SPAN", 64)
    tiny = nvfp4(llama())
    values = np.ones(100, np.float32)
    values[[37, 99]] = [np.nan, -np.inf]
    tiny.tensors["model.norm.weight"] = Tensor("F32", (100,), values.tobytes())
    tiny.tensors["model.layers.0.self_attn.k_proj.k_scale"] = f32(float("nan"))
    found = {plain.ref.name: plain for plain in seen(tiny.write(tmp_path), Plain)}
    assert (found["model.norm.weight"].bad, found["model.norm.weight"].first) == (2, 37)
    assert sum(plain.bad for plain in found.values()) == 2
    judged = (".weight_scale", ".weight_scale_2", ".input_scale", ".k_scale")
    floats = {n for n, t in tiny.tensors.items() if t.dtype in ("BF16", "F32") and not n.endswith(judged)}
    assert set(found) == floats
