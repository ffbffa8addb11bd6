"""Two folders change their names in one step."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from publisher.hub import exchange as module
from publisher.hub.exchange import exchange


def two(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    return tmp_path / "first", tmp_path / "second"


def test_names_are_swapped(tmp_path: Path) -> None:
    first, second = two(tmp_path)
    assert exchange(first, second)
    assert (first / "file").read_text() == "second"
    assert (second / "file").read_text() == "first"


def test_a_missing_folder_is_an_error_and_changes_nothing(tmp_path: Path) -> None:
    first, _ = two(tmp_path)
    with pytest.raises(FileNotFoundError):
        exchange(first, tmp_path / "third")
    assert (first / "file").read_text() == "first"


def test_a_system_without_the_call_says_so_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Older:
        """A C library that has no renameat2."""

    monkeypatch.setattr(module.ctypes, "CDLL", lambda *arguments, **named: Older())
    first, second = two(tmp_path)
    assert not exchange(first, second)
    assert (first / "file").read_text() == "first"


def test_a_file_system_that_cannot_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unable:
        """A kernel that answers EINVAL."""

        @staticmethod
        def renameat2(*arguments: object) -> int:
            ctypes.set_errno(22)
            return -1

    monkeypatch.setattr(module.ctypes, "CDLL", lambda *arguments, **named: Unable())
    assert not exchange(*two(tmp_path))
