"""Where a checkpoint's bytes come from: a folder, or a Hub repository read by ranges.

A checkpoint is data from a stranger: names are checked before they become paths, links that lead out of the folder are
not followed, and no read is longer than its caller asked for.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Protocol

from publisher.errors import CheckpointError

MAX_FILES = 100_000  # the Hub's own limit for a repository
SHARED_BLOBS = ".huggingface-shared-blobs"  # the Hub client's mark in the store that all its repositories share
SCORES = ".eval_results"  # the one hidden folder that belongs to a repository: the Hub reads it


class Files(Protocol):
    """A checkpoint's files, wherever they are."""

    @property
    def label(self) -> str:
        """What to call the place in a message: a path, or `hf://org/name@commit`."""
        ...

    @property
    def sizes(self) -> Mapping[str, int]:
        """Size in bytes of every file, by POSIX path relative to the root, sorted."""
        ...

    def read(self, path: str, begin: int = 0, end: int | None = None) -> bytes:
        """Bytes `begin` to `end` (to the end of the file when None); fewer where the file is shorter.

        Raises:
            CheckpointError: no such file, or it cannot be read.
        """
        ...

    def local(self, path: str) -> Path | None:
        """The file on this machine, where there is one."""
        ...


def safe_name(name: str) -> bool:
    """Whether a relative POSIX path stays inside its folder and holds no control characters or backslashes."""
    parts = PurePosixPath(name).parts
    return (
        bool(parts)
        and not name.startswith("/")
        and ".." not in parts
        and "\\" not in name
        and all(character.isprintable() for character in name)
        and len(name) <= 1024
    )


def shard_name(name: str) -> bool:
    """Whether a name that an index gives can be a shard: a safetensors file of the folder itself."""
    return name.endswith(".safetensors") and "/" not in name and safe_name(name)


class LocalFiles:
    """The files of a folder. Hidden folders (`.git`, `.cache`) are passed over; links out of the folder are left out.

    `outside` names the links that were left out, because they lead out of the folder, to nothing, or to a folder;
    `unsafe` the files whose names hold control characters or backslashes.

    Args:
        root: the folder.

    Raises:
        CheckpointError: not a folder, or more files than a repository may hold.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            problem = "is not a folder" if root.exists() else "does not exist"
            raise CheckpointError(
                f"{root} {problem}.", hint="Give the folder that holds config.json, or hf://org/name for a repository."
            )
        self.root = root
        self.outside: tuple[str, ...] = ()
        self.unsafe: tuple[str, ...] = ()
        self._sizes = self._walk()

    @property
    def label(self) -> str:
        """The folder's path."""
        return str(self.root)

    @property
    def sizes(self) -> Mapping[str, int]:
        """Size of every regular file."""
        return self._sizes

    def read(self, path: str, begin: int = 0, end: int | None = None) -> bytes:
        """Bytes of one file; see `Files.read`."""
        try:
            with self._path(path).open("rb") as file:
                file.seek(begin)
                return file.read() if end is None else file.read(max(end - begin, 0))
        except OSError as error:
            raise CheckpointError(
                f"{self.root / path} cannot be read: {error.strerror or error}.",
                hint="Copy or download the file again.",
            ) from None

    def local(self, path: str) -> Path | None:
        """The file itself."""
        return self._path(path) if path in self._sizes else None

    def _path(self, path: str) -> Path:
        if not safe_name(path):
            raise CheckpointError(
                f"The file name {path[:200]!r} leads out of {self.root}.", hint="Fetch the checkpoint again."
            )
        return self.root / path

    def _walk(self) -> dict[str, int]:
        found: dict[str, int] = {}
        outside: list[str] = []
        unsafe: list[str] = []
        root = self.root.resolve()
        for folder, folders, names in os.walk(self.root):
            folders[:] = sorted(f for f in folders if not f.startswith(".") or f == SCORES)
            links = [path for path in (Path(folder, f) for f in folders) if path.is_symlink()]
            outside += [path.relative_to(self.root).as_posix() for path in links]
            for name in names:
                path = Path(folder, name)
                relative = path.relative_to(self.root).as_posix()
                try:
                    status = path.stat()
                except OSError:  # a link to nothing or to itself, or a name that cannot be looked up
                    outside.append(relative)
                    continue
                if path.is_symlink() and not _inside(path, root):
                    outside.append(relative)
                    continue
                if not safe_name(relative):
                    unsafe.append(relative)
                elif stat.S_ISREG(status.st_mode):
                    found[relative] = status.st_size
            if len(found) > MAX_FILES:
                raise CheckpointError(
                    f"{self.root} holds more than {MAX_FILES:,} files; this is no checkpoint.",
                    hint="Name the checkpoint's own folder.",
                )
        self.outside, self.unsafe = tuple(sorted(outside)), tuple(sorted(unsafe))
        return dict(sorted(found.items()))


def _inside(path: Path, root: Path) -> bool:
    """Whether a link stays in its folder, or in the blob store of the Hub cache it lies in."""
    target = path.resolve()
    allowed = [root]
    if root.parent.name == "snapshots":  # <cache>/models--org--name/snapshots/<commit> links into ../../blobs
        repository = root.parent.parent
        allowed.append(repository / "blobs")
        shared = repository.parent / "blobs"  # into which huggingface_hub 2 links further what came over Xet
        if repository.name.startswith("models--") and (shared / SHARED_BLOBS).is_file():
            allowed.append(shared)
    return any(target.is_relative_to(folder) for folder in allowed)
