"""The terms a repository ships, beside the card that names them: which licences apply and what they ask."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from publisher.checkpoint import terms
from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.terms import Duties, Recognised
from publisher.errors import PublisherError
from publisher.subjects.evidence import Meter

MAX_FILES = 20  # licence texts that are read; a repository has one or two
_SIGNS = re.compile(r"\\(?=[^\w\s])|[*_`]|^ {0,3}>+", re.MULTILINE)
_FRONT = re.compile(r"\A---[ \t]*\r?\n.*?^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#[ \t]+(.{1,200}?)[ \t#]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The licences of a repository and its card.

    Args:
        checkpoint: the result.
        metadata: the card's front matter.
        prose: the card's text below its metadata, as `plain` makes it.
        name: the repository's name without its owner, or the card's heading; None where neither is known.
        declared: identifiers the card declares.
        recognised: licence files whose text is a known licence.
        notices: texts of the files called Notice.
        duties: what the licences ask, declared and recognised ones.
    """

    checkpoint: Checkpoint
    metadata: Mapping[str, Any]
    prose: str
    name: str | None
    declared: tuple[str, ...]
    recognised: Mapping[str, Recognised]
    notices: tuple[str, ...]
    duties: tuple[Duties, ...]

    def says(self, words: str) -> bool:
        """Whether the card holds these words; case, quotes and white space do not count."""
        return plain(words) in self.prose


def plain(text: str) -> str:
    """A text as it is compared: without Markdown's signs, quotes straightened, white space folded, in lower case."""
    return terms.readable(_SIGNS.sub("", text).replace("&amp;", "&").encode("utf-8", "replace")).lower()


def read_terms(
    checkpoint: Checkpoint, metadata: Mapping[str, Any], text: str | None, repo: str | None, meter: Meter
) -> Terms:
    """Read the files of terms; one that cannot be read is left out, which LC01 and the listing tell."""
    files = checkpoint.files
    texts = {path: _text(checkpoint, path, meter) for path in terms.licence_texts(files.sizes)[:MAX_FILES]}
    recognised = {path: found for path, data in texts.items() if (found := terms.recognise(data)) is not None}
    declared = terms.declared(metadata)
    identifiers = dict.fromkeys([*(found.identifier for found in recognised.values()), *declared])
    body = _FRONT.sub("", text or "")
    heading = _HEADING.search(body)
    return Terms(
        checkpoint=checkpoint,
        metadata=metadata,
        prose=plain(body),
        name=repo.rpartition("/")[2] if repo else _SIGNS.sub("", heading.group(1)) if heading else None,
        declared=declared,
        recognised=recognised,
        notices=tuple(
            plain(_text(checkpoint, path, meter).decode("utf-8", "replace"))
            for path in terms.notices(files.sizes)[:MAX_FILES]
        ),
        duties=terms.duties(identifiers, [terms.readable(data) for data in texts.values()]),
    )


def _text(checkpoint: Checkpoint, path: str, meter: Meter) -> bytes:
    files = checkpoint.files
    try:
        return meter.read(files, path, 0, min(files.sizes[path], 4 * terms.MAX_TEXT))
    except PublisherError:
        return b""
