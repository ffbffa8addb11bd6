"""A disk as a folder target uses it."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from publisher.errors import CheckpointError, HubError
from publisher.hub import disk

ROOT = Path(__file__).resolve().parents[2]


def test_a_copy_has_the_digest_of_what_was_written_and_tells_how_far_it_is(tmp_path: Path) -> None:
    data = os.urandom(9 << 20)
    (tmp_path / "source").write_bytes(data)
    told: list[int] = []
    with (tmp_path / "copy").open("wb", buffering=0) as file:
        digest = disk.copy(tmp_path / "source", file.fileno(), told.append)
    assert digest == hashlib.sha256(data).hexdigest()
    assert (tmp_path / "copy").read_bytes() == data
    assert told == sorted(told)
    assert told[-1] == len(data)
    with pytest.raises(CheckpointError, match="cannot be read"):
        disk.copy(tmp_path / "absent", 1, told.append)


def test_links_are_listed_as_themselves(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").write_text("x")
    (tmp_path / "away").symlink_to("/etc")
    assert [path.name for path in disk.files(tmp_path)] == ["file", "away"]
    assert disk.is_entry(tmp_path / "away")
    assert not disk.is_entry(tmp_path / "a")


@pytest.mark.parametrize("number", disk.NO_LINKS)
def test_where_there_are_no_second_names_the_file_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def unable(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    (tmp_path / "a").write_text("x")
    monkeypatch.setattr(os, "link", unable)
    disk.link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "x"
    assert (tmp_path / "b").stat().st_ino != (tmp_path / "a").stat().st_ino


def test_other_failures_of_a_second_name_are_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        disk.link(tmp_path / "absent", tmp_path / "b")


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    lock = tmp_path / "deep" / ".lock"
    code = (
        "import os, signal, sys; from pathlib import Path; from publisher.hub import disk\n"
        f"with disk.locked(Path({str(lock)!r}), Path('x')): print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(HubError, match="Another push is writing to y"), disk.locked(lock, Path("y")):
        pytest.fail("two at once")
    process.kill()
    process.wait()
    with disk.locked(lock, Path("y")):
        assert lock.exists(), "what a killed process leaves is no obstacle"


def test_what_a_disk_refuses_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(HubError, match="No space left") as caught, disk.told(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "Make room" in caught.value.hint
