"""The manifest `publish.json`: every published file's size and sha256, and where the checkpoint came from.

Built from a folder in one pass of bounded memory. Its `resources` and `serialization` are those of the model_signing
predicate (https://model_signing/signature/v1.0, with a `size` that its readers pass over), so `Manifest.statement` is
what that tool signs; the root digest of ours covers names and sizes as well as digests. Two files cannot be listed:
the manifest itself and the Hub's `.gitattributes`. Symbolic links, special files and names that mean something else
elsewhere (absolute, `..`, backslashes, control characters, two names equal but for case) are refused.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from publisher import jsonio
from publisher.errors import CheckpointError

NAME = "publish.json"
IGNORED = (".cache", ".git", ".gitattributes", NAME)  # at the top level; the first two are tools' working folders
PREDICATE = "https://model_signing/signature/v1.0"
STATEMENT = "https://in-toto.io/Statement/v1"
BLOCK = 4 * 1024 * 1024

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One published file: its POSIX path in the repository, bytes, and sha256 (hex)."""

    path: str
    size: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """The entry as a resource of the predicate."""
        return {"name": self.path, "algorithm": "sha256", "digest": self.sha256, "size": self.size}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One way in which files are not what a manifest says.

    Args:
        path: the file.
        kind: missing, unexpected, size or sha256.
        expected: what the manifest says; None for an unexpected file.
        actual: what was found; None for a missing file.
    """

    path: str
    kind: str
    expected: str | int | None = None
    actual: str | int | None = None

    def __str__(self) -> str:
        if self.kind == "missing":
            return f"{self.path} is missing"
        if self.kind == "unexpected":
            return f"{self.path} is not in the manifest"
        return f"{self.path} has {self.kind} {self.actual}, the manifest says {self.expected}"

    def to_json(self) -> dict[str, Any]:
        """The difference as a JSON object."""
        return {"path": self.path, "kind": self.kind, "expected": self.expected, "actual": self.actual}


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a checkpoint came from; None where it is not known.

    Args:
        source_repo: the source's Hub id.
        source_commit: the commit it was read at.
        recipe: the recipe's name.
        recipe_digest: sha256 (hex) of the recipe's canonical JSON.
        engine: who quantized.
        engine_version: that engine's version.
        versions: library name to version.
        report_digest: sha256 (hex) of the validation report.
        waivers: rule code to the reason it was waived for.
        gate: the gate that was asked for: auto, manual or off; None in manifests that do not say.
        facts: values of the model card: `part`, `label`, `text` and `origin`, the file it was computed from.
    """

    source_repo: str | None = None
    source_commit: str | None = None
    recipe: str | None = None
    recipe_digest: str | None = None
    engine: str | None = None
    engine_version: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    report_digest: str | None = None
    waivers: Mapping[str, str] = field(default_factory=dict)
    gate: str | None = None
    facts: tuple[Mapping[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The provenance keys of `publish.json`."""
        found = {
            "source": {"repo": self.source_repo, "commit": self.source_commit},
            "recipe": {"name": self.recipe, "digest": self.recipe_digest},
            "engine": {"name": self.engine, "version": self.engine_version},
            "versions": dict(self.versions),
            "report": {"digest": self.report_digest},
            "waivers": dict(self.waivers),
        } | ({} if self.gate is None else {"gate": self.gate})
        return found | ({"facts": [dict(fact) for fact in self.facts]} if self.facts else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The published files, sorted folder by folder, and their provenance."""

    files: tuple[FileEntry, ...]
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def root_digest(self) -> str:
        """sha256 (hex) of the canonical JSON of `resources`: it binds names, sizes and contents."""
        return jsonio.digest([entry.to_json() for entry in self.files])

    @property
    def size(self) -> int:
        """Bytes of all listed files."""
        return sum(entry.size for entry in self.files)

    def to_json(self) -> dict[str, Any]:
        """The document `publish.json` holds."""
        return {
            "version": 1,
            "serialization": _serialization(),
            "resources": [entry.to_json() for entry in self.files],
            "root_digest": self.root_digest,
        } | self.provenance.to_json()

    def encoded(self) -> bytes:
        """The bytes of `publish.json`; the same manifest gives the same bytes."""
        return jsonio.dump_json(self.to_json()).encode()

    def own_entry(self) -> FileEntry:
        """What `publish.json` itself is, which the manifest cannot list."""
        data = self.encoded()
        return FileEntry(path=NAME, size=len(data), sha256=hashlib.sha256(data).hexdigest())

    def statement(self, name: str) -> dict[str, Any]:
        """The in-toto statement that model_signing signs for a model of that name.

        Its subject digest is that tool's: sha256 over the raw digests in the order of the resources.
        """
        root = hashlib.sha256(b"".join(bytes.fromhex(entry.sha256) for entry in self.files)).hexdigest()
        return {
            "_type": STATEMENT,
            "subject": [{"name": name, "digest": {"sha256": root}}],
            "predicateType": PREDICATE,
            "predicate": {
                "serialization": _serialization(),
                "resources": [entry.to_json() for entry in self.files],
            },
        }


def build(
    folder: Path,
    provenance: Provenance,
    *,
    known: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    workers: int = 4,
) -> Manifest:
    """Hash a folder into a manifest.

    Args:
        folder: the checkpoint as it shall be published.
        provenance: where it came from.
        known: path to sha256 (hex) of files whose digest was taken while they were written; they are not read again.
        progress: called with (bytes done, bytes in all).
        workers: files hashed at once.

    Raises:
        CheckpointError: no folder, no files, a link, an unreadable file, or names that cannot be published, all listed.
    """
    sizes = listing(folder)
    if not sizes:
        raise CheckpointError(f"{folder} holds no files to publish.", hint="Give the folder of a checkpoint.")
    return Manifest(files=_hash(folder, sizes, known or {}, progress, workers), provenance=provenance)


def read(path: Path) -> Manifest:
    """Read a `publish.json`.

    Raises:
        DocumentError: not JSON of that shape.
        CheckpointError: names that cannot be published, or a root digest that is not the resources'.
    """
    return parse(jsonio.load_json(path), str(path))


def parse(document: Any, where: str) -> Manifest:
    """The manifest a parsed document holds; errors as `read`."""
    jsonio.require(document, "manifest", where, hint="Build the manifest again.")
    entries = [FileEntry(path=item["name"], size=item["size"], sha256=item["digest"]) for item in document["resources"]]
    _refuse(where, list(_name_problems([entry.path for entry in entries])))
    manifest = Manifest(files=_sorted(entries), provenance=_provenance(document))
    if manifest.root_digest != document["root_digest"]:
        raise CheckpointError(
            f"{where} was edited: its root digest is {document['root_digest']}, "
            f"its resources give {manifest.root_digest}.",
            hint="Build the manifest again.",
        )
    return manifest


def compare(expected: Iterable[FileEntry], actual: Mapping[str, tuple[int, str | None]]) -> list[Difference]:
    """Every difference between entries and what is stored (path to size and, where known, sha256)."""
    entries = {entry.path: entry for entry in expected}
    found = []
    for path, entry in entries.items():
        if path not in actual:
            found.append(Difference(path=path, kind="missing", expected=entry.sha256))
            continue
        size, sha256 = actual[path]
        if size != entry.size:
            found.append(Difference(path=path, kind="size", expected=entry.size, actual=size))
        elif sha256 is not None and sha256 != entry.sha256:
            found.append(Difference(path=path, kind="sha256", expected=entry.sha256, actual=sha256))
    extra = [Difference(path=path, kind="unexpected") for path in actual if path not in entries]
    return sorted([*found, *extra], key=lambda difference: difference.path.split("/"))


def hash_file(path: Path, advance: Callable[[int], None] | None = None) -> tuple[int, str]:
    """Size and sha256 (hex) of a regular file, read once in blocks.

    Raises:
        CheckpointError: it cannot be read, or is a link.
    """
    hasher, size = hashlib.sha256(), 0
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb", buffering=0) as file:
            while block := file.read(BLOCK):
                hasher.update(block)
                size += len(block)
                if advance is not None:
                    advance(len(block))
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror or error}.", hint="Check its permissions and the disk."
        ) from None
    return size, hasher.hexdigest()


def name_problem(path: str) -> str | None:
    """Why a path cannot name a published file, or None when it can."""
    if not path or path.startswith("/") or path.endswith("/"):
        return "is not a relative file name"
    if any(part in ("", ".", "..") for part in path.split("/")):
        return "leaves its folder or is not plain"
    if "\\" in path or not path.isprintable():
        return "holds a backslash, a control or an unprintable character"
    if len(path.encode("utf-8", "surrogatepass")) > 1024:
        return "is longer than 1,024 bytes"
    if path.split("/")[0] in IGNORED:
        return "is a name that no manifest lists"
    return None


# --- details -------------------------------------------------------------------------------------------------------


def _serialization() -> dict[str, Any]:
    return {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": list(IGNORED)}


def _provenance(document: Mapping[str, Any]) -> Provenance:
    return Provenance(
        source_repo=document["source"]["repo"],
        source_commit=document["source"]["commit"],
        recipe=document["recipe"]["name"],
        recipe_digest=document["recipe"]["digest"],
        engine=document["engine"]["name"],
        engine_version=document["engine"]["version"],
        versions=document["versions"],
        report_digest=document["report"]["digest"],
        waivers=document["waivers"],
        gate=document.get("gate"),
        facts=tuple(document.get("facts", ())),
    )


def _sorted(entries: Iterable[FileEntry]) -> tuple[FileEntry, ...]:
    # Part by part, as model_signing orders paths: "a/b" before "a-b", unlike the order of the strings.
    return tuple(sorted(entries, key=lambda entry: entry.path.split("/")))


def listing(folder: Path) -> dict[str, int]:
    """Relative path to size of every file to publish, or every reason why not at once."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder.", hint="Give the folder of a checkpoint.")
    sizes: dict[str, int] = {}
    problems: list[str] = []
    for path, mode, size in _walk(folder):
        if not stat.S_ISREG(mode):
            kind = "a symbolic link" if stat.S_ISLNK(mode) else "no regular file"
            problems.append(f"{path!r} is {kind}")
        else:
            sizes[path] = size
    _refuse(str(folder), [*problems, *_name_problems(list(sizes))])
    return sizes


def _walk(folder: Path) -> Iterator[tuple[str, int, int]]:
    """(relative path, mode, size) of everything that is not a folder; links are not followed."""
    pending = [""]
    while pending:
        prefix = pending.pop()
        try:
            with os.scandir(folder / prefix) as entries:
                for entry in entries:
                    path = prefix + entry.name
                    if path in IGNORED:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(path + "/")
                    else:
                        status = entry.stat(follow_symlinks=False)
                        yield path, status.st_mode, status.st_size
        except OSError as error:
            raise CheckpointError(
                f"{folder / prefix} cannot be read: {error.strerror or error}.",
                hint="Check its permissions and the disk.",
            ) from None


def _name_problems(paths: Sequence[str]) -> Iterator[str]:
    folded: dict[str, str] = {}
    for path in paths:
        problem = name_problem(path)
        if problem:
            yield f"{path[:200]!r} {problem}"
        twin = folded.setdefault(path.casefold(), path)
        if twin is not path:
            yield f"{path[:200]!r} and {twin[:200]!r} are one file where case does not count"


def _refuse(where: str, problems: Sequence[str]) -> None:
    if problems:
        more = f" and {len(problems) - 10:,} more" if len(problems) > 10 else ""
        raise CheckpointError(
            f"{where} cannot be published: " + "; ".join(problems[:10]) + more + ".",
            hint="Replace links by files and rename what is listed.",
        )


def _hash(
    folder: Path,
    sizes: Mapping[str, int],
    known: Mapping[str, str],
    progress: Progress | None,
    workers: int,
) -> tuple[FileEntry, ...]:
    count = _Counter(sum(sizes.values()), progress)

    def entry(path: str) -> FileEntry:
        if path in known:
            count.advance(sizes[path])
            return FileEntry(path=path, size=sizes[path], sha256=known[path])
        size, sha256 = hash_file(folder / path, count.advance)
        if size != sizes[path]:
            raise CheckpointError(
                f"{folder / path} changed while it was read ({sizes[path]:,} to {size:,} bytes).",
                hint="Let nothing write there and run again.",
            )
        return FileEntry(path=path, size=size, sha256=sha256)

    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="sha256") as pool:
        try:
            return _sorted(pool.map(entry, sizes))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # do not read the rest of a terabyte first
            raise


class _Counter:
    """Adds up bytes of several threads and tells a listener."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._progress = total, progress
        self._done = 0
        self._lock = threading.Lock()

    def advance(self, count: int) -> None:
        if self._progress is not None:
            with self._lock:
                self._done += count
                self._progress(self._done, self._total)
