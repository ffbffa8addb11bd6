"""What the disk refuses, told as a person can act on it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from publisher.checkpoint import disk
from publisher.errors import CheckpointError, EngineError


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES])
def test_a_refused_write_names_place_need_and_next_step(tmp_path: Path, number: int) -> None:
    with pytest.raises(EngineError) as caught, disk.disk_errors(tmp_path, 12345):
        raise OSError(number, os.strerror(number))
    assert str(tmp_path) in caught.value.message
    assert "12,345 bytes" in caught.value.message
    assert os.strerror(number) in caught.value.message
    assert caught.value.exit_code == 5


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(BrokenPipeError), disk.disk_errors(tmp_path, 0):
        raise BrokenPipeError(errno.EPIPE, "gone")


def test_room_is_asked_for_before_the_work(tmp_path: Path) -> None:
    disk.require_room(tmp_path / "not" / "yet", 1)
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(EngineError, match="are still to be written"):
        disk.require_room(tmp_path / "not" / "yet", free * 2)


def test_two_file_systems_are_refused(tmp_path: Path) -> None:
    disk.require_same_disk(tmp_path / "a/b", tmp_path / "c/d")
    if Path("/proc").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("/proc is on the file system of the temporary folder")
    with pytest.raises(CheckpointError, match="different file systems"):
        disk.require_same_disk(Path("/proc/staging"), tmp_path / "out")


def test_a_lock_holds_against_another_process_and_ends_with_it(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from publisher.checkpoint.disk import lock; "
        "lock(pathlib.Path(sys.argv[1])); print(1, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(CheckpointError, match="Another process"):
            disk.lock(tmp_path)
        process.kill()
    os.close(disk.lock(tmp_path))
