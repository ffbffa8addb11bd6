"""What was made is what is published: changed, lost and added files are refused; nothing is read twice."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from publisher import manifest
from publisher.custody import Custody
from publisher.errors import CheckpointError
from publisher.manifest import Provenance
from tests.builders.tiny import llama, mxfp4

SHARD = "model-00001-of-00002.safetensors"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return mxfp4(llama()).write(tmp_path / "checkpoint")


@pytest.fixture
def custody(checkpoint: Path, tmp_path: Path) -> Custody:
    made = Custody(checkpoint, tmp_path)
    made.take({}, lambda done, total: None)
    return made


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_untouched_shards_pass_also_when_only_their_time_changed(custody: Custody, checkpoint: Path) -> None:
    (checkpoint / SHARD).touch()
    custody.require_unchanged()
    custody.require_same(manifest.build(checkpoint, Provenance()))


def test_one_changed_bit_is_refused_before_and_at_the_manifest(custody: Custody, checkpoint: Path) -> None:
    flip(checkpoint / SHARD)
    with pytest.raises(CheckpointError, match=rf"{SHARD} changed since it was made"):
        custody.require_unchanged()
    with pytest.raises(CheckpointError, match="changed since"):
        custody.require_same(manifest.build(checkpoint, Provenance()))


def test_a_lost_shard_is_refused(custody: Custody, checkpoint: Path) -> None:
    (checkpoint / SHARD).unlink()
    with pytest.raises(CheckpointError, match="is gone"):
        custody.require_unchanged()


def test_a_file_nobody_put_there_is_refused_by_name(custody: Custody, checkpoint: Path) -> None:
    (checkpoint / "README.md").write_text("the card")
    custody.require_nothing_added(["README.md"])
    (checkpoint / "extra.pkl").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"extra\.pkl"):
        custody.require_nothing_added(["README.md"])


def test_known_digests_are_those_of_unchanged_files(custody: Custody, checkpoint: Path) -> None:
    found = custody.known_digests()
    assert found[SHARD] == hashlib.sha256((checkpoint / SHARD).read_bytes()).hexdigest()
    custody.remember(manifest.build(checkpoint, Provenance()))
    assert "LICENSE" in custody.known_digests()
    flip(checkpoint / "LICENSE")
    assert "LICENSE" not in custody.known_digests()


def test_a_digest_the_engine_took_is_not_taken_again(checkpoint: Path, tmp_path: Path) -> None:
    custody = Custody(checkpoint, tmp_path)
    told = "0" * 64
    custody.take({SHARD: told}, lambda done, total: None)
    assert custody.known_digests()[SHARD] == told


def test_damaged_records_count_as_absent(custody: Custody, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "made.json").write_text("[1, ")
    custody.require_unchanged()
    custody.require_nothing_added([])
    assert custody.known_digests() == {}
