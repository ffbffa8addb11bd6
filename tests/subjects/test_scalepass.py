"""Scales are read in one pass: neighbours at once, payload not at all, what is beyond its file counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.subjects import BlockScales, Meter, Scalars, ScaleRanges, planned_reads, reading
from publisher.subjects.scalepass import ScalePass
from tests.builders.tiny import llama, mixture, mxfp4, nvfp4
from tests.builders.watched import Watched


def seen(place: Path | Watched, *kinds: type, meter: Meter | None = None) -> list[Any]:
    return list(ScalePass(checkpoint=open_checkpoint(place), kinds=kinds, meter=meter or Meter()).read())


def test_small_tensors_near_one_another_are_read_at_once_and_counted(tmp_path: Path) -> None:
    files, meter = Watched(nvfp4(llama()).write(tmp_path / "c")), Meter()
    checkpoint = open_checkpoint(files)
    files.reads.clear()
    found = list(ScalePass(checkpoint=checkpoint, kinds={BlockScales, Scalars}, meter=meter).read())
    assert sum(isinstance(subject, BlockScales) for subject in found) == 14
    assert len(files.reads) == 2  # one per shard: everything is nearer than the gap
    assert meter.bytes_read == sum(size for _, _, size in files.reads)
    runs = planned_reads(checkpoint, {BlockScales, Scalars})
    assert sorted((run.shard, run.begin, run.size) for run in runs) == sorted(files.reads)
    assert meter.done == meter.total


def test_payload_between_scales_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "GAP", 0)
    tiny, meter = mxfp4(llama()), Meter()
    scales = sum(len(tensor.data) for name, tensor in tiny.tensors.items() if name.endswith("weight_scale"))
    seen(tiny.write(tmp_path / "c"), BlockScales, meter=meter)
    assert meter.bytes_read == scales


def test_tensors_outside_their_file_are_counted_not_read(tmp_path: Path) -> None:
    folder, meter = nvfp4(llama()).write(tmp_path / "c"), Meter()
    path = folder / "model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    found = seen(folder, BlockScales, Scalars, meter=meter)
    assert meter.unreadable["scales"] >= 1
    assert sum(isinstance(subject, BlockScales) for subject in found) < 14


def test_ranges_stand_beside_their_global_scales(tmp_path: Path) -> None:
    tiny = nvfp4(mixture())
    (found,) = seen(tiny.write(tmp_path / "c"), ScaleRanges)
    assert found.format == "nvfp4"
    for one_ in found.ranges:
        data = tiny.tensors[f"{one_.module.name}.weight_scale_2"].data
        assert (one_.suffix, one_.bits) == ("weight_scale_2", int.from_bytes(data, "little"))
    assert max(one_.high for one_ in found.ranges) == 0x7E


def test_stacked_experts_have_scales_and_payload_of_their_own(tmp_path: Path) -> None:
    from tests.builders.variants import VARIANTS

    _, tiny = VARIANTS["gpt-oss"]()
    found = {scales.ref.name: scales for scales in seen(tiny.write(tmp_path / "c"), BlockScales)}
    assert set(found) == {name for name in tiny.tensors if name.endswith("_scales")}
    one = found["model.layers.1.mlp.experts.down_proj_scales"]
    assert (one.format, one.weight is not None and one.weight.name) == (
        "mxfp4",
        one.ref.name.replace("scales", "blocks"),
    )
    assert len(one.index(5)) == 3
