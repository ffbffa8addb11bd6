"""Machine code for functions of numbers and arrays, kept in the user's cache folder.

numba brings its own compiler, so none has to be installed. What it makes is kept per processor and loaded the next
time; where no folder can be written, it is made again in every process.
"""

from __future__ import annotations

import functools
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

_SETTING = threading.Lock()  # numba's setting of the folder is the whole process's


@functools.cache
def cache_folder() -> Path | None:
    """Where machine code is kept: below `NUMBA_CACHE_DIR` or the user's cache folder; None if that cannot be written.

    The folder's name comes from the text of all kernels, because numba looks at the file of one function only.
    """
    texts = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in texts)).hexdigest()[:16]
    try:
        base = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(base) / "fp4-publisher" / f"kernels-{digest}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return folder if os.access(folder, os.W_OK) else None


def machine_code(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function compiled on its first call for the types it is called with; it runs without the interpreter's lock.

    Additions keep their order and nothing is contracted that is not written so, so every processor computes the same.
    """
    folder = cache_folder()
    with _SETTING:
        kept = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = str(folder or "")
        try:
            made: Callable[..., Any] = numba.njit(nogil=True, error_model="numpy", cache=folder is not None)(function)
        finally:
            numba.config.CACHE_DIR = kept
    return made
