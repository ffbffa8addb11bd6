"""The peak a program reports is its own, not that of whoever started it; what is free is what may be taken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from publisher.native import memory

CHILD = "from publisher.native.memory import peak_host_bytes; print(peak_host_bytes())"
PARENT = f"""
import subprocess, sys
big = bytearray(400_000_000)
big[::4096] = b"x" * len(big[::4096])
print(subprocess.run([sys.executable, "-c", {CHILD!r}], capture_output=True, text=True).stdout)
"""
GROWN = CHILD.replace("print", "x = bytearray(200_000_000); x[::4096] = b'x' * len(x[::4096]); del x; print", 1)


def run(code: str) -> int:
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def test_a_large_parent_is_not_the_childs_peak() -> None:
    assert run(PARENT) < 150_000_000


def test_memory_given_back_still_counts() -> None:
    assert run(GROWN) > 200_000_000


def test_free_memory_is_the_machine_s_or_what_a_control_group_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    4096 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "GROUP", tmp_path)
    assert memory.available_host_bytes() == 4096 * 1024
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert memory.available_host_bytes() == 2_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_host_bytes() == 4096 * 1024
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "none")
    assert memory.available_host_bytes() is None
