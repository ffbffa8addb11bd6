"""The cache of a commit: what was kept comes back exactly or not at all, for this user alone, within its bounds."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from publisher.checkpoint import cache as module
from publisher.checkpoint.cache import VARIABLE, CommitCache, cache_root

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def made(root: Path | None, commit: str = COMMIT, **more: str) -> CommitCache:
    return CommitCache(root, more.get("endpoint", "https://hub.example"), more.get("repo", "org/model"), commit)


def entries(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def test_what_was_put_comes_back(tmp_path: Path) -> None:
    made(tmp_path / "c").put("config.json", 0, b"0123456789")
    made(tmp_path / "c").put("model.safetensors", 4096, b"tensor\nbytes")
    cache = made(tmp_path / "c")
    assert cache.get("config.json", 0) == b"0123456789"
    assert cache.get("config.json", 0, 4) == b"0123"
    assert cache.get("model.safetensors", 4096, 4108) == b"tensor\nbytes"
    assert cache.has("config.json", 0, 10)


def test_what_was_not_put_does_not(tmp_path: Path) -> None:
    cache = made(tmp_path / "c")
    cache.put("config.json", 0, b"0123456789")
    assert cache.get("config.json", 0, 11) is None, "longer than what is known"
    assert cache.get("config.json", 5, 6) is None
    assert cache.get("other.json", 0, 1) is None
    assert not cache.has("other.json", 0, 1)
    for other in (
        made(tmp_path / "c", "f" * 40),
        made(tmp_path / "c", repo="org/other"),
        made(tmp_path / "c", endpoint="http://127.0.0.1"),
    ):
        assert other.get("config.json", 0, 1) is None


@pytest.mark.parametrize("damage", ["flip", "cut", "longer", "empty", "no line", "swapped", "folder", "gone"])
def test_a_damaged_entry_is_none(tmp_path: Path, damage: str) -> None:
    cache = made(tmp_path / "c")
    cache.put("a.json", 0, b"A" * 100)
    cache.put("b.json", 0, b"B" * 100)
    entry = next(path for path in entries(tmp_path / "c") if path.read_bytes().endswith(b"A" * 100))
    other = next(path for path in entries(tmp_path / "c") if path != entry)
    data = bytearray(entry.read_bytes())
    if damage == "flip":
        data[-50] ^= 1
    entry.unlink()
    if damage == "folder":
        entry.mkdir()
    elif damage != "gone":
        kept = {
            "flip": data, "cut": data[:-1], "longer": data + b"A", "empty": b"", "no line": b"A" * 100_000,
            "swapped": other.read_bytes(),
        }  # fmt: skip
        entry.write_bytes(kept[damage])
    assert cache.get("a.json", 0, 100) is None
    assert cache.get("b.json", 0, 100) == b"B" * 100


def test_only_its_owner_may_look(tmp_path: Path) -> None:
    root = tmp_path / "c"
    root.mkdir(mode=0o755)
    made(root).put("config.json", 0, b"secret weights")
    for path in (root, *root.rglob("*")):
        assert stat.S_IMODE(path.lstat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_link_planted_in_its_place_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.mkdir()
    (tmp_path / "c").symlink_to(target)
    cache = made(tmp_path / "c")
    cache.put("config.json", 0, b"x" * 10)
    assert not entries(target)
    assert cache.get("config.json", 0, 10) == b"x" * 10, "memory serves instead"


@pytest.mark.parametrize("root", [None, "file"])
def test_without_a_disk_a_little_stays_in_memory(
    tmp_path: Path, root: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(module, "MEMORY", 150)
    cache = made(tmp_path / "file" / "c" if root else None)
    cache.put("a", 0, b"a" * 100)
    cache.put("b", 0, b"b" * 100)
    assert cache.get("a", 0, 100) == b"a" * 100
    assert cache.has("a", 0, 100)
    assert cache.get("b", 0, 100) is None, "no more than the bound"


def test_a_reading_adds_no_more_than_its_share_of_ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARE", 250)
    cache = made(tmp_path / "c")
    for begin in (100, 200, 300):
        cache.put("model.safetensors", begin, bytes(100))
    cache.put("config.json", 0, bytes(100))
    assert [cache.has("model.safetensors", at, at + 100) for at in (100, 200, 300)] == [True, True, False]
    assert cache.has("config.json", 0, 100), "starts of files are what makes the next reading short"


def test_a_disk_that_is_nearly_full_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SPARE", 1 << 62)
    cache = made(tmp_path / "c")
    cache.put("config.json", 0, bytes(100))
    assert not entries(tmp_path / "c")


def test_what_was_not_used_for_the_longest_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = [f"{n:040x}" for n in range(4)]
    for age, commit in enumerate(commits):
        cache = made(tmp_path / "c", commit)
        cache.put("config.json", 0, bytes(100_000))
        assert cache.folder is not None
        os.utime(cache.folder, (time.time() - 1000 + age,) * 2)
    monkeypatch.setattr(module, "LIMIT", 250_000)
    made(tmp_path / "c", commits[0])
    left = {path.parent.name for path in entries(tmp_path / "c")}
    assert commits[0] in left, "the one in use stays"
    assert commits[3] in left
    assert len(left) == 2


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    folder = made(tmp_path / "c").folder
    assert folder is not None
    old, fresh = folder / ".abc.part", folder / ".def.part"
    old.write_bytes(b"half")
    fresh.write_bytes(b"half")
    os.utime(old, (0, 0))
    made(tmp_path / "c")
    assert not old.exists()
    assert fresh.exists(), "another process may be writing it"


def test_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert cache_root(tmp_path) == tmp_path / "fp4-publisher"
    monkeypatch.setenv(VARIABLE, str(tmp_path / "mine"))
    assert cache_root(tmp_path) == tmp_path / "mine"
    monkeypatch.setenv(VARIABLE, "")
    assert cache_root(tmp_path) is None
