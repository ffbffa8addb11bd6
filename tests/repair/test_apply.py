"""Writing a repair: whole or not at all, resumable, with the old files at hand."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.errors import CheckpointError
from publisher.repair import apply, in_place, into, propose
from tests.builders.edits import body, file
from tests.rules.cases import GOOD

WHEN = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)


def broken(folder: Path) -> tuple[Path, Path]:
    source, result = GOOD["llama-nvfp4"]()
    body(lambda b: b.update(kv_cache_quant_algo="FP8"))(result)
    file("LICENSE", b"other\n")(result)
    return source.write(folder / "source"), result.write(folder / "result")


def state(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_in_place_keeps_the_old_files(tmp_path: Path) -> None:
    source, result = broken(tmp_path)
    before = state(result)
    proposal = propose(open_checkpoint(result), source=open_checkpoint(source))
    backup = in_place(proposal, now=WHEN)
    assert backup.name == "result.before-20261121T080000Z"
    assert state(backup) == {name: before[name] for name in ("LICENSE", "hf_quant_config.json")}
    after = state(result)
    assert after["LICENSE"] == (source / "LICENSE").read_bytes()
    assert {name for name in before if before[name] != after[name]} == {"LICENSE", "hf_quant_config.json"}


def test_a_new_folder_leaves_the_old_one_alone(tmp_path: Path) -> None:
    source, result = broken(tmp_path)
    before = state(result)
    proposal = propose(open_checkpoint(result), source=open_checkpoint(source))
    steps: list[tuple[int, int]] = []
    fixed = into(proposal, tmp_path / "fixed", link=True, progress=lambda done, total: steps.append((done, total)))
    assert state(result) == before
    assert set(state(fixed)) == set(before)
    assert steps[-1][0] == steps[-1][1] == sum(map(len, state(fixed).values()))
    shard = "model-00001-of-00002.safetensors"
    assert (fixed / shard).stat().st_ino == (result / shard).stat().st_ino
    assert not list(tmp_path.glob(".*"))


def test_a_killed_repair_is_continued(tmp_path: Path) -> None:
    source, result = broken(tmp_path)
    code = """if True:
        import os, sys
        from pathlib import Path
        from publisher.checkpoint.open import open_checkpoint
        from publisher.repair import into, propose
        proposal = propose(open_checkpoint(Path(sys.argv[2])), source=open_checkpoint(Path(sys.argv[1])))
        def progress(done, total):
            if done > 0.5 * total:
                os._exit(9)
        into(proposal, Path(sys.argv[3]), progress=progress)
    """
    ended = subprocess.run([sys.executable, "-c", code, source, result, tmp_path / "fixed"], check=False)
    assert ended.returncode == 9
    staging = tmp_path / ".fixed.partial"
    assert staging.is_dir()
    assert not (tmp_path / "fixed").exists()
    kept = {p.name: p.stat().st_ino for p in staging.iterdir() if not p.name.startswith(".")}
    assert kept
    proposal = propose(open_checkpoint(result), source=open_checkpoint(source))
    fixed = into(proposal, tmp_path / "fixed")
    assert {name: (fixed / name).stat().st_ino for name in kept} == kept
    assert not staging.exists()
    assert propose(open_checkpoint(fixed), source=open_checkpoint(source)).changes == ()


def test_another_repairs_leftovers_are_swept(tmp_path: Path) -> None:
    source, result = broken(tmp_path)
    staging = tmp_path / ".fixed.partial"
    (staging / "sub").mkdir(parents=True)
    (staging / "config.json").write_bytes(bytes((result / "config.json").stat().st_size))
    fixed = into(propose(open_checkpoint(result), source=open_checkpoint(source)), tmp_path / "fixed")
    assert (fixed / "config.json").read_bytes() == (result / "config.json").read_bytes()
    assert not (fixed / "sub").exists()


def test_refused_places(tmp_path: Path) -> None:
    source, result = broken(tmp_path)
    proposal = propose(open_checkpoint(result), source=open_checkpoint(source))
    with pytest.raises(CheckpointError, match="exists"):
        into(proposal, source)
    with pytest.raises(CheckpointError, match="inside the checkpoint"):
        into(proposal, result / "fixed")


def test_a_shard_that_shrinks_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, result = broken(tmp_path)
    proposal = propose(open_checkpoint(result), source=open_checkpoint(source))
    os.truncate(result / "model-00002-of-00002.safetensors", 100)
    with pytest.raises(CheckpointError, match="shorter"):
        into(proposal, tmp_path / "fixed")
    assert not (tmp_path / "fixed").exists()
    assert not list((tmp_path / ".fixed.partial").glob(".model-00002*"))
    assert apply.MARK in {path.name for path in (tmp_path / ".fixed.partial").iterdir()}
