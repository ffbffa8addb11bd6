"""What is refused as a place to publish to; the push around it stands in test_folder.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.hub import site
from publisher.hub.target import Publication


def test_a_folder_of_something_else_is_foreign_and_ours_is_not(tmp_path: Path) -> None:
    base = tmp_path / "org" / "name"
    assert site.foreign(base, base / "tree") is None
    (base / "tree").mkdir(parents=True)
    assert site.foreign(base, base / "tree") is None, "a push that was killed at its first step"
    (base / "thesis.txt").touch()
    assert "no repository" in str(site.foreign(base, base / "tree"))
    (base / "settings.json").touch()
    assert site.foreign(base, base / "tree") is None
    (tmp_path / "file").touch()
    assert "no repository" in str(site.foreign(tmp_path / "file", tmp_path / "file" / "tree"))


@pytest.mark.parametrize(("base", "fits"), [("a", False), ("a/b", False), (".", False), ("b", True)])
def test_a_checkpoint_is_not_published_into_itself(tmp_path: Path, base: str, fits: bool) -> None:
    assert (site.nested(tmp_path / base, tmp_path / "a") is None) is fits


def test_only_what_is_still_to_copy_needs_room(
    tmp_path: Path, tiny: Publication, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10}))
    there = {entry.path: entry.size for entry in tiny.manifest.files}
    assert site.cramped(tmp_path / "new", there, tiny) is None
    assert "10 bytes free" in str(site.cramped(tmp_path / "new", {}, tiny))
