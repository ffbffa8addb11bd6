"""Sizes against numbers worked out by hand, and the shard count against the writer's own layout."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.layout import TensorSpec, plan_shards
from publisher.plan.sizes import disk_needed, memory_needed, quantized_size, shard_count
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
    native = memory_needed(recipe(), 10**12, [[ref, ref], [ref]], largest_kept=0)
    assert 2 * 4096 * 4096 * 4 < native < 4 << 30
    modelopt = recipe(engine="modelopt", calibration={"data": "c"})
    assert memory_needed(modelopt, 10**12, [[ref]], largest_kept=0) > 10**12
    assert disk_needed(modelopt, 10**9, 0, 10) > disk_needed(recipe(), 10**9, 0, 10) > 10**9
