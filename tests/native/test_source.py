"""Source tensors are read as stored; damage is found before any work."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from publisher.errors import CheckpointError
from publisher.native import source as module
from publisher.native.source import SourceTensors

Write = Callable[..., Path]
FIRST = {"b.weight": torch.randn(4, 32).bfloat16(), "a.weight": torch.randn(4, 32)}
SECOND = {"c.weight": torch.randn(4, 32).half(), "d.count": torch.tensor([7])}


def test_tensors_are_what_was_saved(source: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STEP", 100)
    tensors = SourceTensors(source(tmp_path / "s", [FIRST, SECOND]))
    for name in ("a.weight", "b.weight", "c.weight"):
        assert torch.equal(tensors.load(tensors.refs[name]), {**FIRST, **SECOND}[name])
    pieces = b"".join(bytes(piece) for piece in tensors.pieces(tensors.refs["a.weight"]))
    assert pieces == FIRST["a.weight"].numpy().tobytes()


def packed_by_compressed_tensors(rows: int, columns: int, seed: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """What the library stores of a random weight in INT4, groups of 32, and what it makes of that again."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).bfloat16()
    scale = (weight.view(rows, -1, 32).abs().amax(-1) / 7.5).bfloat16()
    args = QuantizationArgs(num_bits=4, type="int", strategy="group", group_size=32, symmetric=True)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    library: Any = BaseCompressor.load_from_registry("pack-quantized")
    stored = library.compress({"weight": weight, "weight_scale": scale}, scheme)
    return stored, library.decompress(dict(stored), scheme)["weight"]


@pytest.mark.parametrize(("rows", "columns"), [(5, 64), (96, 7168), (640, 2048)])
def test_int4_is_what_compressed_tensors_decompresses(source: Write, tmp_path: Path, rows: int, columns: int) -> None:
    stored, meant = packed_by_compressed_tensors(rows, columns, rows)
    assert stored["weight_packed"].dtype == torch.int32
    tensors = SourceTensors(source(tmp_path / "s", [{f"a.{name}": tensor for name, tensor in stored.items()}]))
    (ref,) = tensors.refs.values()
    assert (ref.name, ref.dtype, ref.shape) == ("a.weight", "BF16", (rows, columns))
    assert meant.dtype == torch.bfloat16
    assert torch.equal(tensors.load(ref), meant)


@pytest.mark.parametrize("block", [(128, 128), (1, 320), (300, 320)], ids=["DeepSeek", "channel", "tensor"])
def test_fp8_is_its_codes_times_its_scales(
    source: Write, tmp_path: Path, block: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_STEP", 100_000)
    random = torch.Generator().manual_seed(1)
    codes = (torch.randn(300, 320, generator=random) * 60).to(torch.float8_e4m3fn)
    scale = torch.rand(-(-300 // block[0]), -(-320 // block[1]), generator=random) / 100
    name = "weight_scale_inv" if block == (128, 128) else "weight_scale"
    stored = {"a.weight": codes, f"a.{name}": scale, "a.input_scale": torch.ones(1), "a.bias": torch.ones(300)}
    tensors = SourceTensors(source(tmp_path / "s", [stored]))
    assert sorted(tensors.refs) == ["a.bias", "a.weight"]
    wide = scale.repeat_interleave(block[0], 0)[:300].repeat_interleave(block[1], 1)[:, :320]
    meant = (codes.float() * wide).bfloat16()
    assert torch.equal(tensors.load(tensors.refs["a.weight"]), meant)
    pieces = b"".join(bytes(piece) for piece in tensors.pieces(tensors.refs["a.weight"]))
    assert pieces == meant.view(torch.uint8).numpy().tobytes()


def test_order_is_that_of_the_disk(source: Write, tmp_path: Path) -> None:
    refs = SourceTensors(source(tmp_path / "s", [FIRST, SECOND])).refs
    places = [(ref.shard, ref.begin) for ref in refs.values()]
    assert places == sorted(places)


def test_files_the_index_does_not_name_are_left_alone(source: Write, tmp_path: Path) -> None:
    folder = source(tmp_path / "s", [FIRST])
    save_file({"layers.0.wq.weight": torch.zeros(2)}, folder / "consolidated.safetensors")
    assert set(SourceTensors(folder).refs) == set(FIRST)


@pytest.mark.parametrize("damage", ["truncated", "missing", "pointer", "renamed", "empty"])
def test_damage_is_named_with_its_file(source: Write, tmp_path: Path, damage: str) -> None:
    folder = source(tmp_path / "s", [FIRST, SECOND])
    shard = folder / "model-00002-of-00002.safetensors"
    if damage == "truncated":
        os.truncate(shard, shard.stat().st_size - 1)
    elif damage == "missing":
        shard.unlink()
    elif damage == "pointer":
        shard.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    elif damage == "empty":
        shard.write_bytes(b"")
    else:
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        index["weight_map"]["lost.weight"] = shard.name
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"lost\.weight|model-00002-of-00002"):
        SourceTensors(folder)


def test_a_size_that_contradicts_the_shape_is_refused(tmp_path: Path) -> None:
    header = json.dumps({"a.weight": {"dtype": "BF16", "shape": [4, 32], "data_offsets": [0, 8]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(CheckpointError, match=r"a\.weight.*8 bytes"):
        SourceTensors(tmp_path)


def test_a_name_in_two_shards_is_refused(tmp_path: Path) -> None:
    save_file(FIRST, tmp_path / "model-00001-of-00002.safetensors")
    save_file(FIRST, tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(CheckpointError, match="two places"):
        SourceTensors(tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"no \*\.safetensors"):
        SourceTensors(tmp_path)


def test_a_shard_cut_while_it_is_read_is_named(source: Write, tmp_path: Path) -> None:
    folder = source(tmp_path / "s", [FIRST])
    tensors = SourceTensors(folder)
    os.truncate(folder / "model-00001-of-00001.safetensors", 300)
    with pytest.raises(CheckpointError, match="ends inside the tensor"):
        [tensors.load(ref) for ref in tensors.refs.values()]


def test_a_file_system_may_give_less_than_is_asked_for(
    source: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """POSIX allows it, and over a network or through FUSE it happens; only no byte at all is the end of a file."""
    stored, meant = packed_by_compressed_tensors(96, 512, 3)
    tensors = SourceTensors(source(tmp_path / "s", [{f"a.{name}": tensor for name, tensor in stored.items()}]))
    whole = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, offset: whole(fd, min(size, 1000), offset))
    assert torch.equal(tensors.load(tensors.refs["a.weight"]), meant)
    os.truncate(tmp_path / "s/model-00001-of-00001.safetensors", 5000)
    with pytest.raises(CheckpointError, match="ends inside the tensor"):
        tensors.load(tensors.refs["a.weight"])


def test_a_name_that_is_half_a_character_is_refused(tmp_path: Path) -> None:
    """JSON can spell it, nothing can write it."""
    entry = '{"dtype":"U8","shape":[4],"data_offsets":[0,4]}'
    header = f'{{"a\\ud800.weight":{entry}}}'.encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(CheckpointError, match=r"model\.safetensors: the tensor name 'a\\ud800\.weight' is no text"):
        SourceTensors(tmp_path)
