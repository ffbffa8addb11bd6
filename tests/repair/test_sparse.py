"""What a shard becomes when it is stored sparsely: its header, its names, and what is refused before a byte is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from publisher.checkpoint.open import open_checkpoint
from publisher.errors import CheckpointError
from publisher.repair import sparse, storage
from publisher.repair.sparse import Rewriting
from tests.builders.sources import SOURCES
from tests.builders.tiny import Tiny, compressed, llama, mixture, nvfp4

NAME = "model.layers.1.mlp.experts.0.up_proj"


def pruned() -> Tiny:
    """Experts pruned, in compressed-tensors' layout; only the card says so."""
    return SOURCES["mixture-pruned"]()[1]


def planned(folder: Path, tiny: Tiny, *modules: str) -> Rewriting:
    return sparse.to_sparse(open_checkpoint(tiny.write(folder)), modules)


def refused(folder: Path, tiny: Tiny, *modules: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        planned(folder, tiny, *modules)
    return caught.value.message


def test_a_packed_weight_becomes_two_tensors_in_its_place(tmp_path: Path) -> None:
    made = planned(tmp_path / "a", pruned())
    (shard,) = (shard for shard in made.layout if f"{NAME}.weight_kept" in shard.offsets)
    names = [spec.name for spec in shard.specs]
    place = names.index(f"{NAME}.weight_kept")
    assert names[place + 1] == f"{NAME}.weight_metadata"
    assert f"{NAME}.weight_packed" not in names
    assert [spec.shape for spec in shard.specs[place : place + 2]] == [(32, 16), (1, 128, 16)]
    assert len(made.pairs) == 24
    assert made.modules == tuple(f"model.layers.*.mlp.experts.*.{x}_proj" for x in ("down", "gate", "up"))


def test_the_safetensors_library_reads_it_and_finds_the_dense_header(tmp_path: Path) -> None:
    made = planned(tmp_path / "a", pruned())
    folder = storage.write(made, tmp_path / "b")
    name = made.checkpoint.tensors[f"{NAME}.weight_packed"].shard
    raw = (tmp_path / "a" / name).read_bytes()
    with safe_open(folder / name, "np") as file:
        metadata = file.metadata()
        assert f"{NAME}.weight_metadata" in set(file.keys())
        assert file.get_tensor(f"{NAME}.weight_kept").shape == (32, 16)
    assert metadata["dense_header"].encode() == raw[8 : 8 + int.from_bytes(raw[:8], "little")]
    assert "No serving engine loads" in metadata["storage"]


def test_globs_choose_and_a_glob_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    assert len(planned(tmp_path / "1", pruned(), "*.layers.1.*experts.[01].up_proj").pairs) == 2
    assert "'*.nothing'" in refused(tmp_path / "2", pruned(), "*.up_proj", "*.nothing")


def test_config_json_says_what_is_pruned(tmp_path: Path) -> None:
    tiny = nvfp4(llama())
    tiny.config["sparsity"] = {"pattern": "paired-4:8", "storage": "dense", "modules": ["*.mlp.*"]}
    made = planned(tmp_path, tiny)
    assert {name.rpartition(".mlp.")[2] for name in made.pairs} == {f"{x}_proj.weight" for x in ("up", "gate", "down")}


def test_what_has_no_sparse_form_is_refused(tmp_path: Path) -> None:
    assert "holds no packed FP4 weight" in refused(tmp_path / "plain", mixture())
    odd = compressed(mixture(), "nvfp4")
    tensor = odd.tensors[f"{NAME}.weight_packed"]
    tensor.dtype = "I8"
    assert "not packed rows" in refused(tmp_path / "odd", odd)
    taken = pruned()
    taken.tensors[f"{NAME}.weight_kept"] = taken.tensors[f"{NAME}.weight_scale"]
    assert "of its own" in refused(tmp_path / "taken", taken)
    with pytest.raises(CheckpointError, match="is not stored sparsely"):
        sparse.to_dense(open_checkpoint(pruned().write(tmp_path / "dense")))


def test_a_sparse_checkpoint_is_not_made_sparse_again(tmp_path: Path) -> None:
    folder = storage.write(planned(tmp_path / "a", pruned()), tmp_path / "b")
    with pytest.raises(CheckpointError, match="sparsely already"):
        sparse.to_sparse(open_checkpoint(folder))


def rewritten(folder: Path, change: str) -> None:
    """The sparse shard with another header."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    path = folder / index[f"{NAME}.weight_kept"]
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    dense = json.loads(header["__metadata__"]["dense_header"])
    if change == "none":
        del header["__metadata__"]["dense_header"]
    elif change == "json":
        header["__metadata__"]["dense_header"] = "{"
    elif change == "hole":
        dense[next(name for name in dense if name != "__metadata__")]["data_offsets"][1] += 1
    elif change == "shape":
        entry = dense[f"{NAME}.weight_packed"]
        entry["shape"] = [entry["shape"][0] * 2, entry["shape"][1] // 2]
    elif change == "huge":
        dense[f"{NAME}.weight_packed"]["shape"] = [1 << 40, 1 << 10]
    else:
        begin, end = dense.pop(f"{NAME}.weight_scale")["data_offsets"]
        for name, entry in dense.items():
            if name != "__metadata__" and entry["data_offsets"][0] >= end:
                entry["data_offsets"] = [offset - (end - begin) for offset in entry["data_offsets"]]
    if change in ("hole", "shape", "huge", "extra"):
        header["__metadata__"]["dense_header"] = json.dumps(dense)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("none", "holds no header of a dense shard"),
        ("json", "the dense header of"),
        ("hole", "not where or as large"),
        ("shape", "cannot be made of what is there"),
        ("huge", "not where or as large"),
        ("extra", "belongs to no tensor of the dense shard"),
    ],
)
def test_a_dense_header_that_does_not_fit_is_refused(change: str, words: str, tmp_path: Path) -> None:
    folder = storage.write(planned(tmp_path / "a", pruned()), tmp_path / "b")
    rewritten(folder, change)
    with pytest.raises(CheckpointError, match=words):
        sparse.to_dense(open_checkpoint(folder))
