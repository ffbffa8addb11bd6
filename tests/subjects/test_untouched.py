"""Tensors that were copied, beside their source: every element, across dtypes, and from sources that are quantized."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.errors import CheckpointError
from publisher.subjects import Meter, Untouched, untouched
from publisher.subjects.untouched import read_untouched
from tests.builders.sources import fp8, fused, int4
from tests.builders.tiny import Tensor, Tiny, kimi, llama, mixture, nvfp4


def seen(source: Tiny, result: Tiny, folder: Path, meter: Meter | None = None) -> dict[str, Untouched]:
    pair = open_checkpoint(result.write(folder / "result")), open_checkpoint(source.write(folder / "source"))
    return {found.ref.name: found for found in read_untouched(*pair, meter or Meter())}


def one(mine: Tensor, theirs: Tensor, folder: Path) -> Untouched:
    made = (Tiny(tensors={"a.bias": tensor}, config={}, shards=1) for tensor in (theirs, mine))
    return seen(*made, folder)["a.bias"]


def test_everything_but_the_packed_weights_is_compared(tmp_path: Path) -> None:
    source = mixture()
    found = seen(source, nvfp4(source), tmp_path)
    assert set(found) == {name for name in source.tensors if "_proj" not in name or "norm" in name}
    assert all(f.different == 0 and f.flaw is None and not f.zeroed for f in found.values())
    assert sum(f.elements for f in found.values()) > 2 * 32 * 64


@pytest.mark.parametrize("dtype", ["BF16", "F32", "I64", "U8", "BOOL", "F8_E4M3", "C64", "F4"])
@pytest.mark.parametrize("piece", [16, 8 << 20])
def test_one_changed_element_is_found_where_it_is(
    dtype: str, piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(untouched, "PIECE", piece)
    width = {"BF16": 2, "F32": 4, "I64": 8, "C64": 8}.get(dtype, 1)
    data = bytearray(np.random.default_rng(0).integers(1, 255, 40 * width, np.uint8).tobytes())
    theirs = Tensor(dtype, (5, 16 if dtype == "F4" else 8), bytes(data))
    data[27 * width] ^= 0xFF
    found = one(Tensor(dtype, theirs.shape, bytes(data)), theirs, tmp_path)
    assert found.different == 1
    assert found.first == ((1, 11) if dtype == "F4" else (3, 3))


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [("BF16", "F32"), ("F16", "F32"), ("F32", "BF16"), ("F32", "F16"), ("BF16", "F16"), ("F16", "BF16")],
)
def test_another_dtype_may_hold_the_nearest_value_and_nothing_else(mine: str, theirs: str, tmp_path: Path) -> None:
    kinds = {"BF16": ml_dtypes.bfloat16, "F16": np.float16, "F32": np.float32}
    values = np.random.default_rng(1).normal(0, 3, 64).astype(kinds[theirs])
    values[:4] = [0.0, -0.0, np.nan, 1e-7]
    nearest = values.astype(np.float32).astype(kinds[mine])
    source = Tensor(theirs, (64,), values.tobytes())
    assert one(Tensor(mine, (64,), nearest.tobytes()), source, tmp_path / "1").different == 0
    moved = nearest.copy()
    moved.view(np.uint32 if mine == "F32" else np.uint16)[9] += 1
    assert one(Tensor(mine, (64,), moved.tobytes()), source, tmp_path / "2").different == 1


def test_zeros_where_the_source_has_weights_are_told_from_zeros_in_both(tmp_path: Path) -> None:
    some, none = Tensor("F32", (4,), b"\0" * 12 + b"\0\0\x80?"), Tensor("F32", (4,), bytes(16))
    assert one(none, some, tmp_path / "1").zeroed
    assert not one(none, none, tmp_path / "2").zeroed
    assert not one(some, none, tmp_path / "3").zeroed


def test_another_shape_is_no_comparison(tmp_path: Path) -> None:
    found = one(Tensor("F32", (2, 2), bytes(16)), Tensor("F32", (4,), bytes(16)), tmp_path)
    assert found.misshapen
    assert found.elements == 0


def test_layers_that_a_quantized_source_had_packed_are_decoded(tmp_path: Path) -> None:
    for number, (stored, meant) in enumerate((int4(kimi()), fp8(mixture()), fused(mixture()))):
        found = seen(stored, meant, tmp_path / str(number))
        assert set(found) == set(meant.tensors)
        assert all(f.different == 0 and f.elements for f in found.values())
        name = next(name for name in meant.tensors if name.endswith("experts.1.up_proj.weight"))
        meant.poke(name, 7, meant.tensors[name].data[7] ^ 1)
        changed = seen(stored, meant, tmp_path / f"{number}-changed")
        assert [name for name, f in changed.items() if f.different] == [name]


def test_a_source_that_cannot_be_decoded_leaves_its_reason(tmp_path: Path) -> None:
    stored, meant = int4(kimi())
    name = next(name for name in stored.tensors if name.endswith("experts.1.up_proj.weight_packed"))
    stored.tensors[name.replace("packed", "zero_point")] = Tensor("I32", (4, 2), bytes(32))
    meter = Meter()
    found = seen(stored, meant, tmp_path, meter)
    assert name.replace("_packed", "") not in found
    ((reason, count),) = meter.left[Untouched].items()
    assert "asymmetric" in reason
    assert count == 1


def test_a_shard_that_shrinks_is_an_error(tmp_path: Path) -> None:
    source = llama()
    checkpoint = open_checkpoint(source.write(tmp_path / "result"))
    original = open_checkpoint(source.write(tmp_path / "source"))
    shard = tmp_path / "source" / "model-00001-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:3000])
    with pytest.raises(CheckpointError, match="ends inside"):
        list(read_untouched(checkpoint, original, Meter()))
