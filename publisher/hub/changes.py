"""What an update of a published repository changes: files with their sizes, config keys, lines of the card, settings.

Read from the place that will change, before anything does: shown on a terminal and asked for, told by a dry run, and
written into the log of every update.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from publisher import jsonio
from publisher.errors import PublisherError
from publisher.hub.comparison import CARD, compare, everything
from publisher.hub.target import HUBS_OWN, Publication, Settings, StoredFile, Target
from publisher.manifest import Manifest
from publisher.units import format_bytes

CONFIG = "config.json"
SHOWN = 20  # lines of a kind
WIDE = 160  # characters of a line of the card
LONG = 5000  # lines of a card that are compared: the time grows with the square
DEEP = 16  # levels of a config that are looked into
ABSENT = "(absent)"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """One file: bytes before and after, None where it is not there."""

    path: str
    before: int | None
    after: int | None

    @property
    def kind(self) -> str:
        """added, changed or removed."""
        return "added" if self.before is None else "removed" if self.after is None else "changed"

    def __str__(self) -> str:
        there = [size for size in (self.before, self.after) if size is not None]
        sizes = [format_bytes(size) for size in there]
        if len(set(sizes)) < len(set(there)):  # so near each other that only bytes tell them apart
            sizes = [f"{size:,} B" for size in there]
        return f"{self.kind} {self.path} ({' to '.join(sizes)})"

    def to_json(self) -> dict[str, Any]:
        """The change as a JSON object."""
        return {"path": self.path, "kind": self.kind, "before": self.before, "after": self.after}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """One key of `config.json`, dotted, with its values as JSON."""

    key: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"config {self.key}: {self.before} to {self.after}"

    def to_json(self) -> dict[str, Any]:
        """The change as a JSON object."""
        return {"key": self.key, "before": self.before, "after": self.after}


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What differs between what users see and what they would see.

    Args:
        files: in the order of their paths.
        config: keys of `config.json`; empty where one of the two cannot be read as JSON.
        prose: lines of the card that go (`-`) and come (`+`); empty where one of the two cannot be read.
        settings: now and then; None for a repository that does not exist.
    """

    files: tuple[FileChange, ...]
    config: tuple[KeyChange, ...]
    prose: tuple[str, ...] = ()
    settings: tuple[Settings, Settings] | None

    @property
    def card(self) -> bool:
        """Whether the card changes."""
        return any(item.path == CARD for item in self.files)

    def __bool__(self) -> bool:
        return bool(self.files) or (self.settings is not None and self.settings[0] != self.settings[1])

    def to_json(self) -> dict[str, Any]:
        """The changes as a JSON object."""
        return {
            "files": [item.to_json() for item in self.files],
            "config": [item.to_json() for item in self.config],
            "card": self.card,
            "card_lines": list(self.prose),
            "settings": [str(item) for item in self.settings or ()],
        }

    def lines(self) -> Iterator[str]:
        """The changes as a person reads them, at most twenty lines of a kind."""
        yield from _some([str(item) for item in self.files], "file(s)")
        yield from _some([str(item) for item in self.config], "key(s) of config.json")
        yield "the card changes" if self.card else "the card stays as it is"
        yield from _some([f"card {line}" for line in self.prose], "line(s) of the card")
        if self.settings is not None:
            now, then = self.settings
            yield f"settings: {now}" + ("" if now == then else f" to {then}")


def changes(landing: Target, publication: Publication, current: Settings | None) -> Changes:
    """What `push` would change of what users see at `landing`; nothing is changed now.

    Args:
        landing: the revision that users see; of a repository that exists.
        publication: what would be published.
        current: the settings now.
    """
    entries = everything(publication.manifest)
    differences = {item.path for item in compare(landing, entries)}
    stored = {path: file.size for path, file in landing.tree().items() if path not in HUBS_OWN}
    files = tuple(
        FileChange(path=path, before=stored.get(path), after=entries[path].size if path in entries else None)
        for path in sorted(differences)
    )
    return Changes(
        files=files,
        config=tuple(_keys(landing, publication.folder)) if CONFIG in differences else (),
        prose=tuple(_prose(landing, publication.folder)) if CARD in differences & stored.keys() else (),
        settings=None if current is None else (current, publication.settings),
    )


def sight(landing: Target | None, manifest: Manifest) -> frozenset[str]:
    """What is not as the manifest says at a place, each with the state it has there; what another look is held against.

    A line that is new in a later look is something that somebody else did. Where a target keeps no revisions, files
    are known by their sizes alone, so that nothing of hundreds of gigabytes is read to be replaced.

    Args:
        landing: the revision that users see; None where there is none yet.
        manifest: what shall be there.
    """
    entries = everything(manifest)
    if landing is None:
        return frozenset(f"{path} is missing" for path in entries)
    found = compare(landing, entries)
    tree = landing.tree()
    there = [item.path for item in found if item.path in tree]
    digests = {path: tree[path].sha256 for path in there}
    if landing.keeps_revisions:
        digests |= landing.read_digests([path for path in there if digests[path] is None])
    return frozenset(_state(str(item), tree.get(item.path), digests.get(item.path)) for item in found)


def _state(what: str, file: StoredFile | None, digest: str | None) -> str:
    if file is None:
        return what
    return f"{what} ({file.size:,} B" + (f", sha256 {digest[:16]}…)" if digest else ")")


def _keys(landing: Target, folder: Path) -> Iterator[KeyChange]:
    try:
        before = dict(_flat(jsonio.loads_json(landing.read(CONFIG), CONFIG)))
        after = dict(_flat(jsonio.load_json(folder / CONFIG)))
    except (PublisherError, OSError):
        return
    for key in sorted({*before, *after}):
        if before.get(key) != after.get(key):
            yield KeyChange(key=key, before=before.get(key, ABSENT), after=after.get(key, ABSENT))


def _prose(landing: Target, folder: Path) -> Iterator[str]:
    try:
        before = landing.read(CARD).decode().splitlines()
        after = (folder / CARD).read_text(encoding="utf-8").splitlines()
    except (PublisherError, OSError, UnicodeDecodeError):
        return
    if max(len(before), len(after)) > LONG:
        return
    for line in difflib.ndiff(before, after):
        if line[0] in "-+" and line[2:].strip():
            yield line if len(line) <= WIDE else f"{line[:WIDE]}…"


def _flat(value: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and (value or not prefix) and depth < DEEP:
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key), depth + 1)
    else:
        text = jsonio.dump_json(value).strip()
        yield prefix, " ".join(text.split())[:120]


def _some(lines: list[str], what: str) -> Iterator[str]:
    yield from lines[:SHOWN]
    if len(lines) > SHOWN:
        yield f"and {len(lines) - SHOWN:,} more {what}"
