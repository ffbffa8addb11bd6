"""The peak a program reports is its own, not that of whoever started it."""

from __future__ import annotations

import subprocess
import sys

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
