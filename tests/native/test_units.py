"""The work cut into units and tasks: order, fused groups across shards of the result, what is finished left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from publisher.checkpoint.modules import fused_groups
from publisher.errors import CheckpointError
from publisher.native.job import Job, read_job
from publisher.native.source import SourceTensors
from publisher.native.units import Unit, by_shard, pending, plan_layout, plan_units, stored_name

Write = Callable[..., Path]


@pytest.fixture
def planned(source: Write, job: Write, tmp_path: Path) -> tuple[Job, tuple[Unit, ...]]:
    tensors = [
        {f"layers.{n}.mlp.{name}.weight": torch.ones(32, 64).bfloat16() for n in range(4) for name in names}
        for names in (("gate_proj", "down_proj"), ("up_proj",))
    ]
    tensors[0]["embed.weight"] = torch.ones(8, 64)
    names = sorted(name.removesuffix(".weight") for part in tensors for name in part if "proj" in name)
    options = {"groups": fused_groups(names), "shard_size": 2500}
    found = read_job(job(tmp_path / "r/job.json", source(tmp_path / "s", tensors), names, **options))
    return found, plan_units(SourceTensors(found.source).refs, found)


def test_a_group_is_one_unit_at_the_place_of_its_first_member(planned: tuple[Job, tuple[Unit, ...]]) -> None:
    _, units = planned
    names = [tuple(ref.name.removesuffix(".weight") for ref in unit.refs) for unit in units]
    assert names[0] == ("embed",)
    assert ("layers.1.mlp.gate_proj", "layers.1.mlp.up_proj") in names
    assert sorted(name for unit in names for name in unit) == sorted({name for unit in names for name in unit})
    assert [unit.quantized for unit in units].count(False) == 1
    fused = next(unit for unit in units if len(unit.refs) == 2)
    assert fused.size == fused.memory == 2 * 32 * 64 * 2


def test_shards_and_tasks_hold_every_tensor_once(planned: tuple[Job, tuple[Unit, ...]]) -> None:
    job, units = planned
    layout = plan_layout(units, job)
    shard_of = {spec.name: shard.name for shard in layout for spec in shard.specs}
    tasks = by_shard(units, job.stored, shard_of.__getitem__)
    assert set(tasks) == {shard.name for shard in layout}
    refs = [ref.name for part in tasks.values() for task in part for ref in task.refs]
    assert sorted(refs) == sorted(ref.name for unit in units for ref in unit.refs)
    across = [task for part in tasks.values() for task in part if len(task.refs) < len(task.unit.refs)]
    assert len(across) >= 2  # a group on both sides of a border
    for shard, part in tasks.items():
        assert all(shard_of[stored_name(task.unit, ref, job.stored)] == shard for task in part for ref in task.refs)


def test_only_what_is_not_finished_is_pending(planned: tuple[Job, tuple[Unit, ...]]) -> None:
    job, units = planned
    assert pending(units, job.stored, lambda _: True) == ()
    assert [task.unit for task in pending(units, job.stored, lambda _: False)] == list(units)
    some = pending(units, job.stored, lambda name: name.startswith("layers.2.mlp.gate_proj"))
    partly = next(task for task in some if task.unit.refs[0].name == "layers.2.mlp.gate_proj.weight")
    assert [ref.name for ref in partly.refs] == ["layers.2.mlp.up_proj.weight"]


def test_modules_that_cannot_be_quantized_are_named_together(source: Write, job: Write, tmp_path: Path) -> None:
    folder = source(tmp_path / "s", [{"a.weight": torch.ones(4, 24), "b.weight": torch.ones(64)}])
    found = read_job(job(tmp_path / "r/job.json", folder, ["a", "b", "c"]))
    with pytest.raises(CheckpointError, match=r"a\.weight has the shape.*b\.weight has the shape.*c has no weight"):
        plan_units(SourceTensors(found.source).refs, found)
