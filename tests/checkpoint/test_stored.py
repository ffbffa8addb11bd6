"""What is read for some rows, and what happens when a shard has become shorter."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.checkpoint.weights import locate
from publisher.errors import CheckpointError
from tests.builders.sources import fp8, fused, int4
from tests.builders.tiny import Tiny, kimi, mixture
from tests.builders.watched import Watched

EXPERT = "layers.1.mlp.experts.2.up_proj"


@pytest.mark.parametrize(
    ("source", "name", "limit"),
    [
        (mixture(), f"model.{EXPERT}", 3 * 64 * 2),
        (int4(kimi())[0], f"language_model.model.{EXPERT}", 3 * (32 + 4)),
        (fp8(mixture())[0], f"model.{EXPERT}", 3 * 64 + 2 * 8),
        (fused(mixture())[0], f"model.{EXPERT}", 3 * 64 * 2),
    ],
)
def test_only_the_rows_asked_for_are_read(source: Tiny, name: str, limit: int, tmp_path: Path) -> None:
    files = Watched(source.write(tmp_path))
    weight = locate(open_checkpoint(files), name, (32, 64))
    files.reads.clear()
    assert weight.decode(4, 7).shape == (3, 64)
    assert 0 < sum(size for _, _, size in files.reads) <= limit


def test_a_shard_that_shrinks_is_an_error_with_its_name(tmp_path: Path) -> None:
    source = mixture()
    source.shards = 1
    weight = locate(open_checkpoint(source.write(tmp_path)), f"model.{EXPERT}")
    shard = tmp_path / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[: weight.ref.begin + 10])
    with pytest.raises(CheckpointError, match=r"model\.safetensors ends inside"):
        weight.decode(0, 32)


def test_the_size_of_one_expert_is_its_share_of_the_stack(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(fused(mixture())[0].write(tmp_path))
    assert locate(checkpoint, f"model.{EXPERT}", (32, 64)).size == 32 * 64 * 2
