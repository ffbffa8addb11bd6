"""Rows drawn by the library datasets from a folder, the way it names a data set of the Hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from publisher.errors import EngineError, HubError, PublisherError
from publisher.native import dataset
from publisher.native.dataset import DataSet, write_samples
from publisher.native.samples import draw


def folder_of(path: Path, rows: list[dict[str, Any]]) -> str:
    path.mkdir()
    (path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_same_seed_draws_the_same_rows(tmp_path: Path) -> None:
    name = folder_of(tmp_path / "set", [{"text": f"text {n}", "other": n} for n in range(50)])
    contents = []
    for seed in (1, 1, 2):
        assert write_samples(DataSet(name=name), 10, seed, tmp_path / "out.jsonl") == 10
        contents.append((tmp_path / "out.jsonl").read_bytes())
    assert contents[0] == contents[1] != contents[2]
    drawn = draw(tmp_path / "out.jsonl", 10, 0)
    assert drawn.available == 10
    assert all((sample.text or "").startswith("text ") for sample in drawn.samples)


def test_chats_stay_chats(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    name = folder_of(tmp_path / "set", [{"messages": turns, "text": "not this"}])
    write_samples(DataSet(name=name), 5, 0, tmp_path / "out.jsonl")
    assert draw(tmp_path / "out.jsonl", 5, 0).samples[0].messages == tuple(turns)


def test_a_column_is_named_or_asked_for(tmp_path: Path) -> None:
    name = folder_of(tmp_path / "set", [{"article": "a b c"}])
    with pytest.raises(PublisherError, match="its columns are article") as caught:
        write_samples(DataSet(name=name), 1, 0, tmp_path / "out.jsonl")
    assert "--column" in caught.value.hint
    assert write_samples(DataSet(name=name, column="article"), 1, 0, tmp_path / "out.jsonl") == 1
    assert json.loads((tmp_path / "out.jsonl").read_text()) == {"text": "a b c"}


def test_a_data_set_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(HubError, match=r"absent.* cannot be read"):
        write_samples(DataSet(name=str(tmp_path / "absent")), 1, 0, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(dataset.importlib, "import_module", absent)
    with pytest.raises(EngineError, match="library datasets"):
        write_samples(DataSet(name="a/b"), 1, 0, tmp_path / "out.jsonl")


def test_a_name_may_have_a_revision() -> None:
    found = dataset.parse("hf://datasets/org/name@abc", subset="en", split="validation", column=None)
    assert (found.name, found.revision, found.label) == ("org/name", "abc", "org/name@abc/en/validation")
    assert dataset.parse("hf://datasets/org/name", subset=None, split="train", column=None).revision is None
