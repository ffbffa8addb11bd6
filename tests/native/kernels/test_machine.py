"""Where machine code is kept, and that it may not be."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("numba", reason="numba, the extra `fast`, is not installed")

from publisher.native.kernels import machine


@pytest.fixture(autouse=True)
def forget() -> None:
    machine.cache_folder.cache_clear()


def test_the_folder_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = machine.cache_folder()
    assert folder is not None
    assert folder.parent == tmp_path / "fp4-publisher"
    assert folder.stat().st_mode & 0o077 == 0
    machine.cache_folder.cache_clear()


def test_without_a_folder_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    assert machine.cache_folder() is None
    assert machine.machine_code(lambda value: value + 1)(1) == 2
    machine.cache_folder.cache_clear()
