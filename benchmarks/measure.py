"""How things are measured here: contenders in turn, round by round, so that a drifting machine hits them alike.

A time is the median of the rounds with the smallest and the largest beside it; a ratio is the median of the rounds' own
ratios, never the ratio of two medians. A child's peak memory comes from a small launcher of its own, because a process
inherits the high-water mark of the one that started it. Nothing here judges: a figure is printed, not compared.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = ("numpy", "torch", "safetensors", "nvidia-modelopt", "compressed-tensors", "torchao")
_SHORTEST = 0.05  # seconds; a quicker call is repeated within its round

_LAUNCHER = """
import os, subprocess, sys, time
began = time.perf_counter()
child = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)
_, status, usage = os.wait4(child.pid, 0)
print(os.waitstatus_to_exitcode(status), time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds of one contender, a value per round."""

    name: str
    rounds: tuple[float, ...]
    size: int = 0

    def to_json(self, **more: Any) -> dict[str, Any]:
        """Median, min and max in seconds, and GB/s of `size` bytes at the median where there is a size."""
        median = statistics.median(self.rounds)
        return {
            "name": self.name,
            "seconds": {
                "median": median,
                "min": min(self.rounds),
                "max": max(self.rounds),
                "rounds": len(self.rounds),
            },
            "gb_per_s": self.size / median / 1e9 if self.size else None,
            **more,
        }


@dataclass(slots=True)
class Result:
    """What a benchmark hands back: measurements, ratios, remarks, and what could not be measured with its reason."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    ratios: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    not_run: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"rows": self.rows, "ratios": self.ratios, "notes": self.notes, "not_run": self.not_run}


def say(what: str, seconds: float) -> None:
    """Tell a person who waits, on standard error, what one round of a long measurement took."""
    print(f"   {what} took {seconds:.1f} s", file=sys.stderr, flush=True)


def in_turn(contenders: Mapping[str, Callable[[], Any]], rounds: int, size: int = 0) -> dict[str, Timing]:
    """Time every contender once per round, after one call that is not counted.

    Args:
        contenders: name to what is timed; a GPU's contender synchronizes by itself.
        rounds: how often.
        size: bytes one call works on.
    """
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for work in contenders.values():
        work()
    for _ in range(rounds):
        for name, work in contenders.items():
            taken[name].append(_seconds(work))
    return {name: Timing(name=name, rounds=tuple(values), size=size) for name, values in taken.items()}


def _seconds(work: Callable[[], Any]) -> float:
    calls, began = 0, time.perf_counter()
    while True:
        work()
        calls += 1
        taken = time.perf_counter() - began
        if taken >= _SHORTEST:
            return taken / calls


def faster(name: str, ours: Timing, other: Timing, factor: float = 1.0) -> dict[str, Any]:
    """How many times as fast as `other` we are, times `factor`; higher is better."""
    return spread(name, [factor * b / a for a, b in zip(ours.rounds, other.rounds, strict=True)], "higher")


def longer(name: str, ours: Timing, other: Timing) -> dict[str, Any]:
    """How many times as long as `other` we take; lower is better."""
    return spread(name, [a / b for a, b in zip(ours.rounds, other.rounds, strict=True)], "lower")


def spread(name: str, values: Sequence[float], better: str) -> dict[str, Any]:
    """A ratio with its spread over the rounds; `better` is higher, lower or none."""
    return {"name": name, "value": statistics.median(values), "min": min(values), "max": max(values), "better": better}


@dataclass(frozen=True, slots=True)
class Child:
    """A finished child process: exit code, wall and processor seconds, peak memory in bytes, what it printed."""

    code: int
    seconds: float
    processor: float
    peak: int
    output: str


def run_child(arguments: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Child:
    """Run a command in the project's root and measure the whole process.

    Raises:
        RuntimeError: it failed; with the end of what it printed.
    """
    command = [sys.executable, "-S", "-c", _LAUNCHER, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **(environment or {})}, check=False
    )
    code, seconds, processor, peak = done.stdout.split()
    if int(code):
        raise RuntimeError(f"{arguments[0]} ended with {code}: {done.stderr[-500:]}")
    return Child(int(code), float(seconds), float(processor), int(peak) * 1024, done.stderr)


def drop_caches(paths: Iterable[Path]) -> None:
    """Write files out and ask the kernel to forget their pages, so that the next reader goes to the disk."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def machine() -> dict[str, Any]:
    """What the figures were measured on; the load is that of the last minute, before the benchmarks began."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "libraries": {name: version for name in LIBRARIES if (version := _version(name))},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def last_json(text: str) -> Any:
    """The JSON object a child printed in its last line."""
    return json.loads(text.strip().splitlines()[-1])
