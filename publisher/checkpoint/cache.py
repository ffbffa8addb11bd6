"""What has been read of a Hub repository, kept on disk by commit, so that an interrupted reading goes on where it was.

A commit never changes, so nothing here grows old; an entry is one range of one file, with its length and sha256 in
front, and one that does not hold to them is read again. Entries are written beside their name and renamed. The folders
are the user's alone, and neither tokens nor signed addresses are ever written. Nothing here asks who reads: whoever
uses it has asked the Hub first whether this login may.

The whole cache is `$FP4_PUBLISHER_CACHE`, by default `fp4-publisher` beside the Hub client's own; an empty value keeps
nothing on disk. It holds `LIMIT` bytes: when a commit is opened, those not used for the longest are removed first.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import tempfile
import threading
import time
from pathlib import Path

VARIABLE = "FP4_PUBLISHER_CACHE"
LIMIT = 10 << 30  # bytes of the whole cache when a commit is opened
SHARE = 4 << 30  # bytes one reading adds at most, beside the starts of files
SPARE = 2 << 30  # bytes left free on the disk
MEMORY = 64 << 20  # bytes kept in memory where the disk may not be used
_HEAD = 4096  # bytes of an entry's first line at most


def cache_root(home: Path) -> Path | None:
    """The cache's folder, None when the user wants none.

    Args:
        home: the Hub client's home.
    """
    value = os.environ.get(VARIABLE)
    if value is None:
        return home / "fp4-publisher"
    return Path(value).expanduser().absolute() if value.strip() else None


class CommitCache:
    """Ranges of the files of one commit.

    Args:
        root: the cache's folder; None keeps a little in memory instead.
        endpoint: the Hub's address.
        repo: `org/name`.
        commit: the commit sha.
    """

    def __init__(self, root: Path | None, endpoint: str, repo: str, commit: str) -> None:
        place = hashlib.sha256(f"{endpoint}\0{repo}".encode()).hexdigest()[:12]
        self._lock = threading.Lock()
        self._added = 0
        self._memory: dict[str, bytes] = {}
        self.folder: Path | None = None
        if root is not None:
            folder = root / f"models--{repo.replace('/', '--')}--{place}" / commit
            with contextlib.suppress(OSError):
                _private(root, folder)
                os.utime(folder)
                self.folder = folder
                _trim(root, keep=folder)

    def get(self, path: str, begin: int, end: int | None = None) -> bytes | None:
        """Bytes `begin` to `end` of a file (all kept of it when None), None when they are not here or damaged."""
        name = _name(path, begin)
        if self.folder is None:
            data = self._memory.get(name)
        else:
            try:
                data = _checked((self.folder / name).read_bytes(), path, begin)
            except OSError:
                return None
        if data is None or end is None:
            return data
        return data[: end - begin] if len(data) >= end - begin else None

    def has(self, path: str, begin: int, end: int) -> bool:
        """Whether `get` will most likely find it; nothing is read."""
        name = _name(path, begin)
        if self.folder is None:
            return len(self._memory.get(name, b"")) >= end - begin
        try:
            return (self.folder / name).stat().st_size > end - begin
        except OSError:
            return False

    def put(self, path: str, begin: int, data: bytes) -> None:
        """Keep a range; failing to is no error."""
        with self._lock:
            room = MEMORY if self.folder is None else SHARE
            if self._added + len(data) > room and (begin or self.folder is None):
                return
            self._added += len(data)
        if self.folder is None:
            self._memory[_name(path, begin)] = data
            return
        try:
            if shutil.disk_usage(self.folder).free - len(data) > SPARE:
                _write(self.folder / _name(path, begin), _line(path, begin, data) + data)
        except OSError:
            return


def _name(path: str, begin: int) -> str:
    return f"{hashlib.sha256(path.encode('utf-8', 'surrogatepass')).hexdigest()[:40]}.{begin}"


def _line(path: str, begin: int, data: bytes) -> bytes:
    digest = hashlib.sha256(data).hexdigest()
    return json.dumps({"begin": begin, "length": len(data), "path": path, "sha256": digest}).encode() + b"\n"


def _checked(raw: bytes, path: str, begin: int) -> bytes | None:
    """An entry's bytes, None when they are not what its first line says."""
    at = raw.find(b"\n", 0, 8 * _HEAD)
    data = raw[at + 1 :]
    return data if at > 0 and raw[: at + 1] == _line(path, begin, data) else None


def _write(path: Path, data: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _private(root: Path, folder: Path) -> None:
    """Make the folders, for this user alone.

    Raises:
        OSError: they belong to somebody else, or cannot be made.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    for part in (root, folder.parent, folder):
        part.mkdir(mode=0o700, exist_ok=True)
        status = part.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise PermissionError(f"{part} belongs to somebody else")
        if stat.S_IMODE(status.st_mode) & 0o077:
            part.chmod(0o700)


def _trim(root: Path, keep: Path) -> None:
    """Remove the commits not used for the longest until the cache holds no more than `LIMIT` bytes."""
    commits = []
    for folder in root.glob("models--*/*"):
        files = [path.lstat() for path in folder.iterdir()] if folder.is_dir() else []
        commits.append((folder.lstat().st_mtime, folder, sum(512 * status.st_blocks for status in files)))
    _sweep(keep)
    total = sum(size for _, _, size in commits)
    for _, folder, size in sorted(commits):
        if total <= LIMIT:
            return
        if folder != keep:
            shutil.rmtree(folder, ignore_errors=True)
            total -= size


def _sweep(folder: Path) -> None:
    """Remove what a killed process left half written."""
    for path in folder.glob(".*.part"):
        with contextlib.suppress(OSError):
            if path.lstat().st_mtime < time.time() - 3600:
                path.unlink()
