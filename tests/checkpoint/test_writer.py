"""The staged writer: nothing under the final name before the end, a restart goes on, a full disk says so."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from publisher.checkpoint import writer as module
from publisher.checkpoint.layout import TensorSpec, plan_shards
from publisher.checkpoint.writer import StagedWriter, already_done, commit, record_path
from publisher.errors import CheckpointError, EngineError

TENSORS = {f"layer.{n}.weight": np.arange(n, n + 64, dtype=np.float32).reshape(8, 8) for n in range(6)}
LAYOUT = plan_shards([[TensorSpec(name, "F32", (8, 8))] for name in TENSORS], 600)


def open_writer(folder: Path, digest: str = "plan", **options: bool) -> StagedWriter:
    return StagedWriter(folder / "staging", folder / "out", LAYOUT, plan_digest=digest, **options)


def write_all(writer: StagedWriter, names: list[str] | None = None) -> None:
    for name in names or list(TENSORS):
        data = TENSORS[name].tobytes()
        writer.write(name, [data[:100], memoryview(data)[100:]], note=[1.5])


def test_the_result_loads_with_the_safetensors_library(tmp_path: Path) -> None:
    with open_writer(tmp_path) as writer:
        write_all(writer)
        assert not (tmp_path / "out").exists()
        writer.finish({"engine": "test"})
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 6 * 256
    for name, shard in index["weight_map"].items():
        assert np.array_equal(load_file(tmp_path / "out" / shard)[name], TENSORS[name])
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()}
    assert modes == {0o644}
    assert json.loads(record_path(tmp_path / "out").read_text()) == {"engine": "test", "plan_digest": "plan"}
    assert not (tmp_path / "staging").exists()


def test_order_of_writing_does_not_show(tmp_path: Path) -> None:
    for folder, names in ((tmp_path / "a", list(TENSORS)), (tmp_path / "b", list(reversed(TENSORS)))):
        with open_writer(folder) as writer:
            write_all(writer, names)
            writer.finish({})
    for path in (tmp_path / "a/out").iterdir():
        assert path.read_bytes() == (tmp_path / "b/out" / path.name).read_bytes()


def test_leaving_without_finish_keeps_the_final_name_free(tmp_path: Path) -> None:
    with open_writer(tmp_path) as writer:
        write_all(writer)
    assert not (tmp_path / "out").exists()
    with pytest.raises(RuntimeError), open_writer(tmp_path):
        raise RuntimeError
    assert not (tmp_path / "out").exists()


def test_finish_refuses_while_shards_are_missing(tmp_path: Path) -> None:
    with open_writer(tmp_path) as writer:
        write_all(writer, list(TENSORS)[:3])
        with pytest.raises(CheckpointError, match="2 of 3 shards"):
            writer.finish({})
    assert not (tmp_path / "out").exists()


def test_a_restart_goes_on_after_the_last_finished_shard(tmp_path: Path) -> None:
    with open_writer(tmp_path) as writer:
        write_all(writer, list(TENSORS)[:3])
    with open_writer(tmp_path) as writer:
        assert [writer.done(name) for name in TENSORS] == [True, True, False, False, False, False]
        assert writer.notes == {name: [1.5] for name in list(TENSORS)[:2]}
        write_all(writer)
        writer.finish({})
    for shard in LAYOUT:
        for name, array in load_file(tmp_path / "out" / shard.name).items():
            assert np.array_equal(array, TENSORS[name])


def test_the_ledger_holds_size_and_sha256(tmp_path: Path) -> None:
    with open_writer(tmp_path) as writer:
        write_all(writer, list(TENSORS)[:2])
    entry = json.loads((tmp_path / "staging/ledger.json").read_text())["shards"][LAYOUT[0].name]
    data = (tmp_path / "staging/files" / LAYOUT[0].name).read_bytes()
    assert (entry["size"], entry["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("damage", ["truncate", "remove", "flip", "ledger", "digest"])
def test_what_the_ledger_cannot_vouch_for_is_written_again(tmp_path: Path, damage: str) -> None:
    with open_writer(tmp_path) as writer:
        write_all(writer, list(TENSORS)[:2])
    shard = tmp_path / "staging/files" / LAYOUT[0].name
    if damage == "truncate":
        os.truncate(shard, 100)
    elif damage == "remove":
        shard.unlink()
    elif damage == "flip":
        data = bytearray(shard.read_bytes())
        data[-1] ^= 1
        shard.write_bytes(data)
    elif damage == "ledger":
        (tmp_path / "staging/ledger.json").write_text('{"schema": 1, "pl')
    with open_writer(tmp_path, "another" if damage == "digest" else "plan", verify=damage == "flip") as writer:
        assert not writer.finished
        write_all(writer)
        writer.finish({})
    assert np.array_equal(load_file(tmp_path / "out" / LAYOUT[0].name)["layer.0.weight"], TENSORS["layer.0.weight"])


def test_an_output_of_the_same_plan_is_done_and_any_other_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert not already_done(out, "plan")
    with open_writer(tmp_path) as writer:
        write_all(writer)
        writer.finish({})
    assert already_done(out, "plan")
    with pytest.raises(CheckpointError, match="exists already"):
        already_done(out, "another")
    with pytest.raises(CheckpointError, match="exists already"):
        open_writer(tmp_path, "another")
    record_path(out).unlink()
    with pytest.raises(CheckpointError, match="exists already"):
        already_done(out, "plan")


def test_an_output_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    with open_writer(tmp_path) as writer:
        write_all(writer)
        (tmp_path / "out").mkdir()
        (tmp_path / "out/precious").write_text("x")
        with pytest.raises(CheckpointError, match="exists already"):
            writer.finish({})
    assert (tmp_path / "out/precious").read_text() == "x"


def test_two_writers_do_not_share_a_staging_folder(tmp_path: Path) -> None:
    with open_writer(tmp_path), pytest.raises(CheckpointError, match="Another process"):
        open_writer(tmp_path)


def test_the_output_may_not_lie_in_the_staging_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="inside the staging"):
        StagedWriter(tmp_path, tmp_path / "out", LAYOUT, plan_digest="plan")


@pytest.mark.parametrize("chunks", [[b"x"], [b"x" * 256, b"y"], []])
def test_a_tensor_of_another_size_is_refused(tmp_path: Path, chunks: list[bytes]) -> None:
    with open_writer(tmp_path) as writer, pytest.raises(CheckpointError, match=r"layer\.0\.weight"):
        writer.write("layer.0.weight", chunks)


def test_a_tensor_written_twice_is_refused(tmp_path: Path) -> None:
    with open_writer(tmp_path) as writer:
        write_all(writer, ["layer.0.weight"])
        with pytest.raises(CheckpointError, match="before"):
            write_all(writer, ["layer.0.weight"])


def test_a_full_disk_names_what_is_needed_and_keeps_the_staging(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite
    with open_writer(tmp_path) as writer:
        write_all(writer, list(TENSORS)[:2])
        needed = writer.remaining

        def full(descriptor: int, data: memoryview, position: int) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(module.os, "pwrite", full)
        with pytest.raises(EngineError, match=f"No space left on device; {needed:,} bytes were still") as caught:
            write_all(writer, list(TENSORS)[2:])
        assert "run the same command again" in caught.value.hint
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(module.os, "pwrite", real)
    with open_writer(tmp_path) as writer:
        assert writer.done("layer.1.weight")
        write_all(writer)
        writer.finish({})
    assert (tmp_path / "out").is_dir()


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(module.os, "pwrite", lambda descriptor, data, position: real(descriptor, data[:7], position))
    with open_writer(tmp_path) as writer:
        write_all(writer)
        writer.finish({})
    assert np.array_equal(load_file(tmp_path / "out" / LAYOUT[2].name)["layer.5.weight"], TENSORS["layer.5.weight"])


@pytest.mark.parametrize("moment", ["rename", "clear"])
def test_an_end_that_was_cut_is_completed_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def cut(*arguments: object) -> None:
        raise KeyboardInterrupt

    with open_writer(tmp_path) as writer, monkeypatch.context() as patch:
        write_all(writer)
        patch.setattr(module.os if moment == "rename" else module, moment, cut)
        with pytest.raises(KeyboardInterrupt):
            writer.finish({})
    assert already_done(tmp_path / "out", "plan") is (moment == "clear")
    if moment == "rename":
        with open_writer(tmp_path) as writer:
            assert len(writer.finished) == len(LAYOUT)
            writer.finish({})
    else:
        module.clear(tmp_path / "staging")
    assert already_done(tmp_path / "out", "plan")
    assert not (tmp_path / "staging").exists()


def test_a_staging_folder_keeps_what_is_not_ours(tmp_path: Path) -> None:
    with open_writer(tmp_path) as writer:
        write_all(writer)
        (tmp_path / "staging/export").mkdir()
        writer.finish({})
    assert [path.name for path in (tmp_path / "staging").iterdir()] == ["export"]


def test_a_shard_of_another_process_is_adopted_once_and_only_whole(tmp_path: Path) -> None:
    with open_writer(tmp_path) as writer:
        shard = LAYOUT[0]
        data = shard.header + b"".join(TENSORS[spec.name].tobytes() for spec in shard.specs)
        partial = writer.files / f"{shard.name}.partial"
        partial.write_bytes(data[:-1])
        entry = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "notes": {"layer.0.weight": [2]}}
        with pytest.raises(CheckpointError, match="not the finished shard"):
            writer.adopt(shard.name, entry)
        partial.write_bytes(data)
        needed = writer.remaining
        writer.adopt(shard.name, entry)
        assert writer.remaining == needed - shard.size
        assert writer.done("layer.0.weight")
        with pytest.raises(CheckpointError, match="not the finished shard"):
            writer.adopt("../elsewhere", entry)
        write_all(writer, list(TENSORS)[2:])
        writer.finish({})
    assert np.array_equal(load_file(tmp_path / "out" / shard.name)["layer.0.weight"], TENSORS["layer.0.weight"])


def test_shards_of_an_earlier_source_are_refused_by_the_changed_file_s_name(tmp_path: Path) -> None:
    def opened(stamp: int, digest: str = "plan") -> StagedWriter:
        source = {"a.safetensors": {"time": 1}, "b.safetensors": {"time": stamp}}
        return StagedWriter(tmp_path / "staging", tmp_path / "out", LAYOUT, plan_digest=digest, source=source)

    with opened(1):
        pass
    with opened(2) as writer:  # nothing was finished yet
        write_all(writer, list(TENSORS)[:2])
    with pytest.raises(
        CheckpointError, match=r"b\.safetensors of the source is not what it was .* the 1 finished shards"
    ):
        opened(3)
    with opened(2) as writer:
        assert writer.done("layer.0.weight")
    with opened(3, "another") as writer:  # starts over anyhow
        assert not writer.finished


def test_what_a_kill_left_of_the_record_is_gone_when_it_is_written(tmp_path: Path) -> None:
    staged = tmp_path / "staged"
    staged.mkdir()
    left = tmp_path / ".out.quantize.json.x1y2z3.partial"
    left.write_text("{")
    commit(staged, tmp_path / "out", "plan", {"engine": "native"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.quantize.json"]
