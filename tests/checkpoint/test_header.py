"""Headers: the safetensors library writes the good ones; the bad ones are bytes nobody would write."""

from __future__ import annotations

import json
import resource
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from publisher.checkpoint.files import LocalFiles
from publisher.checkpoint.header import ShardHeader, read_header


def header_of(folder: Path, data: bytes, name: str = "model.safetensors") -> ShardHeader:
    (folder / name).write_bytes(data)
    return read_header(LocalFiles(folder), name)


def shard(entries: dict[str, object], payload: bytes = b"", *, length: int | None = None) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + payload


def test_reads_what_the_library_wrote(tmp_path: Path) -> None:
    arrays = {
        "a.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
        "b.bias": np.zeros((), np.float32),
        "c": np.ones((0, 5), np.uint8),
        "d": np.arange(5, dtype=np.int64),
    }
    save_file(arrays, tmp_path / "model.safetensors", metadata={"format": "pt"})
    header = read_header(LocalFiles(tmp_path), "model.safetensors")
    assert not header.flaws
    assert header.metadata == {"format": "pt"}
    data = (tmp_path / "model.safetensors").read_bytes()
    found = {ref.name: ref for ref in header.tensors}
    with safe_open(tmp_path / "model.safetensors", "np") as library:
        assert set(found) == set(library.keys())
        for name, ref in found.items():
            assert list(ref.shape) == library.get_slice(name).get_shape()
            assert ref.dtype == library.get_slice(name).get_dtype()
            assert data[ref.begin : ref.end] == library.get_tensor(name).tobytes()


def test_a_long_header_is_read_whole(tmp_path: Path) -> None:
    save_file({f"layer.{i}.weight": np.zeros(1, np.uint8) for i in range(3000)}, tmp_path / "model.safetensors")
    assert len(read_header(LocalFiles(tmp_path), "model.safetensors").tensors) == 3000


@pytest.mark.parametrize(
    ("data", "kind", "says"),
    [
        (b"", "empty", "empty"),
        (b"\x05\0", "truncated", "2 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "pointer", "LFS pointer"),
        (struct.pack("<Q", 2**63) + b"{}", "length", f"{2**63:,}"),
        (struct.pack("<Q", 1) + b"{", "length", "claims 1 bytes"),
        (struct.pack("<Q", 99_000_000) + b"{}", "truncated", "the file has 10"),
        (struct.pack("<Q", 4) + b" {} ", "json", "does not begin"),
        (struct.pack("<Q", 4) + b"{\xff\xff}", "json", "no JSON"),
        (struct.pack("<Q", 60_000) + b'{"a":' + b"[" * 59_995, "json", "no JSON"),
        (shard({"a": 1}), "entry", "lacks dtype"),
        (shard({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}), "entry", "malformed"),
        (shard({"a": {"dtype": "F32", "shape": [1.5], "data_offsets": [0, 4]}}), "entry", "malformed"),
        (shard({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}), "entry", "malformed"),
        (shard({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}), "entry", "malformed"),
        (shard({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 2**64]}}), "entry", "malformed"),
        (shard({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 5]}}), "entry", "lacks"),
        (shard({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}), "entry", "more elements"),
        (shard({"a": {"dtype": "F32", "shape": [0, 10**400], "data_offsets": [0, 0]}}), "entry", "more elements"),
        (shard({"__metadata__": {"format": float("nan")}}), "json", "contains NaN"),
        (struct.pack("<Q", 5010) + b'{"a":' + b"9" * 5004 + b"}", "json", "no JSON"),
    ],
)
def test_a_bad_header_becomes_a_flaw(tmp_path: Path, data: bytes, kind: str, says: str) -> None:
    header = header_of(tmp_path, data)
    assert header.tensors == ()
    assert [flaw.kind for flaw in header.flaws] == [kind]
    assert says in header.flaws[0].message


def test_a_key_given_twice_is_seen(tmp_path: Path) -> None:
    entry = '{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
    text = f'{{"a":{entry},"a":{entry}}}'.encode()
    header = header_of(tmp_path, struct.pack("<Q", len(text)) + text + b"x")
    assert [(flaw.kind, flaw.tensor) for flaw in header.flaws] == [("duplicate", "a")]
    assert len(header.tensors) == 1


def test_a_million_bad_entries_keep_a_hundred_flaws(tmp_path: Path) -> None:
    text = b"{" + b",".join(b'"%d":1' % n for n in range(300_000)) + b"}"
    header = header_of(tmp_path, struct.pack("<Q", len(text)) + text)
    assert len(header.flaws) == 100


def test_a_file_cut_while_it_is_read_is_truncated(tmp_path: Path) -> None:
    save_file({f"layer.{i}.weight": np.zeros(1, np.uint8) for i in range(3000)}, tmp_path / "model.safetensors")
    files = LocalFiles(tmp_path)
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.truncate(5000)
    header = read_header(files, "model.safetensors")
    assert [flaw.kind for flaw in header.flaws] == ["truncated"]
    assert "4,992 could be read" in header.flaws[0].message


def test_a_huge_claim_costs_no_memory(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", 2**62))
        file.truncate(10 << 30)  # sparse
    header = read_header(LocalFiles(tmp_path), "model.safetensors")
    assert header.flaws[0].kind == "length"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_no_bytes_raise(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    header_of(tmp_path_factory.mktemp("fuzz"), data)
    header_of(tmp_path_factory.mktemp("fuzz"), struct.pack("<Q", len(data)) + data)
