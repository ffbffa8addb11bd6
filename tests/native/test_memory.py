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


V2 = ("", "memory.max", "memory.current", "")
V1 = ("memory/", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_")


@pytest.mark.parametrize(("version", "line"), [(V2, "0::/jobs/one"), (V1, "4:cpu,memory:/jobs/one\n0::/elsewhere")])
def test_a_limit_is_that_of_any_group_around_and_cached_files_are_free(
    version: tuple[str, ...], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terabyte that was read fills a container's account with files, and none of that is taken from anybody."""
    mount, most, used, prefix = version
    own = tmp_path / mount / "jobs/one"
    own.mkdir(parents=True)
    (tmp_path / "cgroup").write_text(f"1:name=systemd:/x\n{line}\n")
    (tmp_path / "meminfo").write_text("MemAvailable:    4096000 kB\n")
    for place, limit, taken in ((own, 10_000, 9_000), (own.parent, 8_000, 7_900)):
        (place / most).write_text(f"{limit}\n")
        (place / used).write_text(f"{taken}\n")
    rows = f"{prefix}cache 9\n{prefix}inactive_file 4000\n{prefix}active_file 1000\n{prefix}unevictable 5\n"
    (own / "memory.stat").write_text(f"inactive_file 11\n{rows}" if prefix else rows)
    (own.parent / "memory.stat").write_text(f"{prefix}inactive_file 5000\n")
    for name, path in (("GROUP", tmp_path), ("OWN", tmp_path / "cgroup"), ("MEMINFO", tmp_path / "meminfo")):
        monkeypatch.setattr(memory, name, path)
    assert memory.limit_of_group() == 8_000
    assert memory.available_host_bytes() == 8_000 - 2_900
    (own.parent / most).write_text("max\n" if not mount else f"{(1 << 63) - 4096}\n")
    assert memory.limit_of_group() == 10_000
    assert memory.available_host_bytes() == 10_000 - 4_000
    (own / most).unlink()
    assert memory.limit_of_group() is None
    assert memory.available_host_bytes() == 4096000 * 1024
