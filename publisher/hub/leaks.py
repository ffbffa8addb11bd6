"""Whether what is about to be published holds a secret: asked by the push itself, before the first byte is sent.

The rule SD09 asks the same of a checkpoint, when it is validated and when its card is written; this is for whatever
reaches a target past the rules, and for what became a secret since, such as a login of today. Every file the manifest
lists is read once, shards only as far as their header goes; nothing found is repeated.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from publisher import manifest as manifests
from publisher import secrets
from publisher.checkpoint.header import MAX_HEADER
from publisher.errors import PublisherError
from publisher.hub.target import Publication

RULE = ("sd09", "leaked-secret")  # a waiver of it, published in the manifest, speaks for this too
SHOWN = 5
REVOKE = "Revoke what was found, remove it from the files and build the manifest again; nothing was sent."


def leaks(publication: Publication) -> list[PublisherError]:
    """One problem that names every file with a secret; none where there is no secret, or a published reason for it."""
    if any(word.lower() in RULE for word in publication.manifest.provenance.waivers):
        return []
    known = secrets.environment()
    found = [text for path in _paths(publication) for text in _found(publication.folder / path, path, known)]
    if not found:
        return []
    more = f", and {len(found) - SHOWN:,} more" if len(found) > SHOWN else ""
    return [PublisherError(f"What would be published holds secrets: {', '.join(found[:SHOWN])}{more}.", hint=REVOKE)]


def _paths(publication: Publication) -> Iterator[str]:
    yield from (entry.path for entry in publication.manifest.files)
    yield manifests.NAME


def _found(file: Path, path: str, known: dict[str, str]) -> Iterator[str]:
    named = secrets.find([path.encode("utf-8", "replace")], known)
    yield from (f"a {leak.kind} in the name of a file" for leak in named if leak.certain)
    held = secrets.find(_pieces(file), known)
    yield from (f"{path} a {leak.kind} in {leak.place}" for leak in held if leak.certain)


def _pieces(file: Path) -> Iterator[bytes]:
    """The bytes of a file, of a shard those of its header; none of one that cannot be read, which others report."""
    try:
        with file.open("rb") as opened:
            left = _to_read(file, opened.read(8))
            opened.seek(0)
            while left > 0 and (piece := opened.read(min(secrets.PIECE, left))):
                left -= len(piece)
                yield piece
    except OSError:
        return


def _to_read(file: Path, start: bytes) -> int:
    """How many bytes of a file are text, or may be."""
    size = file.stat().st_size
    if not file.name.endswith(".safetensors"):
        return size
    return min(size, 8 + int.from_bytes(start, "little"), 8 + MAX_HEADER)
