"""The terms a model comes under: found in the source, carried over byte for byte, proven equal, named for the Hub.

A licence is a set of files (LICENSE, NOTICE, USE_POLICY, ... in any folder) and what the upstream card declares. Files
are compared and copied as bytes, never decoded and written again. The identifier for the Hub is the declared one where
the Hub knows it, else `other` with a name and a link. The text is recognised only in the simplest cases, to warn when
it is not what the card declares. Nothing is invented: a source without a licence file stays without one, and says so.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from publisher import jsonio
from publisher.checkpoint.files import Files, LocalFiles, safe_name
from publisher.errors import CheckpointError
from publisher.subjects import Meter, read_card

MAX_FILE = 16 << 20  # bytes; the longest notice files of real repositories have a few hundred thousand
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
class Licence:
    """The terms of a source.

    Args:
        files: every file of terms, sorted by path; empty where the source ships none.
        declared: the upstream card's `license`, None where it has none.
        recognised: identifier of the main file's text where it is one of the few this program knows.
        metadata: `license` and, where needed, `license_name` and `license_link` for the result's card.
        title: what to call the licence in a sentence.
        warnings: what a person should look at, each a sentence.
    """

    files: tuple[LicenceFile, ...]
    declared: str | None
    recognised: str | None
    metadata: Mapping[str, Any]
    title: str
    warnings: tuple[str, ...]


def licence_paths(names: Iterable[str]) -> list[str]:
    """Those of a repository's files that hold terms, sorted."""
    table = jsonio.data("licences/files.json")
    return sorted(name for name in names if safe_name(name) and _matches(name, table))


def _matches(name: str, table: Mapping[str, Any]) -> bool:
    base = name.rpartition("/")[2].lower()
    return any(fnmatch.fnmatchcase(base, pattern) for pattern in table["names"]) and not any(
        fnmatch.fnmatchcase(base, pattern) for pattern in table["not"]
    )


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
    main = _main(contents)
    recognised = recognise(contents[main]) if main else None
    declared = _declared(upstream.get("license"))
    metadata = _metadata(upstream, declared, recognised, main, _link(upstream, main, repo, commit))
    return Licence(
        files=found,
        declared=", ".join(declared) or None,
        recognised=recognised,
        metadata=metadata,
        title=_title(metadata),
        warnings=tuple(_warnings(declared, recognised, main, card.flaw)),
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
    return read(files)


def compare(files: Files, result: Path | Files) -> list[LicenceDifference]:
    """Every way in which a result's terms are not byte for byte the source's; empty when they are.

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
    found += [LicenceDifference(path, "added") for path in present.difference(wanted)]
    return sorted(found, key=lambda difference: difference.path)


def recognise(text: bytes) -> str | None:
    """The identifier of a licence text, where it is one this program knows by its own phrases; None otherwise."""
    folded = " ".join(text.decode("utf-8", errors="replace").lower().split())
    for row in jsonio.data("licences/texts.json")["texts"]:
        if all(phrase in folded for phrase in row["all"]) and not any(p in folded for p in row.get("none", ())):
            return str(row["id"])
    return None


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


def _main(contents: Mapping[str, bytes]) -> str | None:
    """The file that holds the licence itself: LICENSE at the root before any other spelling or folder."""
    links = jsonio.data("licences/files.json")["link"]
    terms = [path for path in contents if path.rpartition("/")[2].lower().startswith(("licen", "copying"))]
    order = {path: (path not in links, path.count("/"), links.index(path) if path in links else 9) for path in terms}
    return min(terms, key=lambda path: (order[path], path), default=None)


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
    identifier = metadata.get("license_name") or (", ".join(value) if isinstance(value, list) else value)
    titles = {row["id"]: row["title"] for row in jsonio.data("licences/texts.json")["texts"]}
    return str(titles.get(identifier, identifier))


def _warnings(declared: tuple[str, ...], recognised: str | None, main: str | None, flaw: str | None) -> Iterable[str]:
    named = [identifier for identifier in declared if identifier != "other"]
    if main is None:
        yield "The upstream repository ships no licence text."
    if not declared:
        yield "The upstream card declares no licence." + (f" {flaw}" if flaw else "")
    if recognised and named and recognised not in named:
        yield f"The upstream card declares {', '.join(named)}, but {main} reads as {recognised}."
    for identifier in named:
        parts = identifier.lower().split("-")
        if "nd" in parts:
            yield f"{identifier} does not allow sharing modified versions, and a quantized model is one; ask for leave."
        elif "nc" in parts or "noncommercial" in parts:
            yield f"{identifier} allows no commercial use; the card must say so, and gating does not change it."
