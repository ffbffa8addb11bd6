"""The second tree: complete before it is known as one, swapped whole, and nothing of it left after a kill."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from publisher.hub.trees import Trees


@pytest.fixture
def trees(tmp_path: Path) -> Trees:
    found = Trees(tmp_path)
    (found.published / "deep").mkdir(parents=True)
    (found.published / "deep" / "a").write_bytes(b"old")
    return found


def test_a_draft_shares_bytes_until_they_are_replaced_and_takes_the_place_in_one_step(trees: Trees) -> None:
    trees.begin("key")
    copy = trees.draft / "deep" / "a"
    assert (trees.key(), copy.stat().st_ino) == ("key", (trees.published / "deep" / "a").stat().st_ino)
    (trees.draft / "new").write_bytes(b"new")
    os.replace(trees.draft / "new", copy)
    assert (trees.published / "deep" / "a").read_bytes() == b"old"
    if not trees.swap():
        trees.replace()
    assert (trees.published / "deep" / "a").read_bytes() == b"new"
    assert list(trees.published.rglob(".*")) == [], "what it was for is no part of it"
    trees.retire()
    assert sorted(path.name for path in trees.published.parent.iterdir()) == ["tree"]


def test_links_are_not_taken_over(trees: Trees) -> None:
    (trees.published / "link").symlink_to("/etc/hostname")
    trees.begin("key")
    assert not (trees.draft / "link").is_symlink()


def test_a_draft_that_was_never_complete_is_swept_and_a_complete_one_stays(trees: Trees) -> None:
    trees.draft.mkdir()
    assert trees.key() is None
    trees.sweep()
    assert not trees.draft.exists()
    trees.begin("key")
    trees.sweep()
    assert trees.key() == "key"
    trees.give_up()
    assert not trees.draft.exists()
