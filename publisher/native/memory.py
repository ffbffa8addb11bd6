"""How much host memory a program took at its highest.

Linux keeps two such marks. `ru_maxrss` is handed down by whoever starts a program, so a small child of a large parent
shows the parent's; `VmHWM` of /proc/self/status is the program's own. Elsewhere `ru_maxrss` is all there is.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


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
