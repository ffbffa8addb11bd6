"""Sizes against numbers worked out by hand, and the shard count against the writer's own layout."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.layout import TensorSpec, plan_shards
from publisher.plan.sizes import Stack, disk_needed, memory_needed, memory_of, quantized_size, shard_count
from publisher.units import format_bytes


def test_a_kimi_expert_in_both_formats(recipe: Any) -> None:
    elements = 7168 * 2048
    assert quantized_size(recipe(), elements) == elements * 0.5625 + 4
    calibrated = recipe(engine="modelopt", calibration={"data": "c"})
    assert quantized_size(calibrated, elements) == elements * 0.5625 + 8
    assert quantized_size(recipe(format="mxfp4"), elements) == elements * 0.53125
    # 69,120 of them: 570.8 GB and 539.0 GB, as published checkpoints weigh.
    assert format_bytes(69_120 * quantized_size(calibrated, elements)) == "571 GB"
    assert format_bytes(69_120 * quantized_size(recipe(format="mxfp4"), elements)) == "539 GB"


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 120))
def test_shards_are_counted_as_the_writer_fills_them(sizes: list[int], shard_size: int) -> None:
    bundles = [[TensorSpec(f"t{index}", "U8", (size,))] for index, size in enumerate(sizes)]
    assert shard_count(sizes, shard_size) == len(plan_shards(bundles, shard_size))


def test_native_needs_memory_for_a_group_and_modelopt_for_the_model(recipe: Any) -> None:
    ref = TensorRef("a.weight", "BF16", (4096, 4096), "s", 0, 2 * 4096 * 4096)
    native = memory_needed(recipe(), 10**12, [[ref, ref], [ref]])
    assert 3 * ref.size < native < 1 << 30
    modelopt = recipe(engine="modelopt", calibration={"data": "c"})
    assert memory_needed(modelopt, 10**12, [[ref]]) > 10**12
    assert disk_needed(modelopt, 10**9, 0, 10) > disk_needed(recipe(), 10**9, 0, 10) > 10**9


def group(*shape: int, dtype: str = "BF16", members: int = 2) -> list[TensorRef]:
    return [TensorRef(f"{n}.weight", dtype, shape, "s", 0, 0) for n in range(members)]


@pytest.mark.parametrize(
    ("measured", "recipe_", "groups", "stacks", "tensors", "processes"),
    [
        (254, {}, [group(64, 64)], [], 4, 1),
        (958, {}, 36 * [group(2048, 7168)], [], 76, 1),
        (1919, {}, 36 * [group(2048, 7168)], [], 76, 2),
        (891, {"format": "mxfp4"}, 72 * [group(2048, 7168, members=1)], [], 76, 1),
        (1517, {}, [group(28672, 8192), group(8192, 28672, members=1)], [], 3, 1),
        (435, {}, 46_080 * [group(32, 32, members=1)], [], 46_120, 1),
        (756, {}, [], [Stack(experts=32, elements=5760 * 2880, taken_over=False)], 4, 1),
    ],
)
def test_it_is_above_what_jobs_were_measured_to_take_and_not_twice_as_much(
    measured: int, recipe_: Any, groups: Any, stacks: Any, tensors: int, processes: int, recipe: Any
) -> None:
    """`peak_memory.host` of quantize.json in MB, of jobs of these shapes on two cores."""
    needed = memory_needed(recipe(**recipe_), 10**10, groups, stacks, tensors=tensors)
    assert measured < memory_of(needed, processes) / 1e6 < 2 * measured


def test_what_streams_through_does_not_count_and_what_is_held_at_once_does(recipe: Any) -> None:
    few, many = (memory_needed(recipe(), 0, count * [group(2048, 7168)]) for count in (20, 20_000))
    assert few == many
    larger = memory_needed(recipe(), 0, [group(16384, 53248)])
    assert larger - few > 2 * 2 * 16384 * 53248 * 0.9, "both members at once"
    wide = memory_needed(recipe(), 0, 20 * [group(2048, 7168)], tensors=500_000)
    assert 1 << 30 < wide - few < 4 << 30
    experts = {"experts": 128, "elements": 5760 * 2880}
    both = [memory_needed(recipe(), 0, [], [Stack(**experts, taken_over=over)]) for over in (True, False)]
    scales = 128 * 5760 * 2880 // 16
    assert all(needed > scales + 5760 * 2880 * 2 for needed in both), "block scales of all experts, at least"
