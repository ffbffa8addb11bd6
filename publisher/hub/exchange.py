"""Two folders change their names in one step, so that nobody ever sees neither or half of one.

Linux has a system call for it, `renameat2` with `RENAME_EXCHANGE` (Linux 3.15, glibc 2.28); most of its file systems
know it. Elsewhere there is none, and the caller is told so before anything is touched.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

AT_FDCWD = -100
RENAME_EXCHANGE = 2
UNABLE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)


def exchange(first: Path, second: Path) -> bool:
    """Swap two names on one file system; False where that cannot be done in one step, and nothing was changed.

    Raises:
        OSError: the file system refuses for another reason.
    """
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    if call(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in UNABLE:
        return False
    raise OSError(code, os.strerror(code), str(first))
