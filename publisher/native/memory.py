"""How much host memory a program took at its highest, and how much there still is.

Linux keeps two such marks. `ru_maxrss` is handed down by whoever starts a program, so a small child of a large parent
shows the parent's; `VmHWM` of /proc/self/status is the program's own. Elsewhere `ru_maxrss` is all there is.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")
MEMINFO = Path("/proc/meminfo")
GROUP = Path("/sys/fs/cgroup")


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
    found = [_meminfo(), *_of_group()]
    known = [value for value in found if value is not None]
    return max(0, min(known)) if known else None


def _meminfo() -> int | None:
    try:
        for line in MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None


def _of_group() -> list[int]:
    """What a control group of version 2 leaves; a container sees its own at the root."""
    try:
        limit, used = ((GROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return [int(limit) - int(used)]
    except (OSError, ValueError):  # none, or `max`
        return []
