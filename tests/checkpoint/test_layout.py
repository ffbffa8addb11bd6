"""The shard layout, read back with the safetensors library."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors import safe_open

from publisher.checkpoint.layout import TensorSpec, plan_shards
from publisher.errors import CheckpointError


def test_headers_are_what_the_safetensors_library_reads(tmp_path: Path) -> None:
    specs = [
        TensorSpec("b.weight_scale", "F8_E4M3", (3, 1)),
        TensorSpec("b.weight_scale_2", "F32", ()),
        TensorSpec("a.bias", "BF16", (5,)),
        TensorSpec('ü"\n.weight', "U8", (3, 7)),
        TensorSpec("c.count", "I64", (1,)),
    ]
    (shard,) = plan_shards([specs], 1 << 20)
    assert shard.name == "model-00001-of-00001.safetensors"
    assert len(shard.header) % 8 == 0
    path = tmp_path / shard.name
    path.write_bytes(shard.header + bytes(shard.size - len(shard.header)))
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}
        for spec in specs:
            assert tuple(file.get_tensor(spec.name).shape) == spec.shape


def test_every_tensor_is_aligned_to_its_element() -> None:
    odd = [TensorSpec(f"t{n}", dtype, (3,)) for n, dtype in enumerate(["U8", "F32", "BF16", "F8_E4M3", "I64", "F32"])]
    (shard,) = plan_shards([odd], 1 << 20)
    width = {"U8": 1, "F8_E4M3": 1, "BF16": 2, "F32": 4, "I64": 8}
    assert all(shard.offsets[spec.name] % width[spec.dtype] == 0 for spec in odd)


def test_a_bundle_stays_together_and_shards_stay_below_the_limit() -> None:
    bundles = [[TensorSpec(f"{n}.weight", "U8", (60,)), TensorSpec(f"{n}.weight_scale", "U8", (10,))] for n in range(7)]
    shards = plan_shards(bundles, 150)
    assert [shard.name for shard in shards] == [f"model-{i:05d}-of-00004.safetensors" for i in range(1, 5)]
    assert [len(shard.specs) for shard in shards] == [4, 4, 4, 2]
    assert all(sum(spec.size for spec in shard.specs) <= 150 for shard in shards)


def test_a_tensor_larger_than_a_shard_gets_one_of_its_own() -> None:
    shards = plan_shards([[TensorSpec(n, "U8", (size,))] for n, size in (("a", 5), ("b", 100), ("c", 5))], 10)
    assert [[spec.name for spec in shard.specs] for shard in shards] == [["a"], ["b"], ["c"]]


@pytest.mark.parametrize(
    ("bundles", "word"),
    [
        ([], "no tensor"),
        ([[TensorSpec("a", "U8", (1,))], [TensorSpec("a", "U8", (1,))]], "twice"),
        ([[TensorSpec("__metadata__", "U8", (1,))]], "reserved"),
        ([[TensorSpec("a", "X9", (1,))]], "X9"),
        ([[TensorSpec("a", "F4", (3,))]], "F4"),
    ],
)
def test_what_cannot_be_stored_is_refused(bundles: list[list[TensorSpec]], word: str) -> None:
    with pytest.raises(CheckpointError, match=word):
        plan_shards(bundles, 100)
