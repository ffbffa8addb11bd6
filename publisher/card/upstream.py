"""What the model under a checkpoint is: its Hub id, commit, dtype, size, and what its own card tells.

The Hub takes only `org/name` as a base model, so a source that is a folder needs someone to say which one it is:
card.toml's `base_model`, or the folder's own card under `source_repo`. Otherwise the card is refused, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from publisher.card.headers import dominant_dtype
from publisher.card.value import Value
from publisher.checkpoint.files import Files
from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.source import Source
from publisher.errors import PublisherError
from publisher.subjects import CARD, Meter, read_card

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}", re.ASCII)
MAX_CARD = 4 << 20
MAX_BIBTEX = 4000
_LANGUAGE = re.compile(r"[a-z]{2,3}|multilingual|code")
_TASK = re.compile(r"[a-z0-9-]{2,60}")
_FENCE = re.compile(r"^(`{3,}|~{3,})[ \t]*[a-z]*[ \t]*$", re.I)
_ENTRY = re.compile(r"^\s*@[a-z]+\s*\{", re.I)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """The model a checkpoint was made from.

    Args:
        repo: its Hub id.
        read_from: where it was read, where that is another place than `repo`; a folder is called that, not by its path.
        commit: the commit it was read at, None for a folder.
        dtype: what most of its bytes are stored in.
        size: bytes of its tensors.
        languages: of its card, those the Hub knows the form of.
        task: its card's `pipeline_tag`.
        bibtex: the first BibTeX block of its card.
    """

    repo: Value
    read_from: str | None
    commit: str | None
    dtype: str
    size: int
    languages: tuple[str, ...]
    task: str | None
    bibtex: str | None


def read_upstream(source: Source, original: Checkpoint, person: Mapping[str, Any]) -> Upstream:
    """Collect what is known of a source.

    Raises:
        PublisherError: nothing says which Hub repository it is.
    """
    metadata = read_card(source.files, Meter()).metadata
    repo = _repo(source, metadata, person)
    elsewhere = None if source.repo == repo.text else f"hf://{source.repo}" if source.repo else "a local folder"
    return Upstream(
        repo=repo,
        read_from=elsewhere,
        commit=source.commit,
        dtype=_dtype(original),
        size=original.tensor_bytes,
        languages=_languages(metadata.get("language")),
        task=_task(metadata.get("pipeline_tag")),
        bibtex=_bibtex(source.files),
    )


def _repo(source: Source, metadata: Mapping[str, Any], person: Mapping[str, Any]) -> Value:
    for value, origin in (
        (person.get("base_model"), "card.toml: base_model"),
        (source.repo, "source"),
        (metadata.get("source_repo"), f"source {CARD}: source_repo"),
    ):
        if isinstance(value, str) and HUB_ID.fullmatch(value):
            return Value(value, origin)
    raise PublisherError(
        "The source is a folder and nothing says which Hub model it is, so the card cannot name its base model.",
        hint='Write base_model = "org/name" into card.toml and name that file in the recipe (card:) or with --card.',
    )


def _dtype(original: Checkpoint) -> str:
    stored = dominant_dtype(original.tensors.values()) or "unknown"
    quant = original.quant
    if quant is None or quant.format is None:
        return stored
    return f"{quant.format.upper()} ({quant.dialect}), stored as {stored}"


def _languages(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    names = ["no" if item is False else item for item in values]  # YAML 1.1 reads Norwegian as a boolean
    return tuple(dict.fromkeys(name for name in names if isinstance(name, str) and _LANGUAGE.fullmatch(name)))


def _task(value: Any) -> str | None:
    return value if isinstance(value, str) and _TASK.fullmatch(value) else None


def _bibtex(files: Files) -> str | None:
    if not 0 < files.sizes.get(CARD, 0) <= MAX_CARD:
        return None
    fence, block = "", list[str]()
    for line in files.read(CARD).decode("utf-8", errors="replace").splitlines():
        if not fence:
            opening = _FENCE.match(line)
            fence, block = (opening.group(1) if opening else ""), []
        elif line.rstrip() == fence:
            text = "\n".join(block).strip()
            if _ENTRY.match(text) and len(text) <= MAX_BIBTEX:
                return text
            fence = ""
        else:
            block.append(line)
    return None
