"""Only what is asked for is made, and what is lacking is said in words a user can act on."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.subjects import (
    KINDS,
    BlockScales,
    Evidence,
    Headers,
    Meter,
    Modules,
    Pair,
    Repository,
    Shard,
    Upstream,
    lacking,
    stream,
)
from publisher.subjects.pruned import Pruned
from tests.builders.tiny import Tensor, llama, nvfp4
from tests.builders.watched import Watched


def test_headers_and_modules_read_nothing_more(tmp_path: Path) -> None:
    files = Watched(nvfp4(llama()).write(tmp_path / "c"))
    evidence = Evidence(checkpoint=open_checkpoint(files))
    files.reads.clear()
    found = [type(subject) for subject in stream(evidence, {Headers, Shard, Modules}, Meter())]
    assert found == [Headers, Shard, Shard, Modules]
    assert files.reads == []


def test_everything_comes_cheapest_first(tmp_path: Path) -> None:
    source = open_checkpoint(llama().write(tmp_path / "s"))
    tiny = nvfp4(llama())
    tiny.tensors["model.layers.0.mlp.up_proj.pre_quant_scale"] = Tensor("BF16", (64,), b"\x80\x3f" * 64)
    evidence = Evidence(checkpoint=open_checkpoint(tiny.write(tmp_path / "c")), source=source)
    found = [type(subject) for subject in stream(evidence, set(KINDS), Meter())]
    order = list(dict.fromkeys(found))
    assert set(KINDS) - set(order) == {Pruned}, "what is made only where sparsity is declared"
    assert order.index(Modules) < order.index(Pair) < order.index(Upstream) < order.index(BlockScales)


@pytest.mark.parametrize(
    ("kind", "level", "lack"),
    [
        (Headers, "headers", None),
        (BlockScales, "headers", "needs --level scales"),
        (BlockScales, "full", None),
        (Pair, "full", "needs the source: --source"),
        (Repository, "full", "needs the model card: README.md"),
    ],
)
def test_what_is_lacking(kind: type, level: str, lack: str | None, tmp_path: Path) -> None:
    evidence = Evidence(checkpoint=open_checkpoint(nvfp4(llama()).write(tmp_path / "c")), card=False)
    assert lacking(kind, evidence, level) == lack
