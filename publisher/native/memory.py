"""How much host memory a program took at its highest, how much there is and still is, and how much it may hold.

Linux keeps two marks of the first. `ru_maxrss` is handed down by whoever starts a program, so a small child of a large
parent shows the parent's; `VmHWM` of /proc/self/status is the program's own. Elsewhere `ru_maxrss` is all there is.
Where a control group (version 1 or 2) sets a limit, that is all there is, whatever the machine has; files that are kept
in memory there count as free, because they are given up when memory is wanted.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from pathlib import Path

READ_AHEAD = 256 << 20  # bytes of weights in memory, those worked on included; a larger unit is there alone
WRITE_BEHIND = 128 << 20  # bytes that wait to be written; a larger result waits alone
STATUS = Path("/proc/self/status")
MEMINFO = Path("/proc/meminfo")
OWN = Path("/proc/self/cgroup")
GROUP = Path("/sys/fs/cgroup")
# version: where it is mounted, names of limit and use, prefix of the keys of memory.stat
_VERSIONS = {
    2: ("", "memory.max", "memory.current", ""),
    1: ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
}
_CACHED = ("inactive_file", "active_file")


def peak_host_bytes() -> int:
    """Highest resident memory of this process since it started its program, in bytes."""
    try:
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # no /proc: not Linux
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def available_host_bytes() -> int | None:
    """Memory that may still be taken: the machine's, or less where a control group says so; None where nobody tells."""
    left = [limit - used for limit, used in _groups()]
    found = [value for value in (_meminfo(), *left) if value is not None]
    return max(0, min(found)) if found else None


def limit_of_group() -> int | None:
    """The memory a control group allows; None where none sets a limit."""
    return min((limit for limit, _ in _groups()), default=None)


def _meminfo() -> int | None:
    try:
        for line in MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None


def _groups() -> Iterator[tuple[int, int]]:
    """Limit and use of every control group this process is in; a container sees its own at the root."""
    for version, (mount, most, used, prefix) in _VERSIONS.items():
        root = GROUP / mount
        own = root / _own(version).lstrip("/")
        for folder in (own, *(parent for parent in own.parents if parent.is_relative_to(root))):
            try:
                limit, taken = int((folder / most).read_text()), int((folder / used).read_text())
            except (OSError, ValueError):  # none, or `max`
                continue
            if limit < 1 << 60:  # version 1 writes the largest number of pages where there is no limit
                yield limit, max(0, taken - _cached(folder, prefix))


def _own(version: int) -> str:
    """The path of this process's control group under the mount."""
    try:
        for line in OWN.read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            if (number == "0" and not controllers) if version == 2 else "memory" in controllers.split(","):
                return path if ".." not in path.split("/") else "/"
    except (OSError, ValueError):
        pass
    return "/"


def _cached(folder: Path, prefix: str) -> int:
    """Bytes of files that a control group holds in memory."""
    try:
        rows = [line.split() for line in (folder / "memory.stat").read_text().splitlines()]
        return sum(int(row[1]) for row in rows if len(row) == 2 and row[0] in {f"{prefix}{key}" for key in _CACHED})
    except (OSError, ValueError):
        return 0
