"""The folder target on the disk: its layout, its log, and what it refuses."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from publisher.errors import HubError, PublisherError
from publisher.hub.comparison import verify
from publisher.hub.folder import FolderTarget
from publisher.hub.push import push
from publisher.hub.target import Publication
from publisher.hub.trees import Trees
from tests.hub.places import FILES, REPO, publication


def lines(base: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (base / "log.jsonl").read_text().splitlines()]


def test_layout_settings_and_log(tmp_path: Path, tiny: Publication) -> None:
    ticks = iter(range(1000, 2000))
    record = push(FolderTarget(tmp_path / "hub", REPO, clock=lambda: float(next(ticks))), tiny)
    base = tmp_path / "hub" / REPO
    assert sorted(path.name for path in base.iterdir()) == ["log.jsonl", "settings.json", "tree"]
    assert json.loads((base / "settings.json").read_text()) == {"visibility": "public", "gate": "manual"}
    log = lines(base)
    assert [line["action"] for line in log] == ["create", "upload", "upload", "settings"]
    assert [line["visibility"] for line in log] == ["private"] * 3 + ["public"]
    assert [line["time"] for line in log] == sorted(line["time"] for line in log)
    assert record.url == (base / "tree").as_uri()
    assert record.commit is None


def test_files_are_copies(tmp_path: Path, tiny: Publication) -> None:
    push(FolderTarget(tmp_path / "hub", REPO), tiny)
    for name in FILES:
        stored = tmp_path / "hub" / REPO / "tree" / name
        assert stored.stat().st_nlink == 1
        assert not stored.is_symlink()
        assert stat.S_IMODE(stored.stat().st_mode) == 0o644


def test_a_full_disk_leaves_no_part_under_a_name(
    tmp_path: Path, tiny: Publication, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, left = os.write, [6000]

    def full(descriptor: int, data: Any) -> int:
        left[0] -= len(data)
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(HubError, match="No space left") as caught:
        push(FolderTarget(tmp_path / "hub", REPO), tiny)
    assert caught.value.exit_code == 4
    monkeypatch.undo()
    base = tmp_path / "hub" / REPO
    assert not (base / ".incoming").exists()
    assert [path.name for path in (base / "tree").iterdir()] == ["model-00001-of-00002.safetensors"]
    assert push(FolderTarget(tmp_path / "hub", REPO), tiny).verified


def test_staging_of_a_killed_push_is_no_obstacle(tmp_path: Path, tiny: Publication) -> None:
    base = tmp_path / "hub" / REPO
    FolderTarget(tmp_path / "hub", REPO).create_private()
    (base / ".incoming").mkdir()
    (base / ".incoming" / "half").write_bytes(b"x")
    assert push(FolderTarget(tmp_path / "hub", REPO), tiny).verified
    assert not (base / ".incoming").exists()


def test_too_little_room_is_found_before_anything_is_written(
    tmp_path: Path, tiny: Publication, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: os.terminal_size((0, 0)) and type("U", (), {"free": 10}))
    with pytest.raises(PublisherError, match="10 bytes free"):
        push(FolderTarget(tmp_path / "hub", REPO), tiny)
    assert not (tmp_path / "hub").exists()


def test_foreign_folders_are_left_alone(tmp_path: Path, tiny: Publication) -> None:
    base = tmp_path / "hub" / REPO
    base.mkdir(parents=True)
    (base / "thesis.txt").write_text("mine")
    with pytest.raises(PublisherError, match="no repository of this program"):
        push(FolderTarget(tmp_path / "hub", REPO), tiny)
    assert [path.name for path in base.iterdir()] == ["thesis.txt"]


def test_a_linked_repository_is_refused(tmp_path: Path, tiny: Publication) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "hub" / "org").mkdir(parents=True)
    (tmp_path / "hub" / REPO).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PublisherError, match="is a link"):
        push(FolderTarget(tmp_path / "hub", REPO), tiny)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_publishing_into_the_checkpoint_itself_is_refused(tmp_path: Path) -> None:
    wanted = publication(tmp_path / "model")
    with pytest.raises(PublisherError, match="lie in each other"):
        push(FolderTarget(wanted.folder / "out", REPO), wanted)
    with pytest.raises(PublisherError, match="no repository name"):
        FolderTarget(tmp_path, "../escape")


def test_damaged_settings_are_no_licence_to_show(tmp_path: Path, tiny: Publication) -> None:
    target = FolderTarget(tmp_path / "hub", REPO)
    target.create_private()
    (target.base / "settings.json").write_text('{"visibility": "public"}')
    with pytest.raises(HubError, match="holds no settings"):
        push(target, tiny)


def test_links_planted_in_the_tree_are_not_followed(tmp_path: Path, tiny: Publication) -> None:
    target = FolderTarget(tmp_path / "hub", REPO)
    push(target, tiny)
    stored = target.files / "config.json"
    stored.unlink()
    stored.symlink_to(tiny.folder / "config.json")
    assert "config.json" in {item.path for item in verify(target, tiny.manifest)}
    with pytest.raises(HubError, match="is a link"):
        target.read("config.json")
    with pytest.raises(HubError):
        target.read("../settings.json")
    push(target, tiny)
    assert not stored.is_symlink()
    assert stored.read_bytes() == FILES["config.json"]


# --- updates of what is public ---------------------------------------------------------------------------------------


def second(tmp_path: Path) -> Publication:
    return publication(tmp_path / "new", FILES | {"config.json": b'{"new": 1}\n'})


def test_an_update_shares_what_did_not_change_and_leaves_no_second_tree(tmp_path: Path, tiny: Publication) -> None:
    target = FolderTarget(tmp_path / "hub", REPO)
    push(target, tiny)
    shard = target.files / "model-00001-of-00002.safetensors"
    before = shard.stat().st_ino
    push(FolderTarget(tmp_path / "hub", REPO), second(tmp_path))
    assert shard.stat().st_ino == before, "not copied again"
    assert shard.stat().st_nlink == 1
    assert sorted(path.name for path in target.base.iterdir()) == ["log.jsonl", "settings.json", "tree"]
    actions = [line["action"] for line in lines(target.base)]
    assert actions[-3:] == ["draft", "upload", "land"]
    assert all(line["visibility"] == "public" for line in lines(target.base)[3:])


def test_where_trees_cannot_be_swapped_the_repository_is_hidden_for_the_two_steps(
    tmp_path: Path, tiny: Publication, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = FolderTarget(tmp_path / "hub", REPO)
    push(target, tiny)
    monkeypatch.setattr("publisher.hub.trees.exchange", lambda first, second: False)
    new = second(tmp_path)
    assert push(FolderTarget(tmp_path / "hub", REPO), new).verified
    assert verify(target, new.manifest) == []
    states = [(line["action"], line["visibility"]) for line in lines(target.base)]
    assert states[-3:] == [("settings", "private"), ("land", "private"), ("settings", "public")]


@pytest.mark.parametrize("step", ["weights", "last commit", "read back", "merge"])
def test_an_update_that_was_cut_goes_on_in_the_same_tree(tmp_path: Path, tiny: Publication, step: str) -> None:
    target = FolderTarget(tmp_path / "hub", REPO)
    push(target, tiny)
    new = second(tmp_path)

    def cut(kind: str, payload: Any) -> None:
        if (kind, payload["step"]) == ("start", step):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        push(FolderTarget(tmp_path / "hub", REPO), new, emit=cut)
    assert verify(target, tiny.manifest) == [], "what users see is untouched"
    record = push(FolderTarget(tmp_path / "hub", REPO), new)
    assert verify(target, new.manifest) == []
    assert [line["action"] for line in lines(target.base)].count("draft") == 1
    assert record.sent == (() if step in ("read back", "merge") else ("config.json", "publish.json"))


def test_an_update_that_was_cut_after_the_swap_is_found_done(
    tmp_path: Path, tiny: Publication, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = FolderTarget(tmp_path / "hub", REPO)
    push(target, tiny)

    def killed(self: Trees) -> None:
        raise KeyboardInterrupt

    new = second(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Trees, "retire", killed)
        with pytest.raises(KeyboardInterrupt):
            push(FolderTarget(tmp_path / "hub", REPO), new)
    assert (target.base / "draft").exists()
    assert push(FolderTarget(tmp_path / "hub", REPO), new).sent == ()
    assert sorted(path.name for path in target.base.iterdir()) == ["log.jsonl", "settings.json", "tree"]


def test_a_folder_has_no_other_revisions(tmp_path: Path) -> None:
    with pytest.raises(PublisherError, match="keeps no revisions"):
        FolderTarget(tmp_path, REPO).at("v1")
