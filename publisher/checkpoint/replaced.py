"""A place's files with some of them replaced by bytes at hand: a card that is not written there yet, for instance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from publisher.checkpoint.files import Files


class Replaced:
    """Files of which some are others.

    Args:
        files: the place.
        contents: bytes by path; they are added where the place has no such file.
    """

    def __init__(self, files: Files, contents: Mapping[str, bytes]) -> None:
        self._files, self._contents = files, dict(contents)
        sizes = {**files.sizes, **{path: len(data) for path, data in self._contents.items()}}
        self._sizes = dict(sorted(sizes.items()))

    @property
    def label(self) -> str:
        """The place's."""
        return self._files.label

    @property
    def sizes(self) -> Mapping[str, int]:
        """Size of every file, the replaced ones as they are here."""
        return self._sizes

    def read(self, path: str, begin: int = 0, end: int | None = None) -> bytes:
        """Bytes of one file; see `Files.read`."""
        data = self._contents.get(path)
        return self._files.read(path, begin, end) if data is None else data[begin:end]

    def local(self, path: str) -> Path | None:
        """The file on this machine, None for a replaced one."""
        return None if path in self._contents else self._files.local(path)
