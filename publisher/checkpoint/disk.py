"""The disk under a checkpoint that is written: failures as sentences, free space, flushing, one writer at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from publisher.errors import CheckpointError, EngineError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EIO, errno.EROFS, errno.EXDEV, errno.EACCES, errno.EPERM)


@contextmanager
def disk_errors(place: Path, needed: int) -> Iterator[None]:
    """Turn a failed write into one sentence: how much was still needed, how much is free, what to do.

    Args:
        place: where was written.
        needed: bytes still to be written, 0 when that is beside the point.

    Raises:
        EngineError: for what a disk, a quota or a permission refuses; other errors pass.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (*_FULL, *_REFUSED):
            raise
        first = "Free space there" if error.errno in _FULL else "Make the folder writable"
        more = f"; {needed:,} bytes were still to be written, {free_bytes(place):,} are free" if needed else ""
        raise EngineError(
            f"Writing under {place} failed: {error.strerror}{more}.",
            hint=f"{first} and run the same command again; finished shards are kept.",
        ) from error


def require_room(place: Path, needed: int) -> None:
    """Refuse before the work what would fill the disk during it.

    Raises:
        EngineError: fewer than `needed` bytes are free.
    """
    free = free_bytes(place)
    if needed > free:
        raise EngineError(
            f"{place} has {free:,} bytes free; {needed:,} are still to be written.",
            hint="Free space there, or choose another run directory, and run the same command again.",
        )


def require_same_disk(staging: Path, output: Path) -> None:
    """Refuse before the work what could not be renamed after it.

    Raises:
        CheckpointError: the two lie on different file systems.
    """
    if _existing(staging).stat().st_dev != _existing(output.parent).stat().st_dev:
        raise CheckpointError(
            f"The staging folder {staging} and the output {output} lie on different file systems.",
            hint="Put both under one run directory.",
        )


def free_bytes(place: Path) -> int:
    """Bytes free under a path that need not exist yet."""
    return shutil.disk_usage(_existing(place)).free


def sync(path: Path) -> None:
    """Flush a file or a folder's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock(folder: Path) -> int:
    """Hold a folder until the returned descriptor is closed or the process ends, however it ends.

    Raises:
        CheckpointError: another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise CheckpointError(
            f"Another process is writing in {folder}.", hint="Wait for it to end, or stop it first."
        ) from None
    except OSError:
        pass  # a file system without locks: two writers there are the caller's to avoid
    return descriptor


def _existing(place: Path) -> Path:
    place = place.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return place
