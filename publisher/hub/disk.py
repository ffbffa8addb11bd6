"""What a folder target asks of a disk: listing, copying with a digest, second names, a lock, errors as sentences."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from publisher.errors import CheckpointError, HubError
from publisher.manifest import BLOCK

NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EXDEV)


def files(folder: Path) -> Iterator[Path]:
    """Everything below a folder that is no folder, sorted; links as themselves."""
    return (path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir())


def is_entry(path: Path) -> bool:
    """Whether a name stands for a file or a link."""
    return path.is_symlink() or path.is_file()


def state(path: Path) -> tuple[int, ...]:
    """What changes when a file's bytes are replaced: device, inode, size, time of change."""
    found = path.stat()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def copy(source: Path, descriptor: int, advance: Callable[[int], None]) -> str:
    """Copy a file's bytes, telling how many so far; their sha256 (hex).

    Raises:
        CheckpointError: the source cannot be read.
        OSError: the descriptor cannot be written.
    """
    hasher, size = hashlib.sha256(), 0
    try:
        file = source.open("rb", buffering=0)
    except OSError as error:
        raise CheckpointError(
            f"{source} cannot be read: {error.strerror or error}.", hint="Check its permissions and the disk."
        ) from None
    with file:
        while block := file.read(BLOCK):
            hasher.update(block)
            size += len(block)
            view = memoryview(block)
            while view:
                view = view[os.write(descriptor, view) :]
            advance(size)
    advance(size)
    return hasher.hexdigest()


@contextlib.contextmanager
def told(place: Path) -> Iterator[None]:
    """Turn what a disk refuses into one sentence."""
    try:
        yield
    except OSError as error:
        raise HubError(
            f"{place}: {error.strerror or error}.",
            hint="Make room or fix the permission, then run the same command again; it goes on from here.",
        ) from None


def link(source: Path, name: Path) -> None:
    """A second name for a file; a copy where the file system has none to give."""
    try:
        os.link(source, name)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        shutil.copyfile(source, name)


@contextlib.contextmanager
def locked(path: Path, what: Path) -> Iterator[None]:
    """Hold a lock that ends with this process, however that ends; the file itself stays.

    Raises:
        HubError: another process holds it.
    """
    with told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise HubError(
                f"Another push is writing to {what}; this one changed nothing.",
                hint="Wait until it has ended, then run the same command again.",
            ) from None
        yield
    finally:
        os.close(descriptor)
