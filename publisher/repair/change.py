"""What a repair wants: whole files written, files removed, tensors of a shard given new bytes; and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from publisher.checkpoint.files import Files
from publisher.checkpoint.header import TensorRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change, for people and for the record.

    Args:
        repair: the repair it belongs to.
        file: the file it concerns.
        message: what changes, with its numbers, in one sentence.
    """

    repair: str
    file: str
    message: str

    def to_json(self) -> dict[str, str]:
        """As plain values."""
        return {"repair": self.repair, "file": self.file, "message": self.message}


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """New bytes for one tensor of a scale: same dtype, same shape, same place.

    Args:
        ref: the tensor.
        convert: old bytes to new bytes of the same length; called piece by piece.
    """

    ref: TensorRef
    convert: Callable[[bytes], bytes]


@dataclass(slots=True)
class Draft:
    """What the repairs have put together so far.

    Args:
        documents: file name to its new content.
        copies: file name to the place its bytes come from.
        removed: files that go.
        patches: shard to the tensors that change in it.
        changes: what was done.
        refused: what could not be repaired, and why.
    """

    documents: dict[str, bytes] = field(default_factory=dict)
    copies: dict[str, Files] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    patches: dict[str, list[Patch]] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    refused: list[Change] = field(default_factory=list)

    def say(self, repair: str, file: str, message: str) -> None:
        """Record a change."""
        self.changes.append(Change(repair=repair, file=file, message=message))

    def refuse(self, repair: str, file: str, message: str) -> None:
        """Record what stays broken."""
        self.refused.append(Change(repair=repair, file=file, message=message))


def differing(mine: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """Dotted keys whose values differ between two documents."""
    if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
        for key in dict.fromkeys((*mine, *theirs)):
            yield from differing(mine.get(key), theirs.get(key), f"{path}.{key}" if path else str(key))
    elif mine != theirs or type(mine) is not type(theirs):
        yield path


def listing(names: list[str], most: int = 4) -> str:
    """A few names and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest:,} more" if rest > 0 else "")
