"""A folder that remembers what was read of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from publisher.checkpoint.files import LocalFiles


class Watched:
    """Files that remember every read."""

    def __init__(self, root: Path) -> None:
        self.inner = LocalFiles(root)
        self.reads: list[tuple[str, int, int]] = []

    @property
    def label(self) -> str:
        return self.inner.label

    @property
    def sizes(self) -> Mapping[str, int]:
        return self.inner.sizes

    def read(self, path: str, begin: int = 0, end: int | None = None) -> bytes:
        data = self.inner.read(path, begin, end)
        self.reads.append((path, begin, len(data)))
        return data

    def local(self, path: str) -> Path | None:
        return self.inner.local(path)
