"""The source beside the checkpoint, and the card as the Hub will read it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from publisher import jsonio
from publisher.checkpoint.files import Files
from publisher.checkpoint.open import Checkpoint
from publisher.errors import PublisherError
from publisher.subjects.evidence import CARD, PIECE, Evidence, Meter
from publisher.subjects.terms import Terms, read_terms

MANIFEST = "publish.json"
SMALL = 64 << 20  # bytes of a side file whose digest is always taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The checkpoint and what it was made from."""

    checkpoint: Checkpoint
    source: Checkpoint
    meter: Meter

    def same(self, path: str) -> bool:
        """Whether a file has the same bytes in both; both must have it."""
        mine, theirs = self.checkpoint.files, self.source.files
        size = mine.sizes[path]
        if size != theirs.sizes[path]:
            return False
        return all(
            self.meter.read(mine, path, begin, begin + PIECE) == self.meter.read(theirs, path, begin, begin + PIECE)
            for begin in range(0, size, PIECE)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The files beside the manifest that lists them, `publish.json`; `shards` says whether shards may be read whole."""

    checkpoint: Checkpoint
    meter: Meter
    shards: bool = False

    @property
    def has_manifest(self) -> bool:
        """Whether there is one."""
        return MANIFEST in self.checkpoint.files.sizes

    def manifest(self) -> bytes:
        """Its bytes."""
        return self.meter.read(self.checkpoint.files, MANIFEST)

    def hashed(self, path: str) -> int:
        """Bytes to read for a file's digest; 0 where only its size is compared."""
        size = self.checkpoint.files.sizes[path]
        return size if self.shards or (size <= SMALL and not path.endswith(".safetensors")) else 0

    def sha256(self, path: str) -> str:
        """Digest (hex) of one file."""
        hasher, files = hashlib.sha256(), self.checkpoint.files
        for begin in range(0, files.sizes[path], PIECE):
            piece = self.meter.read(files, path, begin, begin + PIECE)
            hasher.update(piece)
            self.meter.step(len(piece))
        return hasher.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A model card: its text and the metadata block at its head; `flaw` says why that block could not be read.

    The text is None where there is no card, or none that is UTF-8.
    """

    metadata: Mapping[str, Any] = field(default_factory=dict)
    flaw: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """The card as the Hub will read it, the files beside it, and the repository's settings where they are known."""

    checkpoint: Checkpoint
    card: Card
    base_model: str | None
    gate: str | None
    settings: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """The card beside the source's card; gates are None where nobody knows them."""

    checkpoint: Checkpoint
    card: Card
    source: Checkpoint
    source_card: Card
    gate: str | None = None
    source_gate: str | None = None


_FRONT = re.compile(r"\A---[ \t]*\r?\n(.*?)(?:\r?\n)?^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)


def read_card(files: Files, meter: Meter) -> Card:
    """Parse a README.md's front matter; what is wrong becomes the card's flaw."""
    size = files.sizes.get(CARD)
    if size is None:
        return Card(flaw=f"There is no {CARD}.")
    if size > 16 << 20:
        return Card(flaw=f"{CARD} has {size:,} bytes; no model card does.")
    try:
        text = meter.read(files, CARD).decode("utf-8")
    except UnicodeDecodeError as error:
        return Card(flaw=f"{CARD} is not UTF-8 (byte {error.start}).")
    except PublisherError as error:
        return Card(flaw=error.message)
    match = _FRONT.match(text)
    if match is None:
        return Card(flaw=f"{CARD} does not begin with a metadata block between two lines of `---`.", text=text)
    try:
        metadata = jsonio.loads_yaml(match.group(1), CARD)
    except PublisherError as error:
        return Card(flaw=error.message, text=text)
    if not isinstance(metadata, Mapping):
        return Card(flaw=f"The metadata block of {CARD} is no mapping.", text=text)
    return Card(metadata={str(key): value for key, value in metadata.items()}, text=text)


def read_publication(
    evidence: Evidence, kinds: Collection[type], meter: Meter
) -> Iterator[Pair | Repository | Upstream | Terms]:
    """The source and the cards, as far as they are at hand and asked for."""
    checkpoint, source = evidence.checkpoint, evidence.source
    if Pair in kinds and source is not None:
        yield Pair(checkpoint=checkpoint, source=source, meter=meter)
    if not {Repository, Upstream, Terms} & set(kinds):
        return
    card = read_card(checkpoint.files, meter)
    if Repository in kinds:
        yield Repository(
            checkpoint=checkpoint,
            card=card,
            base_model=evidence.base_model,
            gate=evidence.gate,
            settings=evidence.settings,
        )
    if Upstream in kinds and source is not None:
        yield Upstream(
            checkpoint=checkpoint,
            card=card,
            source=source,
            source_card=read_card(source.files, meter),
            gate=_gate(evidence),
            source_gate=evidence.source_gate,
        )
    if Terms in kinds:
        yield read_terms(checkpoint, card.metadata, card.text, evidence.repo, meter)


def _gate(evidence: Evidence) -> str | None:
    """The gate as read back, else the one asked for."""
    if evidence.settings is None:
        return evidence.gate
    found = evidence.settings.get("gated")
    return found if isinstance(found, str) and found else "off"
