"""The terms a model comes under: found in the source, carried over byte for byte, proven equal, named for the Hub.

A licence is a set of files (LICENSE, NOTICE, USE_POLICY, ... in any folder) and what the upstream card declares. Files
are compared and copied as bytes, never decoded and written again. The identifier for the Hub is the declared one where
the Hub knows it, else `other` with a name and a link. The text is recognised by its content, to warn when it is not
what the card declares and to know what it asks. Nothing is invented: a source without a licence file stays without
one, and says so; only the Notice that some licences dictate word for word is written where the source has none.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from publisher import jsonio
from publisher.checkpoint import terms
from publisher.checkpoint.files import Files, LocalFiles
from publisher.checkpoint.terms import Duties, Recognised
from publisher.errors import CheckpointError
from publisher.subjects import Meter, read_card

MAX_FILE = 16 << 20  # bytes; the longest notice files of real repositories have a few hundred thousand
NOTICE = "NOTICE"
_SLUG = re.compile(r"^[a-z0-9][a-z0-9.+-]{0,95}$")
_WEB = re.compile(r"^https?://[^\s<>\"'`\\]{1,500}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class LicenceFile:
    """One file of terms: its path in the repository, bytes, and sha256 (hex)."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class LicenceDifference:
    """One way in which a result's terms are not its source's: `kind` is missing, changed or added."""

    path: str
    kind: str

    def __str__(self) -> str:
        what = {"missing": "is missing", "changed": "differs from the source", "added": "is not in the source"}
        return f"{self.path} {what[self.kind]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What the licence wants to be said in the card: a sentence, where it leads, whether it must stand out."""

    text: str
    link: str | None = None
    strong: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Licence:
    """The terms of a source.

    Args:
        files: every file of terms, sorted by path; empty where the source ships none.
        main: which of them is the licence's text; None where none is (a notice alone is not).
        declared: the upstream card's `license`, None where it has none.
        recognised: identifier of the main file's text where it is a known one and nothing is added to it.
        metadata: `license` and, where needed, `license_name` and `license_link` for the result's card.
        title: what to call the licence in a sentence.
        duties: what the known ones among its licences ask.
        statements: what the licence wants to be said in the card.
        warnings: what a reader of the card should know, each a sentence.
    """

    files: tuple[LicenceFile, ...]
    main: str | None = None
    declared: str | None
    recognised: str | None
    metadata: Mapping[str, Any]
    title: str
    duties: tuple[Duties, ...]
    statements: tuple[Statement, ...]
    warnings: tuple[str, ...]


def licence_paths(names: Iterable[str]) -> list[str]:
    """Those of a repository's files that hold terms, sorted."""
    return terms.terms_in(names)


def published_paths(files: Files) -> list[str]:
    """The files of terms a result ends with: the source's, and the Notice its licence dictates."""
    notice = _own_notice(files)
    return sorted([*licence_paths(files.sizes), *([notice[0]] if notice else [])])


def read(files: Files, *, repo: str | None = None, commit: str | None = None) -> Licence:
    """What a source's terms are.

    Args:
        files: the source's files.
        repo: its Hub id, to link to a file the Hub cannot link to inside the result.
        commit: the commit `files` is read at.

    Raises:
        CheckpointError: a licence file cannot be read, or is longer than any licence.
    """
    contents = {path: _content(files, path) for path in licence_paths(files.sizes)}
    found = tuple(_entry(path, data) for path, data in contents.items())
    card = read_card(files, Meter())
    upstream = card.metadata
    main = next(iter(terms.licence_texts(contents)), None)
    text = terms.recognise(contents[main]) if main else None
    recognised = text.identifier if text and not text.added else None
    declared = _declared(upstream.get("license"))
    metadata = _metadata(upstream, declared, recognised, main, _link(upstream, main, repo, commit))
    asked = _duties(upstream, contents)
    return Licence(
        files=found,
        main=main,
        declared=", ".join(declared) or None,
        recognised=recognised,
        metadata=metadata,
        title=_title(metadata),
        duties=asked,
        statements=tuple(_statements(asked, has_text=main is not None)),
        warnings=tuple(_warnings(declared, terms.declared(upstream), text, main, card.flaw)),
    )


def copy(files: Files, folder: Path) -> Licence:
    """Copy a source's terms into a result, each file complete or not at all, and say what they are.

    Raises:
        CheckpointError: a file cannot be read, or its place in `folder` leads out of it.
    """
    root = folder.resolve()
    for path in licence_paths(files.sizes):
        goal = folder / path
        if not goal.parent.resolve().is_relative_to(root):
            raise CheckpointError(f"{goal} leads out of {folder}.", hint="Remove the link.")
        jsonio.write_atomic(goal, _content(files, path))
    notice = _own_notice(files)
    if notice is not None and not (folder / notice[0]).exists():
        jsonio.write_atomic(folder / notice[0], notice[1])
    return read(files)


def compare(files: Files, result: Path | Files) -> list[LicenceDifference]:
    """Every way in which a result's terms are not byte for byte the source's; empty when they are.

    A Notice that the licence dictates and the source lacks is none.

    Raises:
        CheckpointError: a file cannot be read.
    """
    theirs = LocalFiles(result) if isinstance(result, Path) else result
    wanted, present = licence_paths(files.sizes), set(licence_paths(theirs.sizes))
    found = []
    for path in wanted:
        if path not in present:
            found.append(LicenceDifference(path, "missing"))
        elif _content(files, path) != _content(theirs, path):
            found.append(LicenceDifference(path, "changed"))
    own = _own_notice(files)
    dictated = {own[0]} if own and own[0] in present and _content(theirs, own[0]) == own[1] else set()
    found += [LicenceDifference(path, "added") for path in present.difference(wanted) - dictated]
    return sorted(found, key=lambda difference: difference.path)


def advice(found: Licence, *, repo: str | None, open_copy: bool = False) -> Iterator[str]:
    """What a publisher should know before the work, each a sentence; the rules refuse some of it at the end.

    Args:
        found: the source's terms.
        repo: `org/name` to publish under, where it is known.
        open_copy: the source is gated and the result would not be.
    """
    name = (repo or "").rpartition("/")[2]
    for duty in found.duties:
        if not duty.derivatives:
            yield f"{duty.title} does not allow sharing modified versions, and a quantized model is one; ask for leave."
        if not duty.commercial:
            yield f"{duty.title} allows no commercial use; the card says so, and gating does not change it."
        if duty.prefix and name and not terms.begins(name, duty.prefix):
            yield f'The {duty.title} asks for a name that begins with "{duty.prefix}", and {name} does not.'
    if open_copy:
        yield "The source is gated and the copy would not be; set the gate to auto or manual."


def recognise(text: bytes) -> str | None:
    """The identifier of a licence text, where it is a known one without words of its own; None otherwise."""
    found = terms.recognise(text)
    return found.identifier if found and not found.added else None


def hub_knows(identifier: str) -> bool:
    """Whether the Hub accepts an identifier as a card's `license`."""
    return identifier in jsonio.data("licences/hub.json")["identifiers"]


# --- details -------------------------------------------------------------------------------------------------------


def _content(files: Files, path: str) -> bytes:
    if files.sizes[path] > MAX_FILE:
        raise CheckpointError(
            f"{files.label}: {path} has {files.sizes[path]:,} bytes; no licence is longer than {MAX_FILE:,}.",
            hint="Rename it if it is no licence.",
        )
    return files.read(path)


def _entry(path: str, data: bytes) -> LicenceFile:
    return LicenceFile(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def _duties(upstream: Mapping[str, Any], contents: Mapping[str, bytes]) -> tuple[Duties, ...]:
    """What the licences of a source ask: those its card names and those its files are."""
    texts = [contents[path] for path in terms.licence_texts(contents)]
    found = [text.identifier for text in map(terms.recognise, texts) if text is not None]
    return terms.duties([*found, *terms.declared(upstream)], [terms.readable(text) for text in texts])


def _own_notice(files: Files) -> tuple[str, bytes] | None:
    """Name and bytes of the Notice to add: what the licences dictate and no Notice of the source holds."""
    contents = {path: _content(files, path) for path in licence_paths(files.sizes)}
    asked = [duty for duty in _duties(read_card(files, Meter()).metadata, contents) if duty.notice]
    texts = [terms.readable(contents[path]).lower() for path in terms.notices(contents)]
    missing = [str(d.notice) for d in asked if not any(d.notice_begins.lower() in text for text in texts)]
    taken = {path.lower() for path in files.sizes}
    name = next((name for name in (NOTICE, f"{NOTICE}.txt", f"{NOTICE}-model.txt") if name.lower() not in taken), None)
    return (name, ("\n".join(dict.fromkeys(missing)) + "\n").encode()) if missing and name else None


def _statements(asked: Iterable[Duties], *, has_text: bool) -> Iterator[Statement]:
    for duty in asked:
        if duty.attribution:
            yield Statement(text=duty.attribution[0], strong=True)
        if duty.display:
            text = f'Whoever uses it {duty.display_when} must prominently display "{duty.display}" there.'
            yield Statement(text=text)
        if duty.policy:
            yield Statement(text=f"Use is subject to the {duty.policy.name}", link=duty.policy.url)
        if not duty.commercial:
            yield Statement(text=f"{duty.title}: no commercial use.", strong=True)
        if duty.changes:
            yield Statement(text="This copy was changed: its weights were quantized from those of the base model.")
        if duty.copy and not has_text:
            yield Statement(text=f"Text of the {duty.title}", link=duty.url)
        for remark in duty.remarks:
            yield Statement(text=remark)


def _declared(value: Any) -> tuple[str, ...]:
    """Declared identifiers; the Hub takes one or a list, and compares in lower case."""
    values = value if isinstance(value, list) else [value]
    return tuple(item.strip().lower() for item in values if isinstance(item, str) and item.strip())


def _metadata(
    upstream: Mapping[str, Any],
    declared: tuple[str, ...],
    recognised: str | None,
    main: str | None,
    link: str | None,
) -> dict[str, Any]:
    if declared and "other" not in declared and all(map(hub_knows, declared)):
        return {"license": declared[0] if len(declared) == 1 else list(declared)}
    if not declared and recognised is not None and hub_knows(recognised):
        return {"license": recognised}
    if not declared and main is None:
        return {"license": "unknown"}
    named = upstream.get("license_name") if declared else None
    name = _slug(named if isinstance(named, str) else "") or _slug(
        next((d for d in declared if d != "other"), "") or recognised or "upstream-license"
    )
    return {"license": "other", "license_name": name, **({"license_link": link} if link else {})}


def _slug(text: str) -> str:
    text = text.strip()
    if _SLUG.match(text):
        return text
    return re.sub(r"[^a-z0-9.+]+", "-", text.lower()).strip("-.+")[:96]


def _link(upstream: Mapping[str, Any], main: str | None, repo: str | None, commit: str | None) -> str | None:
    """Where the terms can be read: the Hub takes `LICENSE`, `LICENSE.md` or a web address."""
    if main in jsonio.data("licences/files.json")["link"]:
        return main
    declared = upstream.get("license_link")
    if isinstance(declared, str) and _WEB.match(declared):
        return declared
    if repo:
        return f"https://huggingface.co/{repo}" + (f"/blob/{commit or 'main'}/{main}" if main else "")
    return main


def _title(metadata: Mapping[str, Any]) -> str:
    value = metadata["license"]
    named = metadata.get("license_name")
    return (
        terms.title(str(named)) if named else ", ".join(map(terms.title, value if isinstance(value, list) else [value]))
    )


def _warnings(
    declared: tuple[str, ...],
    names: tuple[str, ...],
    text: Recognised | None,
    main: str | None,
    flaw: str | None,
) -> Iterable[str]:
    named = [identifier for identifier in declared if identifier != "other"]
    if main is None:
        yield "The upstream repository ships no licence text."
    if not declared:
        yield "The upstream card declares no licence." + (f" {flaw}" if flaw else "")
    if text and text.added:
        yield f"{main} adds words to {terms.title(text.identifier)}: {text.added}."
    elif text and named and not any(text.identifier in terms.meant_by(name) for name in names):
        yield f"The upstream card declares {', '.join(named)}, but {main} reads as {text.identifier}."
