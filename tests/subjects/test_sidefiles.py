"""Side files are read once and bounded; what cannot be read is told, not raised."""

from __future__ import annotations

from pathlib import Path

from publisher.checkpoint.open import open_checkpoint
from publisher.subjects.evidence import Meter
from publisher.subjects.sidefiles import MAX_SIDE, read_side_files
from tests.builders.tiny import llama
from tests.builders.watched import Watched


def test_a_document_is_read_once(tmp_path: Path) -> None:
    files = Watched(llama().write(tmp_path))
    side = read_side_files(open_checkpoint(files), None, Meter())
    before = len(files.reads)
    assert side.mapping("generation_config.json") == {"eos_token_id": 2}
    assert side.document("generation_config.json") == {"eos_token_id": 2}
    assert len(files.reads) == before + 1


def test_what_is_damaged_or_large_is_not_read(tmp_path: Path) -> None:
    folder = llama().write(tmp_path)
    (folder / "tokenizer_config.json").write_text('{"a": NaN}')
    (folder / "vocab.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with (folder / "huge.json").open("wb") as file:
        file.truncate(MAX_SIDE + 1)
    meter = Meter()
    side = read_side_files(open_checkpoint(folder), None, meter)
    assert side.document("tokenizer_config.json") is None
    assert "NaN" in (side.flaw("tokenizer_config.json") or "")
    assert "LFS pointer" in (side.flaw("vocab.json") or "")
    assert side.document("huge.json") is None
    assert side.flaw("huge.json") is None
    assert meter.bytes_read < 1000


def test_the_source_is_asked_only_where_there_is_one(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(llama().write(tmp_path / "a"))
    assert read_side_files(checkpoint, None, Meter()).original("generation_config.json") is None
    side = read_side_files(checkpoint, open_checkpoint(llama().write(tmp_path / "b")), Meter())
    assert side.original("generation_config.json") == {"eos_token_id": 2}
    assert side.in_source("LICENSE")
    assert not side.in_source("other")


def test_the_card_and_the_manifest_of_an_earlier_run_are_left_alone(tmp_path: Path) -> None:
    files = Watched(llama().write(tmp_path))
    side = read_side_files(open_checkpoint(files), None, Meter(), published=False)
    assert "README.md" not in set(side.names)
    assert side.text("README.md") is None
    assert not any(name == "README.md" for name, _, _ in files.reads)
