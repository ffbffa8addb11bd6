"""The files beside the weights, read once and bounded: documents, texts, and the source's where it is at hand."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from publisher import jsonio
from publisher.checkpoint.files import Files
from publisher.checkpoint.header import LFS_POINTER
from publisher.checkpoint.open import INDEX, Checkpoint
from publisher.errors import PublisherError
from publisher.subjects.evidence import CARD, PICTURES, Meter
from publisher.subjects.publication import MANIFEST

MAX_SIDE = 4 << 20  # bytes of a side file that is read whole; tokenizers are larger and are looked at in part
MOST = 256 << 20  # bytes of a file that are searched for secrets; no text of a checkpoint is that long
PIECE = 1 << 20  # bytes of a longer file that are read at once
KEPT = 256 << 10  # bytes of a file that is kept for the next rule
HEAD = 1024
UNREADABLE = object()


@dataclass(slots=True, kw_only=True)
class _Reader:
    """The small files of one place; what was read is kept."""

    files: Files
    meter: Meter
    documents: dict[str, Any] = field(default_factory=dict)
    flaws: dict[str, str] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    hidden: frozenset[str] = frozenset()

    def head(self, name: str) -> bytes:
        """The first bytes of a file; none where it cannot be read."""
        if name in self.contents:
            return self.contents[name][:HEAD]
        try:
            return self.meter.read(self.files, name, 0, min(self.files.sizes.get(name, 0), HEAD))
        except PublisherError:
            return b""

    def whole(self, name: str) -> bytes | None:
        """A file of at most `MAX_SIDE` bytes; None where there is none, or it is larger."""
        size = None if name in self.hidden else self.files.sizes.get(name)
        if size is None or size > MAX_SIDE:
            return None
        if name in self.contents:
            return self.contents[name]
        try:
            data = self.meter.read(self.files, name)
        except PublisherError as error:
            self.flaws[name] = error.message
            return None
        if size <= KEPT:
            self.contents[name] = data
        return data

    def pieces(self, name: str) -> Iterator[bytes]:
        """A file's bytes in order, at most `MOST`; none where it cannot be read."""
        size = 0 if name in self.hidden else self.files.sizes.get(name, 0)
        if size <= MAX_SIDE:
            yield self.whole(name) or b""
            return
        try:
            for begin in range(0, min(size, MOST), PIECE):
                yield self.meter.read(self.files, name, begin, min(begin + PIECE, size))
        except PublisherError as error:
            self.flaws[name] = error.message

    def document(self, name: str) -> Any:
        """A JSON file's value, None where there is none."""
        if name not in self.documents:
            self.documents[name] = self._parse(name)
        value = self.documents[name]
        return None if value is UNREADABLE else value

    def _parse(self, name: str) -> Any:
        data = self.whole(name)
        if data is None:
            return None
        if data.startswith(LFS_POINTER):
            self.flaws[name] = f"{name} is a Git LFS pointer, not the file."
            return UNREADABLE
        try:
            return jsonio.loads_json(data, name)
        except jsonio.DocumentError as error:
            self.flaws[name] = error.message
            return UNREADABLE


@dataclass(frozen=True)
class SideFiles:
    """The files beside the weights, and the source's."""

    checkpoint: Checkpoint
    source: Checkpoint | None
    mine: _Reader
    theirs: _Reader | None

    @property
    def names(self) -> Iterator[str]:
        """Every file that is no shard and no index."""
        return (name for name in self.checkpoint.side_files if name not in self.mine.hidden)

    @property
    def every_name(self) -> Iterator[str]:
        """The same and the index."""
        return itertools.chain(self.names, (INDEX,) if INDEX in self.checkpoint.files.sizes else ())

    def document(self, name: str) -> Any:
        """The parsed JSON file of that name; None where there is none or it cannot be read."""
        return self.mine.document(name)

    def mapping(self, name: str) -> dict[str, Any]:
        """The same where it is an object; empty otherwise."""
        value = self.mine.document(name)
        return value if isinstance(value, dict) else {}

    def flaw(self, name: str) -> str | None:
        """Why a file could not be read, after it was asked for."""
        self.mine.document(name)
        return self.mine.flaws.get(name)

    def text(self, name: str) -> str | None:
        """A file of at most `MAX_SIDE` bytes as text; undecodable bytes are replaced."""
        data = self.mine.whole(name)
        return None if data is None else data.decode("utf-8", "replace")

    def pieces(self, name: str) -> Iterator[bytes]:
        """A file's bytes in order, as many as `searched` says."""
        return self.mine.pieces(name) if self.searched(name) else iter(())

    def searched(self, name: str) -> int:
        """How many bytes of a file are looked at: `MOST`, or none of a long one that is not on this machine."""
        size = self.checkpoint.files.sizes.get(name, 0)
        far = self.checkpoint.files.local(name) is None and size > MAX_SIDE
        return 0 if far else min(size, MOST)

    def head(self, name: str) -> bytes:
        """A file's first bytes."""
        return self.mine.head(name)

    def original(self, name: str) -> Any:
        """The source's JSON file of that name; None without a source."""
        return self.theirs.document(name) if self.theirs is not None else None

    def in_source(self, name: str) -> bool:
        """Whether the source has a file of that name."""
        return self.source is not None and name in self.source.files.sizes

    def source_text(self, name: str) -> str | None:
        """As `text`, of the source."""
        data = self.theirs.whole(name) if self.theirs is not None else None
        return None if data is None else data.decode("utf-8", "replace")


def read_side_files(
    checkpoint: Checkpoint, source: Checkpoint | None, meter: Meter, *, published: bool = True
) -> SideFiles:
    """The subject; nothing is read before a rule asks.

    Args:
        checkpoint: what is judged.
        source: what it was made from, None when not at hand.
        meter: counts what is read.
        published: False leaves the card and the manifest alone: they are not written yet, or are of an earlier run.
    """
    hidden = frozenset() if published else frozenset({CARD, MANIFEST, *PICTURES})
    theirs = _Reader(files=source.files, meter=meter) if source is not None else None
    return SideFiles(checkpoint, source, _Reader(files=checkpoint.files, meter=meter, hidden=hidden), theirs)
