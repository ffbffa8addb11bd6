"""A checkpoint's files in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


class Memory:
    """Files out of a dictionary; a short read where a file is shorter, as on a disk."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents = contents

    @property
    def label(self) -> str:
        return "memory"

    @property
    def sizes(self) -> Mapping[str, int]:
        return {name: len(self.contents[name]) for name in sorted(self.contents)}

    def read(self, path: str, begin: int = 0, end: int | None = None) -> bytes:
        return self.contents[path][begin:end]

    def local(self, path: str) -> Path | None:
        return None
