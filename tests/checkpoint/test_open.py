"""Opening: the safetensors library and transformers' index convention write, we read; damage is kept, not raised."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from publisher.checkpoint.open import open_checkpoint
from publisher.errors import CheckpointError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file({"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"b.weight": np.ones(4, np.uint8)}, tmp_path / "model-00002-of-00002.safetensors")
    index = {
        "metadata": {"total_size": 28},
        "weight_map": {"a.weight": "model-00001-of-00002.safetensors", "b.weight": "model-00002-of-00002.safetensors"},
    }
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text('{"model_type": "llama", "quantization_config": {"quant_method": "quark"}}')
    (tmp_path / "LICENSE").write_text("free")
    return tmp_path


def test_parses_once_and_reads_lazily(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    assert set(checkpoint.shards) == {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}
    assert checkpoint.tensor_bytes == 28
    assert checkpoint.read(checkpoint.tensors["a.weight"]) == np.arange(6, dtype=np.float32).tobytes()
    assert [len(piece) for piece in checkpoint.chunks(checkpoint.tensors["a.weight"], 10)] == [10, 10, 4]
    assert set(checkpoint.side_files) == {"config.json", "LICENSE"}
    assert checkpoint.quant is not None
    assert checkpoint.quant.dialect == "quark"
    assert checkpoint.weight_map["b.weight"] == "model-00002-of-00002.safetensors"


def test_config_json_is_obeyed_before_the_other_file_and_nested_blocks_are_seen(folder: Path) -> None:
    config = {"text_config": {"quantization_config": {"quant_method": "compressed-tensors"}}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "hf_quant_config.json").write_text('{"quantization": {"quant_algo": "NVFP4"}}')
    origins = [(d.origin, d.dialect) for d in open_checkpoint(folder).declarations]
    assert origins == [
        ("config.json: text_config.quantization_config", "compressed-tensors"),
        ("hf_quant_config.json", "modelopt"),
    ]


@pytest.mark.parametrize("text", ["{", "[]", '{"a": NaN}', '{"a":1,"a":2}'])
def test_an_unreadable_document_is_kept_as_a_flaw(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    checkpoint = open_checkpoint(folder)
    assert "config.json" in checkpoint.document_flaws
    assert checkpoint.config == {}
    assert len(checkpoint.tensors) == 2


def test_a_shard_cut_after_opening_is_named(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    path = folder / "model-00001-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match=r"model-00001-of-00002.safetensors ends inside the tensor a\.weight"):
        checkpoint.read(checkpoint.tensors["a.weight"])


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(CheckpointError, match=r"neither config\.json nor"):
        open_checkpoint(tmp_path)


def test_a_checkpoint_one_folder_deeper_is_pointed_at(tmp_path: Path) -> None:
    """auto-round writes into a folder of its own."""
    (tmp_path / "model-nvfp-w4g16").mkdir()
    (tmp_path / "model-nvfp-w4g16/config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="in its folder model-nvfp-w4g16"):
        open_checkpoint(tmp_path)


def test_ten_thousand_shards_are_refused_before_one_is_read(tmp_path: Path) -> None:
    for number in range(10_001):
        (tmp_path / f"model-{number:05d}-of-10001.safetensors").touch()
    with pytest.raises(CheckpointError, match="holds 10,001 shards"):
        open_checkpoint(tmp_path)


def test_headers_larger_than_any_checkpoints_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("publisher.checkpoint.open.MAX_HEADERS", 3000)
    for number in range(4):
        arrays = {f"layer.{i}.weight": np.zeros(1, np.uint8) for i in range(20)}
        save_file(arrays, tmp_path / f"model-{number:05d}-of-00004.safetensors")
    with pytest.raises(CheckpointError, match=r"headers of the first \d of 4 shards take"):
        open_checkpoint(tmp_path)
